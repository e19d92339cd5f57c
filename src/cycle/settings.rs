//! The bot's settings, as its own events have them: on its relays, and in the store.

use std::future::ready;

use futures::{StreamExt, stream};
use nostr::prelude::{Event, Filter, Keys, Kind, Nip44, PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    CycleError,
    monitoring::monitoring_filter,
    world::{AT_ONCE, World, own_addresses},
};
use crate::{
    config::{Config, Places},
    model::{
        draft::Draft,
        policy::{Policy, Said},
        server::ServerUrl,
    },
    plan::{
        self,
        converge::Answer,
        identity::{self, PLACES},
        settings::{LISTS, Lists, POLICY_IDENTIFIER, Seeds, Settings, Settled, TOLD_IDENTIFIER, Told},
        taken_out::TAKEN_OUT_IDENTIFIER,
    },
    relay::{RelayError, Relays},
    store::{Store, StoreError, records::Records},
};

/// The record of what the operator wrote, when it was last looked at, of where the bot is met ([`Places`]).
pub const WRITTEN: &str = "written";

/// What is said about the settings, and what follows from it.
#[derive(Clone, Debug)]
pub struct OwnWord {
    /// The lists as they stand.
    pub lists: Lists,
    /// The newest event that holds [`Told`].
    told_event: Option<Event>,
    /// What it holds, as far as it can be read.
    told: Option<Told>,
    /// The newest event that holds the rules made by message.
    said_event: Option<Event>,
    /// What it holds, as far as it can be read.
    said: Said,
    /// What follows.
    pub settled: Settled,
}

/// The events that are settings, and what else the bot remembers by events of its own.
#[must_use]
pub fn own_filters(bot: PublicKey) -> Vec<Filter> {
    // One filter an identifier: of several in one, some relays (nostr-memory 0.45) take only the first.
    let called =
        |identifier| Filter::new().kind(Kind::ApplicationSpecificData).author(bot).identifier(identifier);
    let lists = Filter::new().kinds(LISTS.into_iter().chain(PLACES)).author(bot);
    vec![lists, called(TOLD_IDENTIFIER), called(POLICY_IDENTIFIER), called(TAKEN_OUT_IDENTIFIER)]
}

/// What the stored events and the configuration say.
///
/// # Errors
///
/// [`StoreError`] when the database fails.
pub async fn own_word(config: &Config, keys: &Keys, store: &Store) -> Result<OwnWord, StoreError> {
    let mut events = Vec::new();
    for filter in own_filters(keys.public_key()) {
        events.extend(store.query(filter).await?);
    }
    let called = |identifier: &str| {
        let mut all = events.iter();
        all.find(|event| event.tags.identifier().is_some_and(|name| name == identifier)).cloned()
    };
    let (told_event, said_event) = (called(TOLD_IDENTIFIER), called(POLICY_IDENTIFIER));
    let told: Option<Told> = told_event.as_ref().and_then(|event| read_own(event, keys));
    let said: Said = said_event.as_ref().and_then(|event| read_own(event, keys)).unwrap_or_default();
    let lists = Lists::newest(events);
    let settled = lists.settle(told.as_ref(), said.clone(), &seeds(config));
    Ok(OwnWord { lists, told_event, told, said_event, said, settled })
}

/// Where the bot is met: what the operator has `written`, and what its own lists say beside that (kinds 10002 and 10050).
///
/// # Errors
///
/// [`StoreError`] when the database fails.
pub async fn met_at(written: &Places, keys: &Keys, store: &Store) -> Result<Places, StoreError> {
    let lists = store.query(Filter::new().kinds(PLACES).author(keys.public_key())).await?;
    let list = |kind| lists.iter().find(|list| list.kind == kind);
    let before = Records::new(store.clone(), keys.clone()).read(WRITTEN).await?;
    let before: Places = before.unwrap_or_default();
    let (relays, inbox_relays) = (list(Kind::RelayList), list(Kind::InboxRelays));
    Ok(Places {
        relays: identity::met_at(&written.relays, &before.relays, relays),
        inbox_relays: identity::met_at(&written.inbox_relays, &before.inbox_relays, inbox_relays),
    })
}

