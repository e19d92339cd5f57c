//! The connection to one relay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use nostr::prelude::{Event, Keys, RelayUrl};
use nostr_database::NostrDatabase;
use nostr_sdk::{
    authenticator::SignerAuthenticator,
    error::ErrorKind,
    relay::{Relay, RelayOptions},
};
use tokio::sync::Mutex;

use super::{Limits, RelayError};
use crate::plan::converge::Answer;

/// Requests open at once on one connection; relays allow some hundred, small ones a dozen.
const OPEN_REQUESTS: usize = 8;

/// How often a `rate-limited:` answer is waited out before the event is left for the next run.
const RATE_LIMIT_WAITS: u32 = 4;

/// The first wait after `rate-limited:`; doubled each time. A minute's allowance comes back in a minute.
const RATE_LIMIT_WAIT: Duration = Duration::from_secs(10);

/// Connections lost in the middle of a run before the relay counts as down.
const RECONNECTS: u32 = 3;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) relay: Relay,
    pub(super) limits: Limits,
    pub(super) requests: tokio::sync::Semaphore,
    /// Set once the relay turned out not to speak NIP-77.
    pub(super) no_negentropy: AtomicBool,
    writes: DefaultDirectRateLimiter,
    attempts: Mutex<Attempts>,
}

/// Connecting is tried by one task at a time, and the first failure is remembered for the others.
#[derive(Debug, Default)]
struct Attempts {
    connected: u32,
    failed: Option<RelayError>,
}

impl Link {
    pub(super) fn new(
        url: &RelayUrl,
        database: &Arc<dyn NostrDatabase>,
        keys: &Keys,
        limits: Limits,
    ) -> Self {
        let relay = Relay::builder(url.clone())
            .database(Arc::clone(database))
            .authenticator(SignerAuthenticator::new(keys.clone()))
            .opts(RelayOptions::default().reconnect(false).verify_subscriptions(true))
            .build();
        Self {
            relay,
            limits,
            requests: tokio::sync::Semaphore::new(OPEN_REQUESTS),
            no_negentropy: AtomicBool::new(false),
            writes: RateLimiter::direct(Quota::per_minute(limits.events_per_minute)),
            attempts: Mutex::default(),
        }
    }

    /// Connects unless connected; a failure holds for the whole run.
    pub(super) async fn connect(&self) -> Result<(), RelayError> {
        if self.relay.status().is_connected() {
            return Ok(());
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(error) = &attempts.failed {
            return Err(error.clone());
        }
        if self.relay.status().is_connected() {
            return Ok(());
        }
        let unreachable =
            |reason: String| RelayError::Unreachable { relay: self.relay.url().to_string(), reason };
        let result = if attempts.connected > RECONNECTS {
            Err(unreachable("the connection was lost again and again".to_owned()))
        } else {
            attempts.connected += 1;
            self.relay
                .try_connect()
                .timeout(self.limits.connect_timeout)
                .await
                .map_err(|error| unreachable(chain(&error)))
        };
        attempts.failed = result.as_ref().err().cloned();
        result
    }

    pub(super) async fn send(&self, event: &Event) -> Result<Answer, RelayError> {
        let mut wait = RATE_LIMIT_WAIT;
        for _ in 0..=RATE_LIMIT_WAITS {
            self.connect().await?;
            self.writes.until_ready().await;
            match self.relay.send_event(event).ok_timeout(self.limits.stall_timeout).await {
                Ok(output) => return Ok(accepted(output.status().message().unwrap_or_default())),
                // The relay said no: its own words are the error.
                Err(error) if error.kind() == ErrorKind::Rejected || is_refusal(&error.to_string()) => {
                    let words = refusal_words(&error.to_string());
                    if words.starts_with("duplicate:") {
                        return Ok(Answer::Taken);
                    }
                    if !words.starts_with("rate-limited:") {
                        return Ok(Answer::Refused(words));
                    }
                    tracing::debug!(relay = %self.relay.url(), wait_secs = wait.as_secs(), "slowing down: {words}");
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                Err(error) => {
                    return Err(RelayError::NotTaken {
                        relay: self.relay.url().to_string(),
                        event: event.id,
                        reason: chain(&error),
                    });
                }
            }
        }
        Err(RelayError::NotTaken {
            relay: self.relay.url().to_string(),
            event: event.id,
            reason: "it asks to slow down".to_owned(),
        })
    }

    pub(super) fn speaks_negentropy(&self) -> bool {
        !self.no_negentropy.load(Ordering::Relaxed)
    }
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

fn is_refusal(words: &str) -> bool {
    PREFIXES.iter().any(|prefix| words.contains(prefix))
}

/// The relay's words from their prefix on, without what a library put before them.
fn refusal_words(message: &str) -> String {
    let start = PREFIXES.iter().filter_map(|prefix| message.find(prefix)).min().unwrap_or(0);
    message.get(start..).unwrap_or(message).chars().filter(|c| !c.is_control()).take(300).collect()
}

/// An error with its causes, which carry the part that helps.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relays_own_words_are_kept() {
        assert_eq!(refusal_words("relay message: blocked: too big"), "blocked: too big");
        assert_eq!(refusal_words("no prefix\u{7}"), "no prefix");
        assert!(is_refusal("invalid: x") && !is_refusal("timeout"));
        assert_eq!(accepted("purgatory: won't be served until git data arrives"), Answer::Purgatory);
        assert_eq!(accepted(""), Answer::Taken);
    }
}
