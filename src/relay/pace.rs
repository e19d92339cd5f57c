//! How fast one relay takes events, learned from its first `rate-limited:`.
//!
//! Until it says so, events go as fast as the configuration allows. What it took until then tells what it takes in a
//! minute, however it counts (tokens that come back, windows of a minute, the last minute): what a burst and the minutes
//! since its begin can hold is at least the number of events. From then on no minute has more events than that, a little
//! less. What one connection has learned the next one begins with ([`super::learned`]).

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// A minute's allowance comes back in a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// Of what a relay was seen to take, so much is sent; clocks and networks are not exact.
const MARGIN: f64 = 0.9;

/// What was sent to one relay, and what follows from that.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when events go without a pause of a minute, and how many that were.
    since: Option<Instant>,
    taken: u32,
    last: Option<Instant>,
    /// After a hint: how many go in a minute, and when the last of them went.
    a_minute: Option<u32>,
    sent: VecDeque<Instant>,
    not_before: Option<Instant>,
    /// When it said for how long it wants to be left alone, and its words.
    left_alone: Option<(Instant, String)>,
}

impl Pace {
    /// For a new connection to a relay that has shown to others how many events it takes in a minute.
    pub(super) fn with(a_minute: Option<u32>) -> Self {
        Self { a_minute, ..Self::default() }
    }