/// Brings what `filters` match at `relay` into `store`, also when `relays` keep nothing; returns it.
///
/// # Errors
///
/// [`RelayError`]; whatever arrived before is saved all the same.
pub async fn read_into(
    store: &Store,
    relays: &Relays,
    relay: &RelayUrl,
    filters: Vec<Filter>,
) -> Result<Vec<Event>, RelayError> {
    let events = relays.read(relay, filters).await?;
    for event in &events {
        if let Err(error) = store.save(event).await {
            tracing::warn!(event = %event.id, %error, "cannot be kept");
        }
    }
    Ok(events)
}

impl OwnWord {
    /// The events that have to be signed so that `settings` and `told` are said.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when they cannot be written.
    pub fn drafts(
        &self,
        settings: &Settings,
        told: &Told,
        keys: &Keys,
        now: Timestamp,
    ) -> Result<Vec<Draft>, CycleError> {
        let mut drafts = self.lists.drafts(settings, now);
        // Encrypted anew it would look new each time, so what it says is compared.
        if self.told.as_ref() != Some(told) {
            let draft = for_itself(TOLD_IDENTIFIER, "settings", told, keys, now)?;
            drafts.extend(draft.unless_said(self.told_event.as_ref()));
        }
        drafts.extend(self.draft_of_rules(&settings.said, keys, now)?);
        Ok(drafts)
    }

    /// The event that has to be signed so that the rules made by message are `said`.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when it cannot be written.
    pub fn draft_of_rules(
        &self,
        said: &Said,
        keys: &Keys,
        now: Timestamp,
    ) -> Result<Option<Draft>, CycleError> {
        if self.said == *said {
            return Ok(None);
        }
        let draft = for_itself(POLICY_IDENTIFIER, "rules", said, keys, now)?;
        Ok(draft.unless_said(self.said_event.as_ref()))
    }
}

/// An event that nobody but the bot can read.
pub(super) fn for_itself(
    identifier: &str,
    what: &str,
    value: &impl Serialize,
    keys: &Keys,
    now: Timestamp,
) -> Result<Draft, CycleError> {
    let content = serde_json::to_string(value)?;
    let content = keys
        .nip44_encrypt(&keys.public_key(), &content)
        .map_err(|error| CycleError::Encrypt(error.to_string()))?;
    let alt = format!("{what} of a grasp-mirror bot, for itself");
    let tags = vec![Tag::identifier(identifier), Tag::custom("alt", [alt])];
    Ok(Draft { kind: Kind::ApplicationSpecificData, tags, content, created_at: now })
}

pub(super) fn read_own<T: DeserializeOwned>(event: &Event, keys: &Keys) -> Option<T> {
    let unreadable = |error: String| {
        tracing::error!(event = %event.id, error, "what the bot was told cannot be read, and does not count");
    };
    let content = keys
        .nip44_decrypt(&keys.public_key(), &event.content)
        .inspect_err(|error| unreadable(error.to_string()))
        .ok()?;
    serde_json::from_str(&content).inspect_err(|error| unreadable(error.to_string())).ok()
}

/// What the operator's configuration says about the lists.
fn seeds(config: &Config) -> Seeds {
    let known = config.servers.known.iter().cloned().collect();
    let authors = config.environment.watched.iter().copied().collect();
    if config.servers.known_is_default {
        Seeds { authors, default_servers: known, ..Seeds::default() }
    } else {
        Seeds { authors, servers: known, ..Seeds::default() }
    }
}

impl World {
    /// Does what `settings` say from now on.
    pub fn obey(&mut self, settings: Settings) {
        // Only who has the bot's key can put an address there: as good as the operator's configuration.
        self.guard.trust(settings.servers.iter().map(|server| server.http_base().clone()));
        if self.settings != settings {
            self.kept.forget_what_follows();
        }
        self.policy = self.config.policy.obeying(&settings.said);
        self.settings = settings;
    }

