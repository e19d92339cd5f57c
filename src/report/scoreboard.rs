//! How a server did over the last seven days, in quarters of an hour: whether it answered and how fast, and what
//! became of the mirrors that were tried there.
//!
//! One record a server, called [`record_name`]. A quarter in which nothing was asked or tried takes no room.

use std::collections::BTreeMap;

use grasp_mirror_commands::servers::Week;
use serde::{Deserialize, Serialize};

use crate::{
    model::{server::ServerUrl, status::MirrorStatus},
    plan::{record::MirrorRecord, retry::Failure},
};

/// The length of a slot, in seconds.
pub const SLOT_SECS: u64 = 900;

/// For how long slots are kept, in seconds.
pub const KEPT_SECS: u64 = 7 * 86_400;

/// The name of a server's record.
#[must_use]
pub fn record_name(server: &ServerUrl) -> String {
    format!("scoreboard/{server}")
}

/// What was seen of a server in some stretch of time. Slots can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// How often it was asked who it is (NIP-11).
    #[serde(skip_serializing_if = "is_zero")]
    pub asked: u32,
    /// How often it answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub answered: u32,
    /// How long the answers took, all together, in milliseconds, connecting included.
    #[serde(skip_serializing_if = "is_zero")]
    pub latency_ms: u32,
    /// How long the slowest took, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub slowest_ms: u32,
    /// Tries of mirrors that failed by the server's doing.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Mirrors, or events of theirs, that it refused anew.
    #[serde(skip_serializing_if = "is_zero")]
    pub refusals: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Slot {
    /// Takes in another stretch of time.
    pub fn add(&mut self, other: Self) {
        self.asked = self.asked.saturating_add(other.asked);
        self.answered = self.answered.saturating_add(other.answered);
        self.latency_ms = self.latency_ms.saturating_add(other.latency_ms);
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.failures = self.failures.saturating_add(other.failures);
        self.refusals = self.refusals.saturating_add(other.refusals);
    }

    /// How long an answer took on average, in milliseconds; `None` without one.
    #[must_use]
    pub fn mean_ms(&self) -> Option<u32> {
        self.latency_ms.checked_div(self.answered)
    }

    /// In the words of the command language; `None` when it was not asked.
    #[must_use]
    pub fn week(&self) -> Option<Week> {
        let percent = (u64::from(self.answered) * 100).checked_div(u64::from(self.asked))?;
        Some(Week {
            answered_percent: u8::try_from(percent).unwrap_or(100),
            mean_ms: self.mean_ms(),
            failures: self.failures,
            refusals: self.refusals,
        })
    }

    /// The share of questions that were answered, 0 to 1; `None` when none was asked.
    #[must_use]
    pub fn reachability(&self) -> Option<f64> {
        (self.asked > 0).then(|| f64::from(self.answered) / f64::from(self.asked))
    }
}

/// How each server did in the last seven days.
pub type Weeks = BTreeMap<ServerUrl, Slot>;

/// What one run saw of the servers.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<ServerUrl, Slot>);

impl Samples {
    /// A server was asked who it is; `latency_ms` is `None` when it did not answer.
    pub fn asked(&mut self, server: &ServerUrl, latency_ms: Option<u32>) {
        let answered = u32::from(latency_ms.is_some());
        let latency_ms = latency_ms.unwrap_or_default();
        let slot = Slot { asked: 1, answered, latency_ms, slowest_ms: latency_ms, ..Slot::default() };
        self.0.entry(server.clone()).or_default().add(slot);
    }

    /// A mirror was walked: its record before and after.
    pub fn tried(&mut self, server: &ServerUrl, before: Option<&MirrorRecord>, after: &MirrorRecord) {
        let failures = u32::from(failed_anew(before, after) && after.failure.is_some_and(is_the_servers));
        let known = before.map_or(0, |before| before.refused.len());
        let status = before.map(|before| before.status);
        let refused = after.status == MirrorStatus::Refused && status != Some(MirrorStatus::Refused);
        let refusals = u32::from(refused || after.refused.len() > known);
        if failures + refusals > 0 {
            self.0.entry(server.clone()).or_default().add(Slot { failures, refusals, ..Slot::default() });
        }
    }

    /// Server by server.
    pub fn each(self) -> impl Iterator<Item = (ServerUrl, Slot)> {
        self.0.into_iter()
    }
}

/// Whether a mirror was tried in between and failed. One that waits for its next try has the record it had.
#[must_use]
pub fn failed_anew(before: Option<&MirrorRecord>, after: &MirrorRecord) -> bool {
    after.failures > 0 && before.map(|before| before.failures) != Some(after.failures)
}

/// One that is down is seen by asking it; what the sources or this machine did is not its doing.
fn is_the_servers(failure: Failure) -> bool {
    matches!(failure, Failure::ServerFails | Failure::RateLimited)
}

/// One server's last seven days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scoreboard {
    /// By when they begin, Unix seconds.
    slots: BTreeMap<u64, Slot>,
}

