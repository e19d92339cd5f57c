//! Sees what relays have of some authors, by comparing it with what they were last seen to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};

use super::world::World;
use crate::{
    plan::holdings::Holdings,
    relay::{Admit, RelayError},
    store::StoreError,
};

/// Authors in one filter (67 bytes each): some fifty leave room in 4 KiB for the rest of a comparison.
const AUTHORS_PER_FILTER: usize = 200;

/// What is read of an author: announcements, states, server lists, deletions, relay lists and mute lists.
pub(super) const KINDS: [Kind; 6] = [
    Kind::GitRepoAnnouncement,
    Kind::RepoState,
    Kind::GitUserGraspList,
    Kind::EventDeletion,
    Kind::RelayList,
    Kind::MuteList,
];

/// What is stored of authors: what a relay of which nothing is known is supposed to have.
pub(super) type Stored = BTreeMap<PublicKey, BTreeMap<EventId, Timestamp>>;

/// Why a comparison came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    #[error(transparent)]
    Relay(#[from] RelayError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes everything, and remembers it also where the database does not want it: an older version, say.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Event>>>);

impl Notes {
    /// Keeps what `keep` says.
    pub(super) fn taking(&self, keep: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Admit {
        let notes = Arc::clone(&self.0);
        Arc::new(move |event| {
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
            keep(event)
        })
    }

    pub(super) fn take(&self) -> Vec<Event> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl World {
    /// What is stored of `authors`, of the kinds that are compared.
    pub(super) async fn stored(&self, authors: &BTreeSet<PublicKey>) -> Result<Stored, StoreError> {
        let mut stored: Stored = authors.iter().map(|author| (*author, BTreeMap::new())).collect();
        if authors.is_empty() {
            return Ok(stored);
        }
        let filter = Filter::new().kinds(KINDS).authors(authors.iter().copied());
        for event in self.store.query(filter).await? {
            stored.entry(event.pubkey).or_default().insert(event.id, event.created_at);
        }
        Ok(stored)
    }

    /// Sees what `relay` has of `authors`; `holdings` say it afterwards, and what is new is stored.
    ///
    /// Nothing new on either side costs one round. Everything there is is seen all the same: this is discovery, and it
    /// is the proof that a server serves what it should.
    pub(super) async fn see(
        &self,
        relay: &RelayUrl,
        holdings: &mut Holdings,
        authors: &[PublicKey],
        stored: &Stored,
    ) -> Result<(), CompareError> {
        for some in authors.chunks(AUTHORS_PER_FILTER) {
            for author in some.iter().filter(|author| !holdings.know(author)).copied().collect::<Vec<_>>() {
                holdings.replace(author, stored.get(&author).cloned().unwrap_or_default());
            }
            let filter = Filter::new().kinds(KINDS).authors(some.iter().copied());
            let difference = self.relays.compare(relay, filter.clone(), &holdings.items(some)).await?;
            let Some(difference) = difference else {
                let events = self.relays.read(relay, vec![filter]).await?;
                some.iter().for_each(|author| holdings.replace(*author, BTreeMap::new()));
                holdings.add(&events);
                continue;
            };
            holdings.strike(&difference.lacks);
            if difference.extra.is_empty() {
                continue;
            }
            let known = self.store.by_ids(&difference.extra).await?;
            holdings.add(&known);
            let known: BTreeSet<EventId> = known.iter().map(|event| event.id).collect();
            let new: Vec<EventId> = difference.extra.into_iter().filter(|id| !known.contains(id)).collect();
            let notes = Notes::default();
            let fetched = self.relays.fetch(relay, &new, &notes.taking(|_| true)).await;
            holdings.add(&notes.take());
            fetched?;
        }
        Ok(())
    }
}
