//! Whether the daemon does its work, for whoever starts it again or calls somebody when it does not.

use grasp_mirror_commands::span;
use serde::Serialize;

use super::picture::Picture;

/// The last good cycle may be so many intervals old.
const GOOD_FOR_INTERVALS: u64 = 3;

/// The answer of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How the daemon is, in a word: `starting`, `mirroring`, `resting`, `paused` or `failing`.
    pub phase: &'static str,
    /// When a cycle last came to its end, Unix seconds.
    pub last_good_at: Option<u64>,
    /// From the start of one cycle to the start of the next.
    pub interval_secs: u64,
}

/// Whether cycles succeed: the last good one is younger than three intervals. `now` is Unix seconds.
#[must_use]
pub fn of(picture: &Picture, now: u64) -> Health {
    let bound = picture.interval_secs.saturating_mul(GOOD_FOR_INTERVALS);
    let old = picture.good_at.filter(|at| now.saturating_sub(*at) >= bound);
    let missing = match (picture.good_at, old) {
        (Some(_), None) => None,
        (Some(_), Some(at)) => {
            Some(format!("the last good cycle ended {} ago", span(now.saturating_sub(at))))
        }
        (None, _) => Some("no cycle has come to its end yet".to_owned()),
    };
    let why = missing.map(|missing| match cause(picture) {
        Some(cause) => format!("{missing}: {cause}"),
        None => missing,
    });
    Health { ok: why.is_none(), why, ..answer(picture) }
}

/// Whether the daemon knows what it is to do, and answers.
#[must_use]
pub fn readiness(picture: &Picture) -> Health {
    let why = (!picture.settled).then(|| "the bot's own lists are being read".to_owned());
    Health { ok: why.is_none(), why, ..answer(picture) }
}

fn answer(picture: &Picture) -> Health {
    let (phase, last_good_at, interval_secs) = (picture.phase(), picture.good_at, picture.interval_secs);
    Health { ok: true, why: None, phase, last_good_at, interval_secs }
}

fn cause(picture: &Picture) -> Option<String> {
    if picture.paused {
        return Some("I was told to pause; send: resume".to_owned());
    }
    if let Some(failed) = &picture.failed {
        return Some(format!("the last one failed: {}", failed.reason));
    }
    if !picture.settled {
        return Some("the bot's own lists are being read".to_owned());
    }
    picture.running.as_ref().map(|_| "one is under way".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::testing::{NOW, picture};

    fn why(picture: &Picture, now: u64) -> String {
        let health = of(picture, now);
        assert_eq!(health.ok, health.why.is_none());
        health.why.unwrap_or_else(|| "well".to_owned())
    }

    #[test]
    fn it_is_well_only_while_cycles_succeed_and_says_why_not() {
        let mut it = picture();
        let hour = it.interval_secs;
        insta::assert_snapshot!(why(&it, NOW), @"no cycle has come to its end yet: the bot's own lists are being read");
        assert_eq!((readiness(&it).ok, it.phase()), (false, "starting"));
        it.settled = true;
        it.begin("start", NOW);
        insta::assert_snapshot!(why(&it, NOW), @"no cycle has come to its end yet: one is under way");
        assert_eq!((readiness(&it).ok, it.phase()), (true, "mirroring"));
        it.fail("the event database: full", NOW + 1);
        insta::assert_snapshot!(why(&it, NOW + 1), @"no cycle has come to its end yet: the last one failed: the event database: full");
        let report = it.report.clone();
        it.end(&report, &[], 1_000, NOW + 2);
        assert_eq!((why(&it, NOW + 2), it.phase()), ("well".to_owned(), "resting"));

        it.fail("the event database: full", NOW + hour);
        assert_eq!(
            (why(&it, NOW + hour), it.phase()),
            ("well".to_owned(), "failing"),
            "the last good one is young"
        );
        insta::assert_snapshot!(why(&it, NOW + 3 * hour + 2), @"the last good cycle ended 3 h ago: the last one failed: the event database: full");
        it.end(&report, &[], 1_000, NOW + 4 * hour);
        it.paused = true;
        assert_eq!(why(&it, NOW + 7 * hour - 1), "well");
        insta::assert_snapshot!(why(&it, NOW + 7 * hour), @"the last good cycle ended 3 h ago: I was told to pause; send: resume");
        assert_eq!((readiness(&it).ok, it.phase()), (true, "paused"), "it still answers");
    }

    #[test]
    fn a_cycle_of_an_earlier_process_counts_as_long_as_it_is_young() {
        let mut it = picture();
        it.good_at = Some(NOW - 60);
        assert!(of(&it, NOW).ok);
        it.good_at = Some(NOW + 1_000);
        assert!(of(&it, NOW).ok, "a clock that was set back");
    }
}
