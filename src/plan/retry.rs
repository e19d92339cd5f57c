//! When a mirror that failed is tried again.
//!
//! Every failure in a row doubles the wait; the same failures of many mirrors are spread, so that a server that comes
//! back is not met by all of them at once. The spread is worked out from who is to be tried, not drawn: the same
//! record gives the same time on every machine. A changed state and `resync` begin anew.

use nostr::prelude::{EventId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{MirrorRecord, not_ahead};
use crate::model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus};

/// Whose doing it is that a mirror is not in sync: what has to happen before it can be differs with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// This machine's, but for its disk.
    Ours,
    /// The disk here is full.
    Disk,
    /// No source has the git data that was signed.
    SourceGone,
    /// A source sent something else than the git data that was signed.
    SourceLies,
    /// The server cannot be reached.
    ServerDown,
    /// The server answers, but not as it should, or does not serve what it took.
    ServerFails,
    /// The server said no. Nothing is sent again before something changes.
    ServerRefused,
    /// The server wants to be left alone for a while.
    RateLimited,
}

impl Failure {
    /// Whether another try may end otherwise without anybody doing anything.
    #[must_use]
    pub fn passes(self) -> bool {
        self != Self::ServerRefused
    }
}

/// For so many seconds at most a server is left alone that says for how long it wants to be.
pub const TOLD_MAX_SECS: u64 = 24 * 3_600;

/// No wait for a next try is longer, in seconds: nor does the configuration allow that.
pub const WAIT_MAX_SECS: u64 = TOLD_MAX_SECS;

/// How long is waited between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure, in seconds.
    pub first_secs: u64,
    /// After many, in seconds.
    pub max_secs: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_secs: 30, max_secs: 3_600 }
    }
}

/// What is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// The repository; `None` when it is the server as a whole.
    pub repository: Option<&'a Coordinate>,
    /// The server.
    pub server: &'a ServerUrl,
    /// The maintainers' state that it was to have.
    pub state: Option<EventId>,
}

impl Tried<'_> {
    /// A number that is the same whenever it is asked for, and another one for everybody else.
    fn spread(&self, failures: u32) -> u64 {
        let repository = self.repository.map(ToString::to_string).unwrap_or_default();
        let all = Sha256::digest(format!("{repository} {} {failures}", self.server));
        all.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Backoff {
    /// The wait after so many failures in a row, in seconds: doubled each time, and shortened by up to a quarter, by
    /// whom it is about.
    #[must_use]
    pub fn wait_secs(&self, tried: &Tried<'_>, failures: u32) -> u64 {
        let wait = self.longest_secs(failures);
        wait - tried.spread(failures) % (wait / 4 + 1)
    }

    fn longest_secs(&self, failures: u32) -> u64 {
        self.first_secs.saturating_mul(1 << failures.saturating_sub(1).min(32)).min(self.max_secs)
    }

    /// When it is tried again at the latest, Unix seconds.
    #[must_use]
    pub fn latest(&self, failures: u32, now: Timestamp) -> u64 {
        now.as_secs().saturating_add(self.longest_secs(failures))
    }

    /// When it is tried again that failed `failures` times in a row. A server that said how long it wants to be left
    /// alone is, for a day at most.
    #[must_use]
    pub fn retry_at(&self, tried: &Tried<'_>, failures: u32, told_secs: Option<u64>, now: Timestamp) -> u64 {
        let told = told_secs.unwrap_or(0).min(TOLD_MAX_SECS);
        now.as_secs().saturating_add(self.wait_secs(tried, failures).max(told))
    }

    /// Writes into the record of a mirror that was just tried when that is done again; `before` is the record that it
    /// replaces, `told_secs` for how long the server wants to be left alone. One that is not failing is not waited for.
    pub fn schedule(
        &self,
        record: &mut MirrorRecord,
        before: Option<&MirrorRecord>,
        tried: &Tried<'_>,
        told_secs: Option<u64>,
        now: Timestamp,
    ) {
        record.state = tried.state;
        if before.is_some_and(|before| before.state != tried.state) {
            record.failures = record.failures.min(1);
        }
        record.retry_at = if record.failures > 0 {
            Some(self.retry_at(tried, record.failures, told_secs, now))
        } else {
            let is_in_sync = record.status == MirrorStatus::InSync;
            record.look_again.filter(|_| is_in_sync).map(|_| self.look_at(record, before, tried, now))
        };
    }

    /// When the refs of a mirror in sync are compared once more; much later when they could not be when it was time.
    fn look_at(
        &self,
        record: &MirrorRecord,
        before: Option<&MirrorRecord>,
        tried: &Tried<'_>,
        now: Timestamp,
    ) -> u64 {
        match before.filter(|before| before.look_again == record.look_again) {
            None => self.retry_at(tried, 1, None, now),
            Some(before) => match before.retry_at.filter(|at| *at > now.as_secs()) {
                Some(at) => at,
                None => self.retry_at(tried, u32::MAX, None, now),
            },
        }
    }
}

impl MirrorRecord {
    /// Whether it is not its turn yet: it failed with this very state, as far as is known, and its next try is later.
    /// One whose server was down waits for the server alone.
    #[must_use]
    pub fn waits(&self, state: Option<EventId>, now: Timestamp) -> bool {
        let is_its_own = self.failure != Some(Failure::ServerDown);
        is_its_own
            && (self.state.is_none() || self.state == state)
            && self.retry_at.is_some_and(|at| at > now.as_secs())
    }

    /// Whether its server wants to be left alone for longer.
    #[must_use]
    pub fn cools_down(&self, now: Timestamp) -> bool {
        self.failure == Some(Failure::RateLimited) && self.retry_at.is_some_and(|at| at > now.as_secs())
    }

    /// While its server is down, the server's next try is its own.
    pub fn wait_for_server(&mut self, retry_at: Option<u64>) {
        if self.failure == Some(Failure::ServerDown) && retry_at.is_some() {
            self.retry_at = retry_at;
        }
    }

    /// Whether people have not been told yet how it stands: what stays as it was is not told in every cycle.
    #[must_use]
    pub fn is_news(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| (before.status, &before.reason) != (self.status, &self.reason))
    }
}

