//! What relays have shown of themselves, to whichever connection: those come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nostr::prelude::RelayUrl;
use tokio::time::Instant;

/// Relays remembered, for each thing that is learned. More have never asked to slow down.
const REMEMBERED: usize = 1_024;

/// Whoever was silent in so many runs when asked in NIP-77, and answered otherwise, does not speak it: one may have been
/// busy.
const SILENCES: u32 = 2;

/// For how long that is believed.
const SILENT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// One for all [`Relays`](super::Relays) of a program.
#[derive(Debug, Default)]
pub struct Learned {
    /// Who has answered in NIP-77.
    speakers: Mutex<BTreeSet<RelayUrl>>,
    /// Who never has, and left questions in it without a word but answered others: how often, and when the last time.
    silent: Mutex<BTreeMap<RelayUrl, (u32, Instant)>>,
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
        lock(&self.silent).remove(relay);
        let mut speakers = lock(&self.speakers);
        if speakers.len() < REMEMBERED && !speakers.contains(relay) {
            speakers.insert(relay.clone());
        }
    }

    /// `relay` left a question in NIP-77 without a word, and answered another one.
    pub(super) fn note_silence(&self, relay: &RelayUrl) {
        if self.speaks_negentropy(relay) {
            return;
        }
        let mut silent = lock(&self.silent);
        if silent.len() < REMEMBERED || silent.contains_key(relay) {
            let (times, last) = silent.entry(relay.clone()).or_insert((0, Instant::now()));
            (*times, *last) = (times.saturating_add(1), Instant::now());
        }
    }

    /// Whether `relay` has left a question in NIP-77 without a word.
    pub(super) fn was_silent(&self, relay: &RelayUrl) -> bool {
        lock(&self.silent).contains_key(relay)
    }

    /// Whether `relay` is not asked in NIP-77 for now: each time it costs patience.
    pub(super) fn is_mute(&self, relay: &RelayUrl) -> bool {
        let silent = lock(&self.silent);
        silent.get(relay).is_some_and(|(times, last)| *times >= SILENCES && last.elapsed() < SILENT_FOR)
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

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_in_two_runs_is_not_asked_for_a_day_unless_it_has_spoken() {
        let learned = Learned::default();
        let [one, other] =
            ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap());
        learned.note_silence(&one);
        assert!(learned.was_silent(&one) && !learned.is_mute(&one), "it may have been busy");
        learned.note_silence(&one);
        assert!(learned.is_mute(&one) && !learned.is_mute(&other));
        advance(SILENT_FOR).await;
        assert!(!learned.is_mute(&one), "it may have learned to");
        learned.note_silence(&one);
        assert!(learned.is_mute(&one), "it has not");
        learned.note_negentropy(&one);
        assert!(!learned.is_mute(&one) && !learned.was_silent(&one));
        for _ in 0..9 {
            learned.note_silence(&one);
        }
        assert!(!learned.is_mute(&one), "who has spoken was busy");
    }

    #[test]
    fn so_many_relays_are_remembered_and_what_is_known_of_them_is_the_latest() {
        let learned = Learned::default();
        let relay = |number: usize| RelayUrl::parse(&format!("wss://{number}.example")).unwrap();
        for number in 0..=REMEMBERED {
            learned.note_silence(&relay(number));
            learned.note_negentropy(&relay(number));
            learned.note_events_per_minute(&relay(number), 60);
        }
        learned.note_events_per_minute(&relay(0), 30);
        assert!(learned.speaks_negentropy(&relay(0)) && !learned.speaks_negentropy(&relay(REMEMBERED)));
        assert_eq!(learned.events_per_minute(&relay(0)), Some(30));
        assert_eq!(learned.events_per_minute(&relay(REMEMBERED)), None);
    }
}
