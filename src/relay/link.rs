//! The connection to one relay.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use grasp_mirror_commands::{clean, with_causes};
use nostr::prelude::{Event, Kind, RelayUrl};
use nostr_sdk::{
    client::Client,
    error::ErrorKind,
    relay::{Relay, RelayLimits, RelayOptions},
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};

use super::{Limits, RelayError, door::Door, learned::Learned, pace::Pace};
use crate::plan::{converge::Answer, retry::told_secs};

/// Requests open at once on one connection; relays allow some hundred, small ones a dozen.
const OPEN_REQUESTS: usize = 8;

/// How often a `rate-limited:` answer is waited out before the event is left for the next run.
const RATE_LIMIT_WAITS: usize = 8;

/// Connections lost in the middle of a run before the relay counts as down.
const RECONNECTS: u32 = 3;

/// The longest private message that is looked at, in bytes of JSON.
const PRIVATE_EVENT_MAX: u32 = 128 << 10;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) relay: Relay,
    pub(super) limits: Limits,
    pub(super) requests: tokio::sync::Semaphore,
    /// Set once the relay turned out not to speak NIP-77, or not to answer in time.
    pub(super) no_negentropy: AtomicBool,
    /// It left a question in NIP-77 without a word, and has answered nothing else since.
    pub(super) is_silent: AtomicBool,
    pub(super) door: Door,
    learned: Arc<Learned>,
    writes: DefaultDirectRateLimiter,
    /// Events go one after the other, so that a relay that asks to slow down is heard by all.
    writing: Mutex<Pace>,
    /// How many events the relay takes in a minute, as far as is known.
    events_per_minute: AtomicU32,
    attempts: Arc<Mutex<Attempts>>,
    /// How long it took to open the connection, the last time.
    opened_in: watch::Sender<Option<Duration>>,
    asked_for: std::sync::Mutex<Instant>,
}

/// Connecting is tried by one task at a time, and the first failure is remembered for the others.
#[derive(Debug, Default)]
struct Attempts {
    connected: u32,
    failed: Option<(Instant, RelayError)>,
}

impl Link {
    /// `door` is that of the relay's client.
    pub(super) fn new(relay: Relay, door: Door, learned: Arc<Learned>, limits: Limits) -> Self {
        let known = learned.events_per_minute(relay.url());
        Self {
            relay,
            limits,
            requests: tokio::sync::Semaphore::new(OPEN_REQUESTS),
            no_negentropy: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            door,
            learned,
            writes: RateLimiter::direct(Quota::per_minute(limits.events_per_minute)),
            events_per_minute: AtomicU32::new(allowed(known, &limits)),
            writing: Mutex::new(Pace::with(known)),
            attempts: Arc::default(),
            opened_in: watch::Sender::default(),
            asked_for: std::sync::Mutex::new(Instant::now()),
        }
    }