/// How a server as a whole stands, between tries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTries {
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// When it is tried again, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<u64>,
    /// Whether that is when the server itself wants to be asked again.
    #[serde(default)]
    pub told: bool,
    /// Why it could not be worked with.
    #[serde(default)]
    pub reason: String,
}

impl ServerTries {
    /// Whether it is left alone for now.
    #[must_use]
    pub fn waits(&self, now: Timestamp) -> bool {
        self.retry_at.is_some_and(|at| not_ahead(at, WAIT_MAX_SECS, now) > now.as_secs())
    }

    /// Notes that it could not be worked with, or wants to be left alone for `told_secs`.
    pub fn failed(
        &mut self,
        server: &ServerUrl,
        backoff: &Backoff,
        told_secs: Option<u64>,
        reason: &str,
        now: Timestamp,
    ) {
        self.failures = self.failures.saturating_add(1);
        (self.reason, self.told) = (reason.to_owned(), told_secs.is_some());
        let tried = Tried { repository: None, server, state: None };
        self.retry_at = Some(backoff.retry_at(&tried, self.failures, told_secs, now));
    }
}

/// For how long a server wants to be left alone by its header `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
#[must_use]
pub fn retry_after_secs(value: &str, now: Timestamp) -> Option<u64> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse().ok();
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_second();
    Some(u64::try_from(date).unwrap_or(0).saturating_sub(now.as_secs()))
}

/// When the next of `mirrors` is to be tried again; `None` when none waits. It may be in the past.
#[must_use]
pub fn next_due<'a>(mirrors: impl IntoIterator<Item = &'a MirrorRecord>) -> Option<Timestamp> {
    mirrors.into_iter().filter_map(|mirror| mirror.retry_at).min().map(Timestamp::from_secs)
}