    /// When the next event may go; `None` for now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let allowed = self.a_minute.and_then(|a_minute| usize::try_from(a_minute).ok());
        let oldest = self.sent.front().filter(|_| allowed.is_some_and(|allowed| self.sent.len() >= allowed));
        oldest.map(|oldest| *oldest + MINUTE).max(self.not_before)
    }

    /// The relay answered an event that was sent at `now`, and not with a hint.
    pub(super) fn taken(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now.duration_since(last) >= MINUTE) {
            (self.since, self.taken) = (Some(now), 0);
        }
        self.last = Some(now);
        self.taken = self.taken.saturating_add(1);
        if self.a_minute.is_some() {
            self.sent.push_back(now);
            while self.sent.front().is_some_and(|oldest| *oldest + MINUTE <= now) {
                self.sent.pop_front();
            }
        }
    }

    /// The relay asked to slow down. How long it is left alone.
    pub(super) fn hint(&mut self, now: Instant) -> Duration {
        let minutes = self.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64() / 60.0);
        // At least one, and at most as many as were counted in 32 bits.
        let a_minute = (f64::from(self.taken.max(1)) * MARGIN / (1.0 + minutes)).max(1.0) as u32;
        // A second hint: what was learned was too much.
        self.a_minute = Some(self.a_minute.map_or(a_minute, |before| a_minute.min(before / 2).max(1)));
        self.not_before = Some(now + MINUTE);
        (self.since, self.taken, self.last) = (None, 0, None);
        self.sent.clear();
        MINUTE
    }

    /// The relay said, at `now`, that it wants to be left alone for longer than anybody waits here.
    pub(super) fn leave_alone(&mut self, now: Instant, words: &str) {
        self.left_alone = Some((now, words.to_owned()));
    }

    /// What the relay said if that was after `then`: whoever has waited since then does not know it. Who comes later does.
    pub(super) fn left_alone_since(&self, then: Instant) -> Option<&str> {
        self.left_alone.as_ref().filter(|(at, _)| *at >= then).map(|(_, words)| words.as_str())
    }

    /// How many events the relay takes in a minute, as far as it has said.
    pub(super) fn events_per_minute(&self) -> Option<u32> {
        self.a_minute
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;

    use super::*;

    /// How a relay may count.
    enum Relay {
        /// So many tokens, which come back evenly over a minute.
        Tokens { held: f64, a_minute: f64, last: Option<Instant> },
        /// So many in each minute by the clock.
        Windows { a_minute: usize, start: Option<Instant>, count: usize },
        /// So many in any minute.
        Sliding { a_minute: usize, taken: VecDeque<Instant> },
    }

    impl Relay {
        fn takes(&mut self, now: Instant) -> bool {
            match self {
                Self::Tokens { held, a_minute, last } => {
                    let since = last.replace(now).map_or(0.0, |last| now.duration_since(last).as_secs_f64());
                    *held = (*held + since * *a_minute / 60.0).min(*a_minute);
                    let takes = *held >= 1.0;
                    *held -= f64::from(u8::from(takes));
                    takes
                }
                Self::Windows { a_minute, start, count } => {
                    let begun = *start.get_or_insert(now);
                    let windows = now.duration_since(begun).as_secs() / 60;
                    if windows > 0 {
                        (*start, *count) = (Some(begun + MINUTE * u32::try_from(windows).unwrap_or(1)), 0);
                    }
                    *count += 1;
                    *count <= *a_minute
                }
                Self::Sliding { a_minute, taken } => {
                    taken.retain(|at| now.duration_since(*at) < MINUTE);
                    let takes = taken.len() < *a_minute;
                    if takes {
                        taken.push_back(now);
                    }
                    takes
                }
            }
        }
    }

    /// Sends `events`, one every `every` as long as nobody says otherwise; how often the relay said no, and how long
    /// it took.
    fn send_all(relay: &mut Relay, events: u32, every: Duration) -> (u32, Duration) {
        let begun = Instant::now();
        let (mut now, mut pace, mut hints) = (begun, Pace::default(), 0);
        for _ in 0..events {
            loop {
                now = pace.next_at().map_or(now, |at| at.max(now)) + every;
                if relay.takes(now) {
                    pace.taken(now);
                    break;
                }
                pace.hint(now);
                hints += 1;
            }
        }
        (hints, now - begun)
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_hint_a_relay_has_no_reason_for_a_second() {
        for a_minute in [1_u32, 7, 60, 600] {
            for every_ms in [1_u64, 40, 250, 900] {
                let relays = [
                    Relay::Tokens { held: f64::from(a_minute), a_minute: f64::from(a_minute), last: None },
                    Relay::Windows { a_minute: a_minute as usize, start: None, count: 0 },
                    Relay::Sliding { a_minute: a_minute as usize, taken: VecDeque::new() },
                ];
                for (number, mut relay) in relays.into_iter().enumerate() {
                    let events = a_minute * 10;
                    let (hints, took) = send_all(&mut relay, events, Duration::from_millis(every_ms));
                    assert!(hints <= 1, "{number}: {a_minute} a minute, each {every_ms} ms: {hints} hints");
                    let least = (MINUTE * 10).max(Duration::from_millis(every_ms) * events);
                    assert!(took <= least * 3, "{number}: {a_minute} a minute, each {every_ms} ms: {took:?}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_connection_has_learned_the_next_one_knows() {
        for a_minute in [7_u32, 60] {
            let mut first = Pace::default();
            let now = Instant::now();
            (0..a_minute).for_each(|_| first.taken(now));
            first.hint(now);
            // Each connection has an allowance of its own, also at once.
            let mut relay = Relay::Sliding { a_minute: a_minute as usize, taken: VecDeque::new() };
            let (mut pace, mut at) = (Pace::with(first.events_per_minute()), now);
            for number in 0..a_minute * 3 {
                let next = pace.next_at();
                assert!(number > a_minute / 2 || next.is_none(), "the first ones wait: {number}");
                at = next.map_or(at, |next| next.max(at));
                assert!(relay.takes(at), "{number} of {a_minute} a minute");
                pace.taken(at);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_allows_less_than_it_took_at_first_is_met_halfway_until_it_is_content() {
        // A hundred at once, and then one a minute.
        let mut relay = Relay::Tokens { held: 100.0, a_minute: 1.0, last: None };
        let mut pace = Pace::default();
        let (mut now, mut hints) = (Instant::now(), 0);
        for _ in 0..130 {
            now = pace.next_at().map_or(now, |at| at.max(now)) + Duration::from_millis(5);
            if relay.takes(now) {
                pace.taken(now);
            } else {
                pace.hint(now);
                hints += 1;
            }
        }
        assert!(hints > 0 && pace.events_per_minute() == Some(1), "{hints} hints, {pace:?}");
    }
}
