//! The bot's settings, as its own events have them: on its relays, and in the store.

use futures::{StreamExt, stream};
use nostr::prelude::{Event, Filter, Keys, Kind, Nip44, PublicKey, RelayUrl, Tag, Timestamp};

use super::{
    CycleError,
    world::{AT_ONCE, World},
};
use crate::{
    config::Config,
    model::draft::Draft,
    plan::settings::{LISTS, Lists, Seeds, Settings, Settled, TOLD_IDENTIFIER, Told},
    relay::{RelayError, Relays},
    store::{Store, StoreError},
};

/// What is said about the settings, and what follows from it.
#[derive(Clone, Debug)]
pub struct OwnWord {
    /// The lists as they stand.
    pub lists: Lists,
    /// The newest event that holds [`Told`].
    told_event: Option<Event>,
    /// What it holds, as far as it can be read.
    told: Option<Told>,
    /// What follows.
    pub settled: Settled,
}

/// The events that are settings.
#[must_use]
pub fn own_filters(bot: PublicKey) -> Vec<Filter> {
    vec![
        Filter::new().kinds(LISTS).author(bot),
        Filter::new().kind(Kind::ApplicationSpecificData).author(bot).identifier(TOLD_IDENTIFIER),
    ]
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
    let told_event = events.iter().find(|event| event.kind == Kind::ApplicationSpecificData).cloned();
    let told = told_event.as_ref().and_then(|event| read_told(event, keys));
    let lists = Lists::newest(events);
    let settled = lists.settle(told.as_ref(), &seeds(config));
    Ok(OwnWord { lists, told_event, told, settled })
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
            let content = serde_json::to_string(told)?;
            let content = keys
                .nip44_encrypt(&keys.public_key(), &content)
                .map_err(|error| CycleError::Encrypt(error.to_string()))?;
            let tags = vec![
                Tag::identifier(TOLD_IDENTIFIER),
                Tag::custom("alt", ["settings of a grasp-mirror bot, for itself"]),
            ];
            let draft = Draft { kind: Kind::ApplicationSpecificData, tags, content, created_at: now };
            drafts.extend(draft.unless_said(self.told_event.as_ref()));
        }
        Ok(drafts)
    }
}

fn read_told(event: &Event, keys: &Keys) -> Option<Told> {
    let content = keys.nip44_decrypt(&keys.public_key(), &event.content).ok()?;
    serde_json::from_str(&content)
        .inspect_err(|error| tracing::warn!(event = %event.id, %error, "settings from another version"))
        .ok()
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
        let filters = own_filters(self.bot());
        stream::iter(&self.config.bot.relays)
            .for_each_concurrent(AT_ONCE, |relay| {
                let (world, filters) = (&*self, filters.clone());
                async move {
                    if let Err(error) = read_into(&world.store, &world.relays, relay, filters).await {
                        tracing::warn!(%relay, %error, "the bot's own lists were not read there");
                    }
                }
            })
            .await;
        let word = own_word(&self.config, &self.keys, &self.store).await?;
        self.obey(word.settled.settings);
        Ok(&self.settings)
    }
}
