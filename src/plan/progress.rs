//! How far a running cycle is, and how long it still takes.

use grasp_mirror_commands::span;
use nostr::prelude::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::server::ServerUrl;

/// A cycle under way, as it is written down every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the cycle began, Unix seconds.
    pub since: u64,
    /// When this was written, Unix seconds.
    pub updated_at: u64,
    /// Repositories it is done with.
    pub done: usize,
    /// Repositories in all; 0 while it still looks what there is.
    pub repos: usize,
    /// The servers with mirrors that are not done.
    pub servers: Vec<ServerProgress>,
}

/// What is left to do at one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProgress {
    /// Which.
    pub url: ServerUrl,
    /// Mirrors that are not done.
    pub left: usize,
    /// How many events it takes in a minute, where that is what everything waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_minute: Option<u32>,
    /// How long the rest takes at the pace so far; `None` before the first mirror is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// For how long it counts: a process that was killed has left its last words behind.
    const GOOD_FOR_SECS: u64 = 30;

    /// Whether the cycle it tells of is running.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.as_secs() < self.updated_at.saturating_add(Self::GOOD_FOR_SECS)
    }
}

/// What was done at one server in this cycle, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Mirrors that are not done.
    pub left: usize,
    /// Mirrors that are.
    pub done: usize,
    /// Events that those were sent.
    pub events: usize,
    /// Since the first was begun, in milliseconds.
    pub elapsed_ms: u64,
    /// How many events the server takes in a minute.
    pub events_per_minute: u32,
}

impl Tally {
    /// What is left, for people and programs.
    #[must_use]
    pub fn progress(&self, url: ServerUrl) -> ServerProgress {
        ServerProgress {
            url,
            left: self.left,
            events_per_minute: self.is_rate_bound().then_some(self.events_per_minute),
            seconds_left: self.seconds_left(),
        }
    }

    /// How long the rest takes, if the rest is like what is done; `None` when that says nothing.
    ///
    /// The first minute's events go at once, so the pace so far alone would promise too much.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        let by_pace = scaled(self.elapsed_ms, self.left, self.done)?;
        let ms = by_pace.max(self.ms_left_by_rate().unwrap_or_default());
        Some(ms.div_ceil(1000))
    }

    /// Whether the server's rate, and nothing else, decides how long it takes.
    #[must_use]
    pub fn is_rate_bound(&self) -> bool {
        let by_pace = scaled(self.elapsed_ms, self.left, self.done);
        // At a steady pace the two are equal but for what a push and a look take on top.
        self.ms_left_by_rate().zip(by_pace).is_some_and(|(rate, pace)| rate > 0 && rate >= pace / 4 * 3)
    }

    fn ms_left_by_rate(&self) -> Option<u64> {
        let events_ms = (self.events as u64).saturating_mul(60_000);
        scaled(events_ms.checked_div(u64::from(self.events_per_minute))?, self.left, self.done)
    }

    /// Why a mirror at `server` was not begun in this cycle.
    #[must_use]
    pub fn waits_its_turn(&self, server: &ServerUrl) -> String {
        let left = self.seconds_left().map(|seconds| format!("about {} to go", span(seconds)));
        let rate = self.events_per_minute;
        match left {
            Some(left) if self.is_rate_bound() => {
                format!("waits its turn: {server} takes {rate} events a minute; {left}")
            }
            Some(left) => format!("waits its turn at {server}: {left}"),
            None => format!("waits its turn at {server}"),
        }
    }
}

/// `amount × left / done`.
fn scaled(amount: u64, left: usize, done: usize) -> Option<u64> {
    amount.saturating_mul(left as u64).checked_div(done as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_rate_decides_also_while_the_first_minutes_events_fly() {
        // 14 mirrors with four events each in two seconds; then 55 a minute.
        let tally = Tally { left: 1986, done: 14, events: 56, elapsed_ms: 2_000, events_per_minute: 55 };
        let minutes = tally.seconds_left().unwrap() / 60;
        assert!((143..=146).contains(&minutes), "{minutes}");
        assert!(tally.is_rate_bound());
        let server: ServerUrl = "wss://slow.example".parse().unwrap();
        insta::assert_snapshot!(tally.waits_its_turn(&server), @"waits its turn: wss://slow.example takes 55 events a minute; about 2 h to go");
        assert_eq!(tally.progress(server).events_per_minute, Some(55));
    }

    #[test]
    fn a_server_that_is_slow_otherwise_is_told_by_its_pace() {
        let tally = Tally { left: 9, done: 1, events: 4, elapsed_ms: 60_000, events_per_minute: 1000 };
        assert_eq!(tally.seconds_left(), Some(540));
        let server: ServerUrl = "wss://slow.example".parse().unwrap();
        insta::assert_snapshot!(tally.waits_its_turn(&server), @"waits its turn at wss://slow.example: about 9 min to go");
    }

    #[test]
    fn nothing_is_promised_before_anything_is_done() {
        let tally = Tally { left: 9, events_per_minute: 55, ..Tally::default() };
        assert_eq!((tally.seconds_left(), tally.is_rate_bound()), (None, false));
        let all = Tally { done: 9, events: 36, elapsed_ms: 1, events_per_minute: 55, ..Tally::default() };
        assert_eq!((all.seconds_left(), all.is_rate_bound()), (Some(0), false));
    }

    #[test]
    fn what_a_killed_process_left_behind_does_not_count() {
        let progress = Progress { updated_at: 1_000, ..Progress::default() };
        assert!(progress.is_fresh(Timestamp::from_secs(1_010)));
        assert!(!progress.is_fresh(Timestamp::from_secs(1_030)));
    }
}