/// For how long a server wants to be left alone, when its words say so: "rate-limited: try again in 2 minutes".
#[must_use]
pub fn told_secs(words: &str) -> Option<u64> {
    let words = words.to_lowercase();
    let mut words =
        words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let Ok(number) = digits.parse::<u64>() else { continue };
        let unit = word.get(digits.len()..).filter(|unit| !unit.is_empty()).or(words.peek().copied());
        let secs = match unit {
            Some("s" | "sec" | "secs" | "second" | "seconds") => 1,
            Some("m" | "min" | "mins" | "minute" | "minutes") => 60,
            Some("h" | "hour" | "hours") => 3_600,
            _ => continue,
        };
        return Some(number.saturating_mul(secs));
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{super::testing::server, *};
    use crate::{
        model::placement::Placement,
        plan::{
            converge::{Outcome, Seen},
            record::{Ending, RepositoryRecord, after},
        },
    };

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    /// A mirror tried at `now` for the state `state`, with this end.
    fn tried(before: Option<&MirrorRecord>, ending: Ending, state: u8, now: Timestamp) -> MirrorRecord {
        let repository = Coordinate::new(Keys::generate().public_key(), "d");
        let told = ending.told_secs();
        let mut record = after(before, Placement::Listed, ending, &Seen::default(), &[], None, now);
        let (repository, server, state) = (Some(&repository), &server("a"), Some(id(state)));
        Backoff::default().schedule(&mut record, before, &Tried { repository, server, state }, told, now);
        record
    }

    fn broken() -> Ending {
        Ending::Failed("broke".to_owned())
    }

    #[test]
    fn waits_double_up_to_the_longest_and_differ_between_mirrors() {
        let (a, b) = (server("a"), server("b"));
        let backoff = Backoff::default();
        let wait =
            |server, failures| backoff.wait_secs(&Tried { repository: None, server, state: None }, failures);
        for (failures, full) in
            [(1, 30), (2, 60), (3, 120), (7, 1_920), (8, 3_600), (50, 3_600), (u32::MAX, 3_600)]
        {
            let wait = wait(&a, failures);
            assert!(wait <= full && wait >= full - full / 4, "{failures}: {wait}");
        }
        assert_eq!(wait(&a, 8), wait(&a, 8));
        assert_ne!(wait(&a, 8), wait(&b, 8));
        let never = Backoff { first_secs: 0, max_secs: 0 };
        assert_eq!(never.wait_secs(&Tried { repository: None, server: &a, state: None }, 9), 0);
    }

    #[test]
    fn a_changed_state_and_a_resync_begin_anew() {
        let mut record = tried(None, broken(), 1, NOW);
        for _ in 0..6 {
            record = tried(Some(&record), broken(), 1, NOW);
        }
        assert_eq!((record.failures, record.failure), (7, Some(Failure::ServerFails)));
        assert!(record.waits(Some(id(1)), NOW) && !record.waits(Some(id(2)), NOW));
        let later = Timestamp::from_secs(record.retry_at.unwrap());
        assert!(!record.waits(Some(id(1)), later));
        let changed = tried(Some(&record), broken(), 2, NOW);
        assert_eq!(changed.failures, 1);

        let mut all = RepositoryRecord { mirrors: [(server("a"), record)].into(), ..Default::default() };
        assert_eq!(next_due(all.mirrors.values()), Some(later));
        all.look_anew();
        assert_eq!((next_due(all.mirrors.values()), all.mirrors[&server("a")].failures), (None, 0));
    }

    #[test]
    fn what_was_pushed_to_a_server_that_had_just_come_back_is_looked_at_again() {
        let (a, backoff) = (server("a"), Backoff::default());
        let walk = |before: Option<&MirrorRecord>, ending: Ending, early: bool, now: Timestamp| {
            let seen = Seen { fresh: true, pushed: early, early, ..Seen::default() };
            let mut record = after(before, Placement::Listed, ending, &seen, &[id(0), id(1)], None, now);
            let tried = Tried { repository: None, server: &a, state: Some(id(1)) };
            backoff.schedule(&mut record, before, &tried, None, now);
            record
        };
        let settled = || Ending::Settled(Outcome::InSync);
        let at = |secs: u64| Timestamp::from_secs(NOW.as_secs() + secs);
        assert_eq!(walk(None, settled(), false, NOW).retry_at, None);

        let pushed = walk(None, settled(), true, NOW);
        assert_eq!((pushed.look_again, pushed.failures), (Some(id(1)), 0));
        let due = Timestamp::from_secs(pushed.retry_at.unwrap());
        assert!(
            due > NOW && due <= at(30) && pushed.is_looked_at_again(due) && !pushed.is_looked_at_again(NOW)
        );
        let walked_meanwhile = walk(Some(&pushed), settled(), false, at(1));
        assert_eq!(
            (walked_meanwhile.look_again, walked_meanwhile.retry_at),
            (pushed.look_again, pushed.retry_at)
        );
        let could_not_be_looked_at = walk(Some(&pushed), settled(), false, due);
        assert!(could_not_be_looked_at.retry_at.unwrap() > due.as_secs() + 1_800, "not every moment");
        let waiting = walk(Some(&pushed), Ending::Waiting("waits its turn".to_owned()), false, at(1));
        assert_eq!((waiting.look_again, waiting.retry_at), (Some(id(1)), None), "its turn may come before");
        let down = walk(Some(&pushed), Ending::Down("down".to_owned()), false, due);
        assert_eq!(down.look_again, Some(id(1)));

        let looked_at = MirrorRecord { look_again: None, ..pushed.clone() };
        let walked = walk(Some(&looked_at), settled(), false, due);
        assert_eq!((walked.look_again, walked.retry_at), (None, None));
        let of_an_older_state = MirrorRecord { look_again: Some(id(9)), ..pushed };
        assert_eq!(walk(Some(&of_an_older_state), settled(), false, due).look_again, None);
    }

    #[test]
    fn what_does_not_change_is_told_once_and_what_is_for_good_is_not_waited_for() {
        let refused = || Ending::Settled(Outcome::Refused("blocked: no".to_owned()));
        let first = tried(None, refused(), 1, NOW);
        let second = tried(Some(&first), refused(), 1, NOW);
        assert!(first.is_news(None) && !second.is_news(Some(&first)));
        assert_eq!((first.retry_at, first.failure), (None, Some(Failure::ServerRefused)));
        let down = tried(Some(&second), Ending::Down("down".to_owned()), 1, NOW);
        assert!(down.is_news(Some(&second)) && down.failure.unwrap().passes() && down.retry_at.is_some());
        let well = tried(Some(&down), Ending::Settled(Outcome::InSync), 1, NOW);
        assert_eq!((well.failure, well.retry_at, well.failures), (None, None, 0));
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_says() {
        for (words, secs) in [
            ("rate-limited: slow down", None),
            ("rate-limited: try again in 2 minutes", Some(120)),
            ("rate-limited: 57 events in the last minute; retry after 90s", Some(90)),
            ("rate-limited: wait 1 hour", Some(3_600)),
            ("rate-limited: 9999999999999999999999 seconds", None),
            ("é 5 sek", None),
        ] {
            assert_eq!(told_secs(words), secs, "{words}");
        }
        let limited =
            |words: &str| Ending::RateLimited { reason: words.to_owned(), told_secs: told_secs(words) };
        let record = tried(None, limited("rate-limited: retry after 10 minutes"), 1, NOW);
        assert_eq!(record.retry_at, Some(NOW.as_secs() + 600));
        assert_eq!(record.failure, Some(Failure::RateLimited));
        assert!(record.cools_down(NOW) && !record.cools_down(Timestamp::from_secs(NOW.as_secs() + 600)));
        let record = tried(None, limited("rate-limited: 1000 hours"), 1, NOW);
        assert_eq!(record.retry_at, Some(NOW.as_secs() + 24 * 3_600));
    }

    #[test]
    fn a_server_that_is_down_is_asked_ever_less_often_and_as_it_says() {
        let (mut tries, a, backoff) = (ServerTries::default(), server("a"), Backoff::default());
        assert!(!tries.waits(NOW));
        let mut waits = Vec::new();
        for _ in 0..9 {
            tries.failed(&a, &backoff, None, "gone", NOW);
            waits.push(tries.retry_at.unwrap() - NOW.as_secs());
        }
        for (wait, full) in waits.iter().zip([30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]) {
            assert!(*wait <= full && *wait >= full - full / 4, "{waits:?}");
        }
        tries = ServerTries::default();
        tries.failed(&a, &backoff, Some(600), "HTTP 503", NOW);
        assert!(tries.told && tries.waits(NOW) && !tries.waits(Timestamp::from_secs(NOW.as_secs() + 600)));

        // Its mirrors are tried when it is.
        let mut mirror = tried(None, Ending::Down("gone".to_owned()), 1, NOW);
        assert!(!mirror.waits(mirror.state, NOW), "when the server is up, it is its turn");
        mirror.wait_for_server(tries.retry_at);
        assert_eq!(mirror.retry_at, tries.retry_at);
        let again = tried(Some(&mirror), Ending::Down("gone".to_owned()), 1, NOW);
        assert_eq!(again.failures, 1, "the failures are the server's");
        let mut failing = tried(None, broken(), 1, NOW);
        failing.wait_for_server(tries.retry_at);
        assert_ne!(failing.retry_at, tries.retry_at);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        for (value, secs) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Mon, 21 Sep 2026 14:18:20 GMT", Some(300)),
            ("Mon, 21 Sep 2020 14:18:20 GMT", Some(0)),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(retry_after_secs(value, NOW), secs, "{value:?}");
        }
    }

    proptest! {
        /// Whatever is configured and however often it failed: no wait is longer than the longest or, but for the
        /// spread, shorter than the first.
        #[test]
        fn waits_stay_within_their_bounds(first_secs: u64, max_secs: u64, failures: u32, words: String) {
            let backoff = Backoff { first_secs, max_secs };
            let a = server("a");
            let wait = backoff.wait_secs(&Tried { repository: None, server: &a, state: None }, failures);
            let floor = first_secs.min(max_secs);
            prop_assert!(wait <= max_secs && wait >= floor - floor / 4);
            let _ = (told_secs(&words), retry_after_secs(&words, NOW));
        }
    }
}
