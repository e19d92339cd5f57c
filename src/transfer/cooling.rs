//! Servers that said for how long they want to be left alone: nothing is sent there before, whichever mirror heard it.
//!
//! This is remembered for as long as the program runs; the mirror that heard it waits by its own record, also after that.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nostr::prelude::RelayUrl;
use tokio::time::Instant;

use crate::plan::retry::TOLD_MAX_SECS;

/// The servers, with their words, and until when each is left alone.
#[derive(Debug, Default)]
pub(super) struct Cooling(Mutex<HashMap<RelayUrl, (Instant, String)>>);

impl Cooling {
    /// `relay` wants to be left alone for so many seconds, in its own words.
    pub(super) fn note(&self, relay: &RelayUrl, secs: u64, words: &str) {
        let until = Instant::now() + Duration::from_secs(secs.min(TOLD_MAX_SECS));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(relay).is_none_or(|(known, _)| *known < until) {
            all.insert(relay.clone(), (until, words.to_owned()));
        }
    }

    /// For how many seconds more `relay` is to be left alone, and what it said.
    pub(super) fn left(&self, relay: &RelayUrl) -> Option<(u64, String)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, (until, _)| *until > now);
        // A part of a second is one.
        all.get(relay).map(|(until, words)| ((*until - now).as_secs() + 1, words.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_latest_time_counts_and_ends() {
        let [one, other]: [RelayUrl; 2] =
            ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap());
        let cooling = Cooling::default();
        cooling.note(&one, 600, "in ten minutes");
        cooling.note(&one, 60, "in a minute");
        assert_eq!(
            (cooling.left(&one), cooling.left(&other)),
            (Some((601, "in ten minutes".to_owned())), None)
        );
        advance(Duration::from_secs(599)).await;
        assert!(cooling.left(&one).is_some());
        advance(Duration::from_secs(1)).await;
        assert_eq!(cooling.left(&one), None);
        cooling.note(&other, u64::MAX, "never");
        assert_eq!(cooling.left(&other).unwrap().0, TOLD_MAX_SECS + 1);
    }
}