    /// Somebody is about to use it.
    pub(super) fn note_asked_for(&self) {
        *self.asked_for.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago somebody last wanted to use it.
    pub(super) fn last_asked_for(&self) -> Duration {
        self.asked_for.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Connects unless connected; a failure holds for the whole run, or for [`Limits::rest`].
    pub(super) async fn connect(&self) -> Result<(), RelayError> {
        if self.relay.status().is_connected() {
            return Ok(());
        }
        let mut attempts = Arc::clone(&self.attempts).lock_owned().await;
        if let Some((at, error)) = &attempts.failed {
            if self.limits.rest.is_none_or(|rest| at.elapsed() < rest) {
                return Err(error.clone());
            }
            *attempts = Attempts::default();
        }
        if self.relay.status().is_connected() {
            return Ok(());
        }
        let (relay, url) = (self.relay.clone(), self.relay.url().to_string());
        let (patience, opened_in) = (self.limits.connect_timeout, self.opened_in.clone());
        // For as long as a program runs, connections come and go.
        let keeps_on = self.limits.rest.is_some();
        // In a task of its own: whoever waits for it may lose patience, and a connection that is given up half-way
        // would count as being made for ever.
        let connecting = tokio::spawn(async move {
            let failed = if !keeps_on && attempts.connected > RECONNECTS {
                Some("the connection was lost again and again".to_owned())
            } else {
                attempts.connected += 1;
                let began_at = Instant::now();
                let tried = relay.try_connect().timeout(patience).await;
                if tried.is_ok() {
                    opened_in.send_replace(Some(began_at.elapsed()));
                }
                tried.err().map(|error| with_causes(&error))
            };
            let failed =
                failed.map(|reason| RelayError::Unreachable { relay: relay.url().to_string(), reason });
            attempts.failed = failed.clone().map(|error| (Instant::now(), error));
            failed.map_or(Ok(()), Err)
        });
        connecting.await.unwrap_or_else(|error| {
            Err(RelayError::Unreachable { relay: url, reason: format!("connecting broke: {error}") })
        })
    }

    /// Forgets that it could not be reached, or lost connections: a new run tries again. Nor does one that did not answer
    /// in NIP-77 in time count as not knowing it for as long as the program runs: it was busy, perhaps.
    pub(super) fn start_over(&self) {
        // One that is being made is this run's try.
        if let Ok(mut attempts) = self.attempts.try_lock() {
            *attempts = Attempts::default();
        }
        let (learned, relay) = (&self.learned, self.relay.url());
        let was_silent = self.is_silent.swap(false, Ordering::Relaxed) || learned.was_silent(relay);
        if was_silent || learned.speaks_negentropy(relay) {
            self.no_negentropy.store(false, Ordering::Relaxed);
        }
    }

    /// Connects unless connected, whatever happened before.
    pub(super) async fn connect_again(&self) -> Result<(), RelayError> {
        if !self.relay.status().is_connected() {
            self.start_over();
        }
        self.connect().await
    }

    /// Sends one event, one at a time on this connection, and waits when the relay says to slow down.
    pub(super) async fn send(&self, event: &Event) -> Result<Answer, RelayError> {
        let queued_at = Instant::now();
        let mut pace = self.writing.lock().await;
        if let Some(words) = pace.left_alone_since(queued_at) {
            return Err(RelayError::RateLimited {
                relay: self.relay.url().to_string(),
                reason: words.to_owned(),
            });
        }
        let mut waits = 0;
        loop {
            if let Some(at) = pace.next_at() {
                sleep_until(at).await;
            }
            let answer = self.send_once(event).await;
            match &answer {
                Err(error @ RelayError::RateLimited { reason: words, .. }) => {
                    let wait = pace.hint(Instant::now());
                    tracing::debug!(wait_secs = wait.as_secs(), %error, "slowing down");
                    if let Some(events) = pace.events_per_minute() {
                        self.learned.note_events_per_minute(self.relay.url(), events);
                        self.events_per_minute.fetch_min(events, Ordering::Relaxed);
                    }
                    waits += 1;
                    if told_secs(words).is_some_and(|secs| secs > wait.as_secs()) {
                        pace.leave_alone(Instant::now(), words);
                        return answer;
                    }
                    if waits > RATE_LIMIT_WAITS {
                        return answer;
                    }
                }
                Ok(_) => {
                    pace.taken(Instant::now());
                    return answer;
                }
                Err(_) => return answer,
            }
        }
    }

    /// How long it took to open the connection, the last time; `None` before.
    pub(super) fn opened_in(&self) -> Option<Duration> {
        *self.opened_in.borrow()
    }

    /// How many events the relay takes in a minute, as far as is known.
    pub(super) fn events_per_minute(&self) -> u32 {
        self.events_per_minute.load(Ordering::Relaxed)
    }

    async fn send_once(&self, event: &Event) -> Result<Answer, RelayError> {
        self.connect().await?;
        self.writes.until_ready().await;
        let relay = || self.relay.url().to_string();
        match self.relay.send_event(event).ok_timeout(self.limits.stall_timeout).await {
            Ok(output) => Ok(accepted(output.status().message().unwrap_or_default())),
            // The relay said no: its own words are the error.
            Err(error) if error.kind() == ErrorKind::Rejected => {
                let words = refusal_words(&error.to_string());
                if words.starts_with("duplicate:") {
                    Ok(Answer::Taken)
                } else if words.starts_with("rate-limited:") {
                    Err(RelayError::RateLimited { relay: relay(), reason: words })
                } else {
                    Ok(Answer::Refused(words))
                }
            }
            Err(error) if error.kind() == ErrorKind::Timeout => {
                Err(RelayError::Silent { relay: relay(), event: event.id, limit: self.limits.stall_timeout })
            }
            Err(error) => {
                Err(RelayError::NotTaken { relay: relay(), event: event.id, reason: with_causes(&error) })
            }
        }
    }

    pub(super) fn speaks_negentropy(&self) -> bool {
        !self.no_negentropy.load(Ordering::Relaxed) && !self.learned.is_mute(self.relay.url())
    }

    /// It answered a request that was not in NIP-77: when it was silent before, it was not for being busy or away.
    pub(super) fn note_answer(&self) {
        if self.is_silent.swap(false, Ordering::Relaxed) {
            self.learned.note_silence(self.relay.url());
        }
    }

    /// Whether it has answered in NIP-77 before, on whichever connection: who may not know it costs patience.
    pub(super) fn is_known_to_speak_negentropy(&self) -> bool {
        self.speaks_negentropy() && self.learned.speaks_negentropy(self.relay.url())
    }

    pub(super) fn note_negentropy(&self) {
        self.learned.note_negentropy(self.relay.url());
    }
}

/// A relay of `client`, not connected yet; one that was left before is forgotten.
pub(super) async fn open(client: &Client, url: &RelayUrl) -> Result<Relay, RelayError> {
    let options = RelayOptions::default().reconnect(false).verify_subscriptions(true).limits(event_limits());
    let added = async {
        if client.relay(url).await?.is_some() {
            client.remove_relay(url).force().await?;
        }
        client.add_relay(url).opts(options).await?;
        client.relay(url).await
    };
    let reason = match added.await {
        Ok(Some(relay)) => return Ok(relay),
        Ok(None) => "it was not added".to_owned(),
        Err(error) => with_causes(&error),
    };
    Err(RelayError::Unreachable { relay: url.to_string(), reason })
}

/// How many events a relay takes in a minute, by what is known of it, as far as the configuration allows.
pub(super) fn allowed(known: Option<u32>, limits: &Limits) -> u32 {
    let allowed = limits.events_per_minute.get();
    known.map_or(allowed, |known| known.min(allowed))
}

/// A state has a tag for every ref, and one more for every annotated tag: more than nostr-sdk takes by itself
/// (2,000). Its limit on the size of a message stays; a private message is short.
fn event_limits() -> RelayLimits {
    let mut limits = RelayLimits::default();
    limits.events.max_num_tags = Some(u16::MAX);
    for kind in [Kind::GiftWrap, Kind::EncryptedDirectMessage] {
        limits.events = limits.events.set_max_size_per_kind(kind, Some(PRIVATE_EVENT_MAX));
    }
    limits
}

/// What `OK true` means: GRASP servers keep an event back until its git data arrives, and say so.
fn accepted(message: &str) -> Answer {
    if message.contains("purgatory") { Answer::Purgatory } else { Answer::Taken }
}

/// NIP-01's machine-readable prefixes.
const PREFIXES: [&str; 10] = [
    "duplicate:",
    "pow:",
    "blocked:",
    "rate-limited:",
    "invalid:",
    "restricted:",
    "mute:",
    "error:",
    "auth-required:",
    "unsupported:",
];

/// The relay's words from their prefix on, without what a library put before them.
fn refusal_words(message: &str) -> String {
    let start = PREFIXES.iter().filter_map(|prefix| message.find(prefix)).min().unwrap_or(0);
    clean(message.get(start..).unwrap_or(message), 300)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{future::pending, net::SocketAddr};

    use futures::{FutureExt, future::BoxFuture};
    use nostr::prelude::Keys;
    use url::Url;

    use super::{
        super::{Addresses, Relays},
        *,
    };

    /// Looks addresses up for ever.
    #[derive(Debug)]
    struct Slow;

    impl Addresses for Slow {
        fn of<'a>(&'a self, _: &'a Url) -> BoxFuture<'a, Result<Vec<SocketAddr>, String>> {
            Box::pin(pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_run_does_not_wait_for_a_connection_that_somebody_gave_up() {
        let limits = Limits::waiting(Duration::from_secs(10));
        let relays = Relays::that_keep_nothing(Arc::new(Slow), Keys::generate(), limits);
        let link = relays.link(&RelayUrl::parse("wss://one.example").unwrap()).await.unwrap();
        assert!(link.connect().now_or_never().is_none());
        assert!(relays.start_over().now_or_never().is_some());
        assert!(link.connect().await.is_err(), "it is this run's try");
    }

    #[test]
    fn the_relays_own_words_are_kept() {
        assert_eq!(refusal_words("relay message: blocked: too big"), "blocked: too big");
        assert_eq!(refusal_words("no prefix\u{7}"), "no prefix");
        assert_eq!(accepted("purgatory: won't be served until git data arrives"), Answer::Purgatory);
        assert_eq!(accepted(""), Answer::Taken);
    }
}
