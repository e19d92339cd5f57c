//! Who is left alone for a while, whichever mirror or repository needs something of it:
//!
//! - a server or relay that said for how long it wants to be, to this process or the one before;
//! - a server that leaves one request after the other without an answer: else each of its mirrors would wait as long,
//!   and whoever walks it with it. Each time for twice as long, until it answers or somebody wants it asked;
//! - the host of a clone URL that did either, once: many repositories and pull requests may name it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use grasp_mirror_commands::clean;
use nostr::prelude::{RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use crate::{
    git::wire::WireError,
    model::address::shown,
    plan::{
        record::{REASON_MAX, not_ahead},
        retry::TOLD_MAX_SECS,
    },
};

/// So many requests in a row, or one large push that a server is busy with would count.
const IN_A_ROW: u32 = 3;

/// What a server is asked for. One that is silent to one of these may answer the others at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// What it serves.
    Look,
    /// To list its refs.
    Refs,
    /// To take a push.
    Push,
    /// To take an event.
    Event,
}

/// How long who does not answer is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// The first time; doubled each time.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

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

/// By server.
pub type CoolDowns = BTreeMap<RelayUrl, CoolDown>;

/// One for all work of a program.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Servers and relays that said so, with their words.
    told: HashMap<RelayUrl, Rest>,
    /// Whether one has said so since it was last asked for.
    is_news: bool,
    /// Requests in a row that a server did not answer, and what came of the last.
    silent: HashMap<(RelayUrl, Asked), (u32, Rest)>,
    /// Hosts, with what they did.
    hosts: HashMap<String, Rest>,
}

/// Until when, and why.
#[derive(Debug)]
struct Rest {
    until: Instant,
    words: String,
}

impl Rest {
    fn of(wait: Duration, words: impl Into<String>) -> Self {
        Self { until: Instant::now() + wait, words: words.into() }
    }

    /// For how many seconds more; `None` when it is over.
    fn secs_left(&self) -> Option<u64> {
        let left = self.until.saturating_duration_since(Instant::now());
        // A part of a second is one.
        (!left.is_zero()).then(|| left.as_secs() + 1)
    }
}

impl LeftAlone {
    /// `server` wants to be left alone for so many seconds, in its own words.
    pub(super) fn note_told(&self, server: &RelayUrl, secs: u64, words: &str) {
        let mut known = self.known();
        known.is_news |= known.note_told(server, secs, words);
    }

    /// For how many seconds more `server` wants to be left alone, and what it said.
    pub(super) fn told(&self, server: &RelayUrl) -> Option<(u64, String)> {
        let mut known = self.known();
        known.told.retain(|_, rest| rest.secs_left().is_some());
        let rest = known.told.get(server)?;
        Some((rest.secs_left()?, rest.words.clone()))
    }

    /// All that said so, if one has since this was last asked.
    pub(super) fn news(&self, now: Timestamp) -> Option<CoolDowns> {
        let mut known = self.known();
        if !std::mem::take(&mut known.is_news) {
            return None;
        }
        let cool_down = |rest: &Rest| {
            let left = rest.until.saturating_duration_since(Instant::now()).as_secs();
            CoolDown { until: now.as_secs().saturating_add(left), words: rest.words.clone() }
        };
        Some(known.told.iter().map(|(server, rest)| (server.clone(), cool_down(rest))).collect())
    }

    /// What was written down before.
    pub(super) fn recall(&self, all: CoolDowns, now: Timestamp) {
        let mut known = self.known();
        for (server, CoolDown { until, words }) in all {
            let until = not_ahead(until, TOLD_MAX_SECS, now);
            known.note_told(&server, until.saturating_sub(now.as_secs()), &words);
        }
    }

    /// `server` answered, whatever it said.
    pub(super) fn answered(&self, server: &RelayUrl, asked: Asked) {
        self.known().silent.remove(&(server.clone(), asked));
    }

