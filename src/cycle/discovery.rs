//! Finds what watched authors announce: from index relays, the known servers, the relays that announcements
//! name and the authors' own write relays, until nothing new turns up.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use nostr::prelude::{Event, Filter, Kind, PublicKey, RelayUrl};

use super::{
    CycleError,
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

/// Authors in one filter (66 bytes each).
pub(super) const AUTHORS_PER_FILTER: usize = 200;

/// What is read of an author: announcements, states, server lists, deletions and relay lists.
const KINDS: [Kind; 5] = [
    Kind::GitRepoAnnouncement,
    Kind::RepoState,
    Kind::GitUserGraspList,
    Kind::EventDeletion,
    Kind::RelayList,
];

impl World {
    /// Brings everything that watched authors and their co-maintainers announced into the store.
    ///
    /// A relay that fails costs nothing but its own news: the store keeps what was known before. Returns those
    /// that could not be read to the end.
    pub(super) async fn discover(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
    ) -> Result<BTreeSet<RelayUrl>, CycleError> {
        let mut unread = BTreeSet::new();
        let watched = &self.settings.watched;
        let bot = &self.config.bot;
        let mut relays: BTreeSet<RelayUrl> = bot.relays.iter().chain(&bot.index_relays).cloned().collect();
        relays.extend(
            servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.relay_url().clone()),
        );
        let mut authors = watched.authors.clone();
        authors.extend(watched.repositories.iter().map(|coordinate| coordinate.owner));
        authors.insert(self.bot());
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
            unread.extend(self.ask_relays(todo).await);
            let (more_authors, mut more_relays) = self.learn(&authors).await?;
            let room = MAX_AUTHORS.saturating_sub(authors.len());
            let new: Vec<PublicKey> = more_authors.difference(&authors).take(room).copied().collect();
            authors.extend(new);
            more_relays.retain(|relay| considered.insert(relay.clone()));
            more_relays.truncate(MAX_RELAYS.saturating_sub(relays.len()));
            relays.extend(self.usable_relays(more_relays).await);
        }
        Ok(unread)
    }

    async fn ask_relays(&self, todo: Vec<(RelayUrl, Vec<PublicKey>)>) -> Vec<RelayUrl> {
        stream::iter(todo)
            .map(|(relay, authors)| async move {
                for some in authors.chunks(AUTHORS_PER_FILTER) {
                    let filter = Filter::new().kinds(KINDS).authors(some.iter().copied());
                    if let Err(error) = self.relays.backfill(&relay, filter).await {
                        tracing::warn!(%relay, %error, "could not be read to the end; what it said before counts");
                        return Some(relay);
                    }
                }
                None
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(|unread| async move { unread })
            .collect()
            .await
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
fn write_relays(list: &Event) -> Vec<String> {
    list.tags
        .iter()
        .filter_map(|tag| match tag.as_slice() {
            [name, relay] if name == "r" => Some(relay.clone()),
            [name, relay, marker, ..] if name == "r" && marker != "read" => Some(relay.clone()),
            _ => None,
        })
        .collect()
}
