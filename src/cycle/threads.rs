//! Collects the conversation around repositories: everything that points at them, and at that, to the end.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, future::try_join_all, stream};
use nostr::prelude::{Event, EventId, Filter, RelayUrl, SingleLetterTag};

use super::{CycleError, world::World};
use crate::plan::{catalog::Repository, conversation::MAX_DEPTH};

/// Values in one tag filter.
const VALUES_PER_FILTER: usize = 100;

/// Relays asked at the same time.
const AT_ONCE: usize = 16;

/// How events point at a repository.
const AT_REPOSITORY: [SingleLetterTag; 3] =
    [SingleLetterTag::LOWERCASE_A, SingleLetterTag::UPPERCASE_A, SingleLetterTag::LOWERCASE_Q];

/// How events point at events.
const AT_EVENT: [SingleLetterTag; 3] =
    [SingleLetterTag::LOWERCASE_E, SingleLetterTag::UPPERCASE_E, SingleLetterTag::LOWERCASE_Q];

impl World {
    /// Brings the conversation around `repositories` into the store, from the relays each of them names and
    /// from `everywhere`.
    pub(super) async fn collect_threads(
        &self,
        repositories: &[Repository],
        everywhere: &BTreeSet<RelayUrl>,
    ) -> Result<(), CycleError> {
        let mut per_relay: BTreeMap<RelayUrl, BTreeSet<String>> = BTreeMap::new();
        for repository in repositories {
            let coordinates: Vec<String> = repository.coordinates().iter().map(ToString::to_string).collect();
            let own = self.usable_relays(repository.relays()).await;
            for relay in own.into_iter().chain(everywhere.iter().cloned()) {
                per_relay.entry(relay).or_default().extend(coordinates.iter().cloned());
            }
        }
        stream::iter(per_relay)
            .for_each_concurrent(AT_ONCE, |(relay, coordinates)| async move {
                if let Err(error) = self.collect_from(&relay, coordinates).await {
                    tracing::warn!(%relay, %error, "its conversations could not be read to the end");
                }
            })
            .await;
        Ok(())
    }

    async fn collect_from(&self, relay: &RelayUrl, coordinates: BTreeSet<String>) -> Result<(), CycleError> {
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut level: Vec<String> = coordinates.into_iter().collect();
        let mut tags = AT_REPOSITORY;
        for _ in 0..MAX_DEPTH {
            for some in level.chunks(VALUES_PER_FILTER) {
                let filters = tags.map(|tag| Filter::new().custom_tags(tag, some.iter().cloned()));
                try_join_all(filters.map(|filter| self.relays.backfill(relay, filter))).await?;
            }
            asked.extend(level.iter().cloned());
            let found = self.pointing_at(&level, tags).await?;
            level =
                found.into_iter().map(|event| event.id.to_hex()).filter(|id| !asked.contains(id)).collect();
            if level.is_empty() || asked.len() > self.config.limits.max_events_per_repo.saturating_mul(8) {
                break;
            }
            tags = AT_EVENT;
        }
        Ok(())
    }

    /// Stored events that point at one of `targets`, to the end of the thread.
    pub(super) async fn thread(&self, coordinates: &[String]) -> Result<Vec<Event>, CycleError> {
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
            if level.is_empty() || all.len() > self.config.limits.max_events_per_repo {
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