    /// `server` did not answer, in the words of the error.
    pub(super) fn unanswered(&self, server: &RelayUrl, asked: Asked, words: &str, waits: Waits) {
        let mut known = self.known();
        let (in_a_row, rest) = known
            .silent
            .entry((server.clone(), asked))
            .or_insert_with(|| (0, Rest::of(Duration::ZERO, String::new())));
        // Those that were under way when it was left alone say nothing new.
        if rest.secs_left().is_some() {
            return;
        }
        *in_a_row = in_a_row.saturating_add(1);
        let wait = in_a_row.checked_sub(IN_A_ROW).map(|again| {
            let wait = waits.first.saturating_mul(1 << again.min(16)).min(waits.longest);
            tracing::warn!(%server, ?asked, wait_secs = wait.as_secs(), words, "it does not answer; left alone for a while");
            wait
        });
        *rest = Rest::of(wait.unwrap_or_default(), words);
    }

    /// Whether `server` is asked anything now; or why not: it does not answer.
    pub(super) fn is_heard(&self, server: &RelayUrl) -> Result<(), String> {
        let known = self.known();
        let mut silent = known.silent.iter().filter(|((silent, _), _)| silent == server);
        silent.find(|(_, (_, rest))| rest.secs_left().is_some()).map_or(Ok(()), |(_, (_, rest))| {
            let words = &rest.words;
            Err(clean(&format!("left alone for a while, since it does not answer: {words}"), REASON_MAX))
        })
    }

    /// This server, or every one, is asked again that did not answer.
    pub(super) fn forget_silence(&self, server: Option<&RelayUrl>) {
        self.known().silent.retain(|(silent, _), _| server.is_some_and(|server| server != silent));
    }

    /// Takes note of how asking `url` for git data went wrong; its host is left alone for `silence` when it did not
    /// answer.
    pub(super) fn note_failed(&self, url: &Url, error: &WireError, silence: Duration) {
        let rest = match error {
            WireError::Unreachable { .. } | WireError::TimedOut { .. } => {
                Rest::of(silence, "did not answer before")
            }
            WireError::Status { retry_after_secs: Some(secs), .. } => {
                Rest::of(Duration::from_secs((*secs).min(TOLD_MAX_SECS)), "wants to be left alone")
            }
            _ => return,
        };
        let mut known = self.known();
        // Strangers name them.
        known.hosts.retain(|_, rest| rest.secs_left().is_some());
        known.hosts.insert(host(url), rest);
    }

