//! nostr-lmdb, kept from the one kind of event that breaks it.
//!
//! A deletion request (kind 5) for a coordinate with a very long identifier becomes a key that LMDB does not take, and
//! nostr-lmdb then drops everything else that was to be saved in the same moment. Anyone can send one.

use std::{
    collections::BTreeSet,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
};

use nostr::prelude::{Event, EventId, Filter, Kind, Timestamp};
use nostr_database::{
    DatabaseEventStatus, Features, NostrDatabase, RejectedReason, SaveEventStatus, error::Error,
};
use nostr_lmdb::NostrLmdb;

use super::is_full;
use crate::plan::conversation;

/// The longest identifier in a coordinate that is to be deleted, in bytes: LMDB's keys have 511, and kind and author
/// take 35 of them.
const IDENTIFIER_MAX: usize = 400;

#[derive(Debug)]
pub(super) struct Database {
    lmdb: NostrLmdb,
    path: PathBuf,
    sources: AtomicU64,
    talk: AtomicU64,
}

impl Database {
    pub(super) fn over(lmdb: NostrLmdb, path: PathBuf) -> Self {
        Self { lmdb, path, sources: AtomicU64::new(0), talk: AtomicU64::new(0) }
    }

    pub(super) fn news(&self) -> super::News {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        super::News { sources: read(&self.sources), talk: read(&self.talk) }
    }

    /// Why nothing could be saved: of a full disk nostr-lmdb tells its log alone.
    fn told(&self, error: Error) -> Error {
        if is_full(&self.path) {
            return Error::storage(format!("the disk of {} is full; make room there", self.path.display()));
        }
        error
    }

    fn count_new(&self, event: &Event) {
        let counter = match event.kind.as_u16() {
            10_000 | 10_002 | 10_317 | 30_617 | 30_618 => &self.sources,
            // A deletion request takes something away from both.
            5 => {
                self.sources.fetch_add(1, Ordering::AcqRel);
                &self.talk
            }
            // The bot's own status, which every cycle renews, points at nothing.
            kind if conversation::may_be_of_kind(kind) && conversation::points_at(event).next().is_some() => {
                &self.talk
            }
            _ => return,
        };
        counter.fetch_add(1, Ordering::AcqRel);
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

fn breaks_it(event: &Event) -> bool {
    event.kind == Kind::EventDeletion
        && event.tags.coordinates().any(|coordinate| coordinate.identifier.len() > IDENTIFIER_MAX)
}

impl NostrDatabase for Database {
    fn backend(&self) -> &'static str {
        self.lmdb.backend()
    }

    fn features(&self) -> Features {
        self.lmdb.features()
    }

    fn save_event<'a>(&'a self, event: &'a Event) -> Answer<'a, SaveEventStatus> {
        if breaks_it(event) {
            tracing::debug!(event = %event.id, "a deletion request that cannot be kept");
            return Box::pin(async { Ok(SaveEventStatus::Rejected(RejectedReason::Other)) });
        }
        Box::pin(async move {
            let status = self.lmdb.save_event(event).await.map_err(|error| self.told(error))?;
            if status.is_success() {
                self.count_new(event);
            }
            Ok(status)
        })
    }

    fn check_id<'a>(&'a self, event_id: &'a EventId) -> Answer<'a, DatabaseEventStatus> {
        self.lmdb.check_id(event_id)
    }

    fn event_by_id<'a>(&'a self, event_id: &'a EventId) -> Answer<'a, Option<Event>> {
        self.lmdb.event_by_id(event_id)
    }

    fn count(&self, filter: Filter) -> Answer<'_, usize> {
        self.lmdb.count(filter)
    }

