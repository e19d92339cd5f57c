//! Collects the conversation around repositories: everything that points at them, and at that, to the end.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, future::try_join_all, stream};
use nostr::prelude::{Event, EventId, Filter, RelayUrl, SingleLetterTag};

use super::{
    CycleError,
    discovery::RELAYS_PER_EVENT,
    kept::Kept,
    world::{AT_ONCE, World},
};
use crate::{
    plan::{catalog::Repository, conversation::MAX_DEPTH, rest::Known},
    relay::RelayError,
};

/// Values in one tag filter.
pub(super) const VALUES_PER_FILTER: usize = 100;

/// How events point at a repository.
pub(super) const AT_REPOSITORY: [SingleLetterTag; 3] =
    [SingleLetterTag::LOWERCASE_A, SingleLetterTag::UPPERCASE_A, SingleLetterTag::LOWERCASE_Q];

/// How events point at events.
pub(super) const AT_EVENT: [SingleLetterTag; 3] =
    [SingleLetterTag::LOWERCASE_E, SingleLetterTag::UPPERCASE_E, SingleLetterTag::LOWERCASE_Q];

/// What events may point at.
struct Targets {
    /// Coordinates.
    repositories: Vec<String>,
    /// Event ids in hex.
    events: Vec<String>,
}

/// What may point at a repository, and the relays where that is looked for.
pub(super) struct Talked {
    /// Every confirmed maintainer's coordinate.
    pub(super) coordinates: Vec<String>,
    /// The relays that they name.
    pub(super) relays: Box<[RelayUrl]>,
}

impl From<&Repository> for Talked {
    fn from(repository: &Repository) -> Self {
        let coordinates = repository.coordinates().iter().map(ToString::to_string).collect();
        Self { coordinates, relays: relays_of(repository) }
    }
}

impl From<&Known> for Talked {
    fn from(known: &Known) -> Self {
        let coordinates = known.coordinates.iter().map(ToString::to_string).collect();
        Self { coordinates, relays: known.relays.clone() }
    }
}

impl World {
    /// Whom to ask for the conversations around `repositories`: the relays each of them names, and `everywhere`.
    pub(super) async fn whom_to_ask(
        &self,
        repositories: &[Talked],
        everywhere: &BTreeSet<RelayUrl>,
        kept: &mut Kept,
    ) -> BTreeMap<RelayUrl, BTreeSet<String>> {
        let distinct: BTreeSet<RelayUrl> =
            repositories.iter().flat_map(|repository| &repository.relays).cloned().collect();
        let usable: BTreeSet<RelayUrl> = self.usable_relays(distinct).await.into_iter().collect();
        let mut per_relay: BTreeMap<RelayUrl, BTreeSet<String>> = BTreeMap::new();
        for repository in repositories {
            let named = repository.relays.iter().filter(|relay| usable.contains(*relay));
            for relay in named.chain(everywhere) {
                per_relay.entry(relay.clone()).or_default().extend(repository.coordinates.iter().cloned());
            }
        }
        kept.usable.extend(usable);
        per_relay
    }

    /// Brings the conversation around the coordinates into the store, from each relay to the end. Returns the relays
    /// that could not be read to theirs.
    pub(super) async fn collect_threads(
        &self,
        mut per_relay: BTreeMap<RelayUrl, BTreeSet<String>>,
    ) -> Result<BTreeSet<RelayUrl>, CycleError> {
        let mut unread = BTreeSet::new();
        let mut asked: BTreeMap<RelayUrl, BTreeSet<String>> = BTreeMap::new();
        // Round by round over all relays together: what one relay brings, another may have the answers to.
        for _ in 0..MAX_DEPTH {
            let mut threads: BTreeMap<&BTreeSet<String>, BTreeSet<String>> = BTreeMap::new();
            let mut todo: Vec<(RelayUrl, Targets)> = Vec::new();
            for (relay, coordinates) in &per_relay {
                if !threads.contains_key(coordinates) {
                    let named: Vec<String> = coordinates.iter().cloned().collect();
                    let max_events = self.config.limits.max_events_per_repo.saturating_mul(named.len());
                    let events = self.thread(&named, max_events).await?;
                    threads.insert(coordinates, events.iter().map(|event| event.id.to_hex()).collect());
                }
                let before = asked.entry(relay.clone()).or_default();
                let new = |all: &BTreeSet<String>| all.difference(before).cloned().collect::<Vec<String>>();
                let targets = Targets {
                    repositories: new(coordinates),
                    events: threads.get(coordinates).map(new).unwrap_or_default(),
                };
                before.extend(targets.repositories.iter().chain(&targets.events).cloned());
                if !targets.repositories.is_empty() || !targets.events.is_empty() {
                    todo.push((relay.clone(), targets));
                }
            }
            if todo.is_empty() {
                break;
            }
            let failed: Vec<Option<RelayUrl>> = stream::iter(todo)
                .map(|(relay, targets)| async move {
                    let error = self.collect_from(&relay, targets).await.err()?;
                    tracing::warn!(%relay, %error, "its conversations could not be read to the end");
                    Some(relay)
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for relay in failed.into_iter().flatten() {
                per_relay.remove(&relay);
                unread.insert(relay);
            }
        }
        Ok(unread)
    }

    async fn collect_from(&self, relay: &RelayUrl, targets: Targets) -> Result<(), RelayError> {
        for (targets, tags) in [(targets.repositories, AT_REPOSITORY), (targets.events, AT_EVENT)] {
            for some in targets.chunks(VALUES_PER_FILTER) {
                let filters = tags.map(|tag| Filter::new().custom_tags(tag, some.iter().cloned()));
                try_join_all(filters.map(|filter| self.relays.backfill(relay, filter))).await?;
            }
        }
        Ok(())
    }

    /// Stored events that point at one of `coordinates`, to the end of the thread; about `max_events` at most.
    pub(super) async fn thread(
        &self,
        coordinates: &[String],
        max_events: usize,
    ) -> Result<Vec<Event>, CycleError> {
        let mut all: BTreeMap<EventId, Event> = BTreeMap::new();
        let mut level = coordinates.to_vec();
        let mut tags = AT_REPOSITORY;
        for _ in 0..MAX_DEPTH {
            let found = self.pointing_at(&level, tags).await?;
            level = found
                .into_iter()
                .filter_map(|event| {
                    let id = event.id;
                    all.insert(id, event).is_none().then(|| id.to_hex())
                })
                .collect();
            if level.is_empty() || all.len() > max_events {
                break;
            }
            tags = AT_EVENT;
        }
        Ok(all.into_values().collect())
    }

    async fn pointing_at(
        &self,
        targets: &[String],
        tags: [SingleLetterTag; 3],
    ) -> Result<Vec<Event>, CycleError> {
        let mut found = Vec::new();
        for some in targets.chunks(VALUES_PER_FILTER) {
            for tag in tags {
                found.extend(self.store.query(Filter::new().custom_tags(tag, some.iter().cloned())).await?);
            }
        }
        Ok(found)
    }
}

/// The relays that the maintainers name for a repository's conversation, a few of each.
pub(super) fn relays_of(repository: &Repository) -> Box<[RelayUrl]> {
    let named = repository.announcements.iter();
    let named: BTreeSet<RelayUrl> = named
        .flat_map(|announcement| announcement.relays.iter().take(RELAYS_PER_EVENT))
        .filter_map(|relay| RelayUrl::parse(relay).ok())
        .collect();
    named.into_iter().collect()
}
