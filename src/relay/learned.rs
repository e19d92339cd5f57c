//! What relays have shown of themselves, to whichever connection: those come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nostr::prelude::RelayUrl;

/// Relays remembered, for each thing that is learned. More have never asked to slow down.
const REMEMBERED: usize = 1_024;

/// One for all [`Relays`](super::Relays) of a program.
#[derive(Debug, Default)]
pub struct Learned {
    /// Who has answered in NIP-77.
    speakers: Mutex<BTreeSet<RelayUrl>>,
    /// How many events they take in a minute, where they have shown it.
    events_per_minute: Mutex<BTreeMap<RelayUrl, u32>>,
}

impl Learned {
    /// Whether `relay` has answered in NIP-77.
    pub(super) fn speaks_negentropy(&self, relay: &RelayUrl) -> bool {
        lock(&self.speakers).contains(relay)
    }

    /// `relay` has answered in NIP-77.
    pub(super) fn note_negentropy(&self, relay: &RelayUrl) {
        let mut speakers = lock(&self.speakers);
        if speakers.len() < REMEMBERED && !speakers.contains(relay) {
            speakers.insert(relay.clone());
        }
    }

    /// How many events `relay` takes in a minute; `None` when it never asked to slow down.
    pub(super) fn events_per_minute(&self, relay: &RelayUrl) -> Option<u32> {
        lock(&self.events_per_minute).get(relay).copied()
    }

    /// `relay` has shown how many events it takes in a minute.
    pub(super) fn note_events_per_minute(&self, relay: &RelayUrl, events: u32) {
        let mut known = lock(&self.events_per_minute);
        if known.len() < REMEMBERED || known.contains_key(relay) {
            known.insert(relay.clone(), events);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn so_many_relays_are_remembered_and_what_is_known_of_them_is_the_latest() {
        let learned = Learned::default();
        let relay = |number: usize| RelayUrl::parse(&format!("wss://{number}.example")).unwrap();
        for number in 0..=REMEMBERED {
            learned.note_negentropy(&relay(number));
            learned.note_events_per_minute(&relay(number), 60);
        }
        learned.note_events_per_minute(&relay(0), 30);
        assert!(learned.speaks_negentropy(&relay(0)) && !learned.speaks_negentropy(&relay(REMEMBERED)));
        assert_eq!(learned.events_per_minute(&relay(0)), Some(30));
        assert_eq!(learned.events_per_minute(&relay(REMEMBERED)), None);
    }
}