    /// Whether `url` is asked for git data now; or why not.
    pub(super) fn may_be_asked(&self, url: &Url) -> Result<(), String> {
        let known = self.known();
        let rest = known.hosts.get(&host(url)).and_then(|rest| Some((rest.secs_left()?, &rest.words)));
        rest.map_or(Ok(()), |(secs, why)| {
            Err(format!("{} is not asked: its host {why} (for {secs} s more)", shown(url)))
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether it is for longer than was known. Seconds are rounded up: who waits says it once more.
    fn note_told(&mut self, server: &RelayUrl, secs: u64, words: &str) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        let rest = Rest::of(Duration::from_secs(secs.min(TOLD_MAX_SECS)), clean(words, REASON_MAX));
        let is_longer = self.told.get(server).is_none_or(|known| known.until + SECOND < rest.until);
        if is_longer {
            self.told.insert(server.clone(), rest);
        }
        is_longer
    }
}

fn host(url: &Url) -> String {
    format!("{:?}:{:?}", url.host(), url.port_or_known_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const WAITS: Waits = Waits { first: Duration::from_secs(30), longest: Duration::from_secs(100) };

    fn two() -> [RelayUrl; 2] {
        ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_time_counts_and_ends() {
        let [one, other] = two();
        let told = LeftAlone::default();
        told.note_told(&one, 600, "in ten minutes");
        told.note_told(&one, 60, "in a minute");
        assert_eq!((told.told(&one), told.told(&other)), (Some((601, "in ten minutes".to_owned())), None));
        advance(Duration::from_secs(599)).await;
        assert!(told.told(&one).is_some());
        advance(Duration::from_secs(1)).await;
        assert_eq!(told.told(&one), None);
        told.note_told(&other, u64::MAX, "never");
        assert_eq!(told.told(&other).unwrap().0, TOLD_MAX_SECS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_down_holds_in_the_next_process() {
        let [one, other] = two();
        let at = |secs: u64| Timestamp::from_secs(1_790_000_000 + secs);
        let told = LeftAlone::default();
        assert_eq!(told.news(at(0)), None);
        told.note_told(&one, 600, "in ten minutes");
        told.note_told(&other, 60, "in a minute");
        let written = told.news(at(0)).unwrap();
        for secs in [60, 601] {
            told.note_told(&one, secs, "as before");
        }
        assert_eq!(told.news(at(0)), None, "nothing is longer");
        let read: CoolDowns = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.values().map(|told| told.holds(at(100))).collect::<Vec<_>>(), [true, false]);
        let next = LeftAlone::default();
        next.recall(read, at(100));
        assert_eq!((next.told(&one), next.told(&other)), (Some((501, "in ten minutes".to_owned())), None));
        assert_eq!(next.news(at(100)), None, "it is written down already");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_left_alone_for_longer_each_time_until_it_answers() {
        let [one, other] = two();
        let silence = LeftAlone::default();
        let ask = |asked| silence.unanswered(&one, asked, "no push within 60 s", WAITS);
        for _ in 1..IN_A_ROW {
            ask(Asked::Push);
            ask(Asked::Event);
        }
        assert_eq!(silence.is_heard(&one), Ok(()));
        silence.answered(&one, Asked::Event);
        ask(Asked::Event);
        assert_eq!(silence.is_heard(&one), Ok(()), "it began anew");
        ask(Asked::Push);
        for secs in [30, 60, 100, 100] {
            let why = silence.is_heard(&one).unwrap_err();
            assert_eq!(why, "left alone for a while, since it does not answer: no push within 60 s");
            assert_eq!(silence.is_heard(&other), Ok(()));
            // Many were under way.
            ask(Asked::Push);
            ask(Asked::Push);
            advance(Duration::from_secs(secs) - Duration::from_millis(1)).await;
            assert!(silence.is_heard(&one).is_err(), "{secs}");
            advance(Duration::from_millis(1)).await;
            assert_eq!(silence.is_heard(&one), Ok(()), "{secs}");
            ask(Asked::Push);
        }
        silence.answered(&one, Asked::Push);
        assert_eq!(silence.is_heard(&one), Ok(()));
        (0..IN_A_ROW).for_each(|_| ask(Asked::Refs));
        assert!(silence.is_heard(&one).is_err());
        silence.forget_silence(Some(&other));
        assert!(silence.is_heard(&one).is_err());
        silence.forget_silence(Some(&one));
        assert_eq!(silence.is_heard(&one), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_left_alone_for_as_long_as_it_wants_and_forgotten_then() {
        let hosts = LeftAlone::default();
        let url = |text: &str| text.parse::<Url>().unwrap();
        let fails = |text: &str, secs: u64| {
            let (url, reason) = (url(text), String::new());
            let error =
                WireError::Status { url: url.clone(), status: 429, reason, retry_after_secs: Some(secs) };
            hosts.note_failed(&url, &error, Duration::ZERO);
        };
        fails("https://one.example/a.git", 60);
        let why = hosts.may_be_asked(&url("https://one.example/b.git")).unwrap_err();
        assert_eq!(
            why,
            "https://one.example/b.git is not asked: its host wants to be left alone (for 61 s more)"
        );
        assert_eq!(hosts.may_be_asked(&url("https://one.example:8443/b.git")), Ok(()));
        advance(Duration::from_secs(60)).await;
        assert_eq!(hosts.may_be_asked(&url("https://one.example/b.git")), Ok(()));
        fails("https://other.example/a.git", 60);
        assert_eq!(hosts.known().hosts.len(), 1, "anybody can name some");
    }
}