    /// Whether the bot was told to write nothing.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.settings.paused
    }

    /// Reads the bot's own lists from its relays, and obeys the newest of those and the stored ones. Signs nothing.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails. A relay that fails costs its own news.
    pub async fn recall(&mut self) -> Result<&Settings, CycleError> {
        self.readable = self.read_own_word().await;
        let places = met_at(&self.config.bot.written, &self.keys, &self.store).await?;
        self.config.bot.meet_at(places);
        // Who has the bot's key can put an address there.
        self.guard.trust(own_addresses(&self.config));
        let word = own_word(&self.config, &self.keys, &self.store).await?;
        self.obey(word.settled.settings);
        Ok(&self.settings)
    }

    /// How many of the bot's relays showed what they have of its settings.
    pub(super) async fn read_own_word(&self) -> usize {
        let mut filters = own_filters(self.bot());
        // A new machine goes on from it, or takes it back.
        filters.push(monitoring_filter(self.bot()));
        let reads = stream::iter(self.config.bot.relays.clone()).map(|relay| {
            let filters = filters.clone();
            async move {
                let read = read_into(&self.store, &self.relays, &relay, filters).await;
                read.inspect_err(|error| {
                    tracing::warn!(%relay, %error, "the bot's own lists were not read there");
                })
            }
        });
        reads.buffer_unordered(AT_ONCE).filter(|read| ready(read.is_ok())).count().await
    }

    /// Makes `said` the rules by message, from now on and on any machine. Returns how many relays took them; the
    /// others get them from the daemon. Call [`Self::recall`] before.
    ///
    /// # Errors
    ///
    /// [`CycleError::Unread`] when none of the bot's relays can be read: it may have rules that would be replaced.
    pub async fn rule(&mut self, said: Said) -> Result<usize, CycleError> {
        if self.readable == 0 {
            return Err(CycleError::Unread);
        }
        let word = own_word(&self.config, &self.keys, &self.store).await?;
        let Some(draft) = word.draft_of_rules(&said, &self.keys, Timestamp::now())? else { return Ok(0) };
        let event = draft.sign(&self.keys)?;
        self.store.save(&event).await?;
        let mut taken = 0;
        for relay in &self.config.bot.relays {
            match self.relays.send(relay, &event).await {
                Ok(Answer::Taken | Answer::Purgatory) => taken += 1,
                Ok(Answer::Refused(reason)) => {
                    tracing::warn!(%relay, reason, "the rules were not taken there")
                }
                Err(error) => tracing::warn!(%relay, %error, "the rules were not published there"),
            }
        }
        self.obey(Settings { said, ..word.settled.settings });
        Ok(taken)
    }

    /// What the operator allows and denies.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The servers mirrored to, those included that rules keep away.
    pub fn servers(&self) -> impl Iterator<Item = &ServerUrl> {
        self.settings.servers.iter()
    }

    /// Says in the log which rules contradict each other.
    pub fn warn_of_contradictions(&self) {
        warn_of_contradictions(&self.config, &self.settings);
    }

    /// Which rules contradict each other, for people.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        contradictions(&self.config, &self.settings)
    }
}

/// Says in the log which of the operator's rules contradict each other, or can never hold, and whether there is no server.
pub fn warn_of_contradictions(config: &Config, settings: &Settings) {
    let mut named = settings.servers.iter().chain(config.policy.excepted_servers());
    if named.next().is_none() && !config.servers.discover && !settings.watched.is_empty() {
        tracing::warn!(
            "there is no server to mirror to: name some in [servers] known, or set discover = true"
        );
    }
    for contradiction in contradictions(config, settings) {
        tracing::warn!("{contradiction}");
    }
}

fn contradictions(config: &Config, settings: &Settings) -> Vec<String> {
    let policy = config.policy.obeying(&settings.said);
    let (copies_wanted, discover) = (config.mirror.copies_wanted, config.servers.discover);
    plan::policy::contradictions(&policy, &settings.servers, copies_wanted, discover)
}