impl Scoreboard {
    /// Notes what was seen at `now`, and forgets what is older than [`KEPT_SECS`].
    pub fn note(&mut self, seen: Slot, now: u64) {
        let begins = now - now % SLOT_SECS;
        self.slots.entry(begins).or_default().add(seen);
        // A clock that ran ahead must not leave slots for ever.
        self.slots.retain(|at, _| at.saturating_add(KEPT_SECS) > begins && *at <= begins);
    }

    /// The slots that begin at `since` or later, the oldest first.
    pub fn since(&self, since: u64) -> impl Iterator<Item = (u64, Slot)> {
        self.slots.range(since..).map(|(at, slot)| (*at, *slot))
    }

    /// All of them since `since`, added up.
    #[must_use]
    pub fn sum(&self, since: u64) -> Slot {
        let mut sum = Slot::default();
        self.since(since).for_each(|(_, slot)| sum.add(slot));
        sum
    }

    /// The seven days before `now`, Unix seconds, added up.
    #[must_use]
    pub fn week(&self, now: u64) -> Slot {
        self.sum(now.saturating_sub(KEPT_SECS))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOW: u64 = 1_790_000_250;

    fn server() -> ServerUrl {
        "wss://a.example".parse().unwrap()
    }

    fn mirror(status: MirrorStatus, failure: Option<Failure>, failures: u32) -> MirrorRecord {
        MirrorRecord { since: NOW, failures, failure, ..MirrorRecord::sample(status) }
    }

    fn slot(samples: Samples) -> Slot {
        samples.each().next().map(|(_, slot)| slot).unwrap_or_default()
    }

    #[test]
    fn answers_are_timed_and_silence_is_counted() {
        let mut samples = Samples::default();
        samples.asked(&server(), Some(30));
        samples.asked(&server(), Some(50));
        samples.asked(&server(), None);
        let slot = slot(samples);
        assert_eq!((slot.asked, slot.answered, slot.mean_ms(), slot.slowest_ms), (3, 2, Some(40), 50));
        assert!(slot.reachability().is_some_and(|share| (share - 2.0 / 3.0).abs() < 1e-9));
        let nothing = Slot::default();
        assert_eq!((nothing.mean_ms(), nothing.reachability(), nothing.week()), (None, None, None));
        assert_eq!(slot.week().map(|week| week.to_string()).as_deref(), Some("66% up, 40 ms"));
    }

    #[test]
    fn only_what_the_server_did_counts_against_it_and_only_once() {
        let counted = |before: Option<&MirrorRecord>, after: &MirrorRecord| {
            let mut samples = Samples::default();
            samples.tried(&server(), before, after);
            let slot = slot(samples);
            (slot.failures, slot.refusals)
        };
        let fails = mirror(MirrorStatus::Failing, Some(Failure::ServerFails), 1);
        assert_eq!(counted(None, &fails), (1, 0));
        assert_eq!(counted(Some(&fails), &fails), (0, 0), "it waits for its next try");
        let again = mirror(MirrorStatus::Failing, Some(Failure::ServerFails), 2);
        assert_eq!(counted(Some(&fails), &again), (1, 0));
        for other in [Failure::Disk, Failure::SourceGone, Failure::ServerDown] {
            assert_eq!(counted(None, &mirror(MirrorStatus::Failing, Some(other), 1)), (0, 0), "{other:?}");
        }
        let refused = mirror(MirrorStatus::Refused, Some(Failure::ServerRefused), 0);
        assert_eq!(counted(Some(&fails), &refused), (0, 1));
        assert_eq!(counted(Some(&refused), &refused), (0, 0));
        assert_eq!(counted(None, &mirror(MirrorStatus::InSync, None, 0)), (0, 0));
    }

    #[test]
    fn a_week_is_kept_and_no_more_whatever_the_clock_does() {
        let mut board = Scoreboard::default();
        let seen = Slot { asked: 1, answered: 1, latency_ms: 5, slowest_ms: 5, ..Slot::default() };
        for quarter in 0..2_000 {
            board.note(seen, NOW + quarter * SLOT_SECS);
            board.note(seen, NOW + quarter * SLOT_SECS + 1);
        }
        let now = NOW + 1_999 * SLOT_SECS;
        assert_eq!(board.since(0).count() as u64, KEPT_SECS / SLOT_SECS);
        assert_eq!(board.sum(now - 86_400).asked, 2 * 96);
        assert_eq!(board.since(0).last().map(|(at, _)| at), Some(now - now % SLOT_SECS));
        board.note(seen, NOW);
        assert_eq!(board.since(0).count(), 1, "slots of a clock that ran ahead are gone");

        let json = serde_json::to_string(&board).unwrap();
        assert_eq!(
            json,
            r#"{"slots":{"1790000100":{"asked":1,"answered":1,"latency_ms":5,"slowest_ms":5}}}"#
        );
        assert_eq!(serde_json::from_str::<Scoreboard>(&json).unwrap(), board);
    }
}
