//! Servers that said for how long they want to be left alone: nothing is sent there before, whichever mirror heard it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use grasp_mirror_commands::clean;
use nostr::prelude::{RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::plan::{record::REASON_MAX, retry::TOLD_MAX_SECS};

/// For how long a server wants to be left alone, to be written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolDown {
    /// Until when, Unix seconds.
    until: u64,
    /// Its words.
    words: String,
}

impl CoolDown {
    /// Whether it is not over.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until > now.as_secs()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// By server.
pub type CoolDowns = BTreeMap<RelayUrl, CoolDown>;

/// The servers that want to be left alone.
#[derive(Debug, Default)]
pub(super) struct Cooling(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// With their words, and until when each is left alone.
    servers: HashMap<RelayUrl, (Instant, String)>,
    /// Whether one has said so since it was last asked for.
    is_news: bool,
}

impl Cooling {
    /// `relay` wants to be left alone for so many seconds, in its own words.
    pub(super) fn note(&self, relay: &RelayUrl, secs: u64, words: &str) {
        let mut known = self.known();
        known.is_news |= known.note(relay, secs, words);
    }

    /// For how many seconds more `relay` is to be left alone, and what it said.
    pub(super) fn left(&self, relay: &RelayUrl) -> Option<(u64, String)> {
        let mut known = self.known();
        let now = Instant::now();
        known.servers.retain(|_, (until, _)| *until > now);
        // A part of a second is one.
        known.servers.get(relay).map(|(until, words)| ((*until - now).as_secs() + 1, words.clone()))
    }

    /// All of them, if one has said so since this was last asked.
    pub(super) fn news(&self, now: Timestamp) -> Option<CoolDowns> {
        let mut known = self.known();
        if !std::mem::take(&mut known.is_news) {
            return None;
        }
        let cool_down = |(until, words): &(Instant, String)| {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            CoolDown { until: now.as_secs().saturating_add(left), words: words.clone() }
        };
        Some(known.servers.iter().map(|(relay, told)| (relay.clone(), cool_down(told))).collect())
    }

    /// What was written down before.
    pub(super) fn recall(&self, all: CoolDowns, now: Timestamp) {
        let mut known = self.known();
        for (relay, CoolDown { until, words }) in all {
            known.note(&relay, until.saturating_sub(now.as_secs()), &words);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether it is for longer than was known. Seconds are rounded up: who waits says it once more.
    fn note(&mut self, relay: &RelayUrl, secs: u64, words: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(secs.min(TOLD_MAX_SECS));
        let is_longer = self.servers.get(relay).is_none_or(|(known, _)| *known + SECOND < until);
        if is_longer {
            self.servers.insert(relay.clone(), (until, clean(words, REASON_MAX)));
        }
        is_longer
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

    #[tokio::test(start_paused = true)]
    async fn what_is_written_down_holds_in_the_next_process() {
        let [one, other]: [RelayUrl; 2] =
            ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap());
        let at = |secs: u64| Timestamp::from_secs(1_790_000_000 + secs);
        let cooling = Cooling::default();
        assert_eq!(cooling.news(at(0)), None);
        cooling.note(&one, 600, "in ten minutes");
        cooling.note(&other, 60, "in a minute");
        let written = cooling.news(at(0)).unwrap();
        for secs in [60, 601] {
            cooling.note(&one, secs, "as before");
        }
        assert_eq!(cooling.news(at(0)), None, "nothing is longer");
        let read: CoolDowns = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.values().map(|told| told.holds(at(100))).collect::<Vec<_>>(), [true, false]);
        let next = Cooling::default();
        next.recall(read, at(100));
        assert_eq!((next.left(&one), next.left(&other)), (Some((501, "in ten minutes".to_owned())), None));
        assert_eq!(next.news(at(100)), None, "it is written down already");
    }
}
