//! Finds what watched authors announce: from index relays, the known servers, the relays that announcements
//! name and the authors' own write relays, until nothing new turns up.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use nostr::prelude::{Event, Filter, Kind, PublicKey, RelayUrl};

use super::{
    CycleError,
    kept::{Kept, People},
    servers::Server,
    world::{AT_ONCE, World},
};
use crate::model::{announcement::Announcement, server::ServerUrl};

/// Rounds of "new authors, new relays"; a chain of announcements is rarely longer than two.
const ROUNDS: usize = 5;

/// Relays asked in one run; beyond it only the configured ones and the servers are.
const MAX_RELAYS: usize = 100;

/// Relays taken from one event: who names many more is not looking for readers.
pub(super) const RELAYS_PER_EVENT: usize = 16;

/// Authors read in one run; beyond it only the watched ones are.
const MAX_AUTHORS: usize = 2_000;

impl World {
    /// Brings everything that watched authors and their co-maintainers announced into the store, and sees what each
    /// relay and server has of it.
    ///
    /// A relay that fails costs nothing but its own news: the store keeps what was known before. Returns those
    /// that could not be read to the end, with the reason.
    pub(super) async fn discover(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        kept: &mut Kept,
    ) -> Result<BTreeMap<RelayUrl, String>, CycleError> {
        let mut unread = BTreeMap::new();
        let watched = &self.settings.watched;
        let bot = &self.config.bot;
        let mut relays: BTreeSet<RelayUrl> = bot.relays.iter().chain(&bot.index_relays).cloned().collect();
        relays.extend(
            servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.relay_url().clone()),
        );
        let given = relays.clone();
        let mut authors = watched.authors.clone();
        authors.extend(watched.repositories.iter().map(|coordinate| coordinate.owner));
        authors.insert(self.bot());
        // From the same events about the same people the same would be learned again.
        let mut learned = None;
        if let Some(people) =
            kept.people.take().filter(|people| people.learned_at == self.store.news().sources)
        {
            authors.extend(people.authors);
            relays.extend(people.relays);
            learned = Some((people.learned_at, authors.len()));
        }
        let mut asked: BTreeMap<RelayUrl, BTreeSet<PublicKey>> = BTreeMap::new();
        let mut considered = relays.clone();
        for _ in 0..ROUNDS {
            let todo: Vec<(RelayUrl, Vec<PublicKey>)> = relays
                .iter()
                .filter_map(|relay| {
                    let before = asked.entry(relay.clone()).or_default();
                    let new: Vec<PublicKey> = authors.difference(before).copied().collect();
                    before.extend(&new);
                    (!new.is_empty()).then(|| (relay.clone(), new))
                })
                .collect();
            if todo.is_empty() {
                break;
            }
            unread.extend(self.ask_relays(todo, kept).await?);
            let known = Some((self.store.news().sources, authors.len()));
            if learned == known {
                break;
            }
            learned = known;
            let (more_authors, mut more_relays) = self.learn(&authors).await?;
            let room = MAX_AUTHORS.saturating_sub(authors.len());
            let new: Vec<PublicKey> = more_authors.difference(&authors).take(room).copied().collect();
            authors.extend(new);
            more_relays.retain(|relay| considered.insert(relay.clone()));
            more_relays.truncate(MAX_RELAYS.saturating_sub(relays.len()));
            relays.extend(self.usable_relays(more_relays).await);
        }
        kept.holdings.retain(|relay, _| relays.contains(relay));
        kept.holdings.values_mut().for_each(|holdings| holdings.keep_only(&authors));
        asked.retain(|relay, _| !unread.contains_key(relay));
        kept.compared = asked;
        let relays = relays.difference(&given).cloned().collect();
        kept.people = learned.map(|(learned_at, _)| People { authors, relays, learned_at });
        Ok(unread)
    }

    /// Compares what each of the relays has of its authors. Returns those that failed.
    pub(super) async fn ask_relays(
        &self,
        todo: Vec<(RelayUrl, Vec<PublicKey>)>,
        kept: &mut Kept,
    ) -> Result<BTreeMap<RelayUrl, String>, CycleError> {
        let mut unknown = BTreeSet::new();
        let mut asks = Vec::new();
        for (relay, authors) in todo {
            let holdings = kept.holdings.remove(&relay).unwrap_or_default();
            unknown.extend(authors.iter().filter(|author| !holdings.know(author)));
            asks.push((relay, authors, holdings));
        }
        let stored = &self.stored(&unknown).await?;
        let answers: Vec<_> = stream::iter(asks)
            .map(|(relay, authors, mut holdings)| async move {
                let error = self.see(&relay, &mut holdings, &authors, stored).await.err();
                (relay, holdings, error)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut failed = BTreeMap::new();
        for (relay, holdings, error) in answers {
            if let Some(error) = error {
                tracing::warn!(%relay, %error, "could not be read to the end; what it said before counts");
                failed.insert(relay.clone(), error.to_string());
            }
            kept.holdings.insert(relay, holdings);
        }
        Ok(failed)
    }

    /// Authors and relays that the stored announcements and relay lists of `authors` name.
    async fn learn(
        &self,
        authors: &BTreeSet<PublicKey>,
    ) -> Result<(BTreeSet<PublicKey>, Vec<RelayUrl>), CycleError> {
        let filter = Filter::new()
            .kinds([Kind::GitRepoAnnouncement, Kind::RelayList])
            .authors(authors.iter().copied());
        let mut people = BTreeSet::new();
        let mut named = Vec::new();
        for event in self.store.query(filter).await? {
            if event.pubkey == self.bot() {
                continue;
            }
            if event.kind == Kind::RelayList {
                named.extend(write_relays(&event).into_iter().take(RELAYS_PER_EVENT));
            } else if let Some(announcement) = Announcement::read(event)
                && !announcement.private
            {
                people.extend(&announcement.roles.listed);
                people.extend(&announcement.roles.leads);
                named.extend(announcement.relays.into_iter().take(RELAYS_PER_EVENT));
            }
        }
        Ok((people, named.iter().filter_map(|relay| RelayUrl::parse(relay).ok()).collect()))
    }
}

/// Where an author publishes (NIP-65): entries marked `write`, or not marked.
pub(super) fn write_relays(list: &Event) -> Vec<String> {
    list.tags
        .iter()
        .filter_map(|tag| match tag.as_slice() {
            [name, relay] if name == "r" => Some(relay.clone()),
            [name, relay, marker, ..] if name == "r" && marker != "read" => Some(relay.clone()),
            _ => None,
        })
        .collect()
}