    fn query(&self, mut filter: Filter) -> Answer<'_, BTreeSet<Event>> {
        // nostr-lmdb would gather all that the author has of these kinds, thousands of records for one, before it looks
        // at the tag. By author and tag alone it goes straight there.
        let by_tag = filter.authors.as_ref().is_some_and(|authors| !authors.is_empty())
            && !filter.generic_tags.is_empty()
            && filter.limit.is_none();
        let kinds = filter.kinds.take_if(|kinds| by_tag && !kinds.is_empty());
        Box::pin(async move {
            let mut found = self.lmdb.query(filter).await?;
            if let Some(kinds) = kinds {
                found.retain(|event| kinds.contains(&event.kind));
            }
            Ok(found)
        })
    }

    fn negentropy_items(&self, filter: Filter) -> Answer<'_, Vec<(EventId, Timestamp)>> {
        self.lmdb.negentropy_items(filter)
    }

    fn delete(&self, filter: Filter) -> Answer<'_, ()> {
        self.lmdb.delete(filter)
    }

    fn wipe(&self) -> Answer<'_, ()> {
        self.lmdb.wipe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::{EventBuilder, FinalizeEvent, Keys, Tag};

    use super::{super::Store, *};

    #[tokio::test]
    async fn only_what_points_at_something_is_talk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let keys = Keys::generate();
        let save = async |kind: Kind, tag: [&str; 2]| {
            let tag = Tag::parse(tag).unwrap();
            let event = EventBuilder::new(kind, "").tag(tag).finalize(&keys).unwrap();
            assert!(store.save(&event).await.unwrap());
            store.news()
        };
        let before = store.news();
        assert_eq!(save(Kind::UserStatus, ["d", "general"]).await, before);
        let id = "1".repeat(64);
        let after = save(Kind::Comment, ["E", &id]).await;
        assert!(after.talk > before.talk && after.sources == before.sources);
        assert!(save(Kind::RepoState, ["d", "x"]).await.sources > after.sources);
    }

    #[tokio::test]
    async fn what_is_found_by_author_and_tag_is_of_the_kinds_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let (keys, other) = (Keys::generate(), Keys::generate());
        for (kind, tag, keys) in [
            (Kind::RepoState, "x", &keys),
            (Kind::GitRepoAnnouncement, "x", &keys),
            (Kind::RepoState, "y", &keys),
            (Kind::RepoState, "x", &other),
        ] {
            let event = EventBuilder::new(kind, "").tag(Tag::identifier(tag)).finalize(keys).unwrap();
            store.save(&event).await.unwrap();
        }
        let found = async |kinds: &[Kind], limit: Option<usize>| {
            let filter = Filter::new().kinds(kinds.iter().copied()).author(keys.public_key()).identifier("x");
            let filter = Filter { limit, ..filter };
            let found = store.query(filter).await.unwrap();
            found.into_iter().map(|event| event.kind).collect::<BTreeSet<Kind>>()
        };
        let (state, both) = ([Kind::RepoState], [Kind::RepoState, Kind::GitRepoAnnouncement]);
        for limit in [None, Some(9)] {
            assert_eq!(found(&state, limit).await, BTreeSet::from(state));
            assert_eq!(found(&both, limit).await, BTreeSet::from(both));
            assert!(found(&[Kind::MuteList], limit).await.is_empty());
        }
    }

    #[tokio::test]
    async fn a_deletion_with_a_long_identifier_takes_nothing_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let keys = Keys::generate();
        let long = format!("30617:{}:{}", keys.public_key().to_hex(), "x".repeat(480));
        let bad = EventBuilder::new(Kind::EventDeletion, "").tag(Tag::custom("a", [long]));
        let bad = bad.finalize(&keys).unwrap();
        let good: Vec<Event> = (0..50)
            .map(|number| EventBuilder::new(Kind::TextNote, number.to_string()).finalize(&keys).unwrap())
            .collect();
        // Queued behind each other, they are saved in batches.
        let saves = good.iter().flat_map(|event| [store.save(event), store.save(&bad)]);
        for saved in futures::future::join_all(saves).await {
            saved.unwrap();
        }
        assert_eq!(store.query(Filter::new().kind(Kind::TextNote)).await.unwrap().len(), good.len());
    }
}
