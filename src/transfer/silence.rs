//! Servers that leave one request after the other without an answer are asked nothing for a while: else each of their
//! mirrors would wait as long, and whoever walks it with it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use grasp_mirror_commands::clean;
use nostr::prelude::RelayUrl;
use tokio::time::Instant;

use crate::plan::record::REASON_MAX;

/// So many requests in a row, or one large push that a server is busy with would count.
const IN_A_ROW: u32 = 3;

/// What a server is asked for. One that is silent to one of these may answer the others at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    /// What it serves.
    Look,
    /// To list its refs.
    Refs,
    /// To take a push.
    Push,
    /// To take an event.
    Event,
}

/// How long a server that does not answer is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// The first time; doubled each time.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

/// The servers that do not answer. One for all work of a program.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<HashMap<(RelayUrl, Asked), Silent>>);

#[derive(Debug)]
struct Silent {
    in_a_row: u32,
    until: Instant,
    words: String,
}

impl Silence {
    /// `server` answered, whatever it said.
    pub(super) fn answered(&self, server: &RelayUrl, asked: Asked) {
        self.known().remove(&(server.clone(), asked));
    }

    /// `server` did not answer, in the words of the error.
    pub(super) fn unanswered(&self, server: &RelayUrl, asked: Asked, words: &str, waits: Waits) {
        let now = Instant::now();
        let mut known = self.known();
        let silent = known.entry((server.clone(), asked)).or_insert_with(|| Silent {
            in_a_row: 0,
            until: now,
            words: String::new(),
        });
        // Those that were under way when it was left alone say nothing new.
        if silent.until > now {
            return;
        }
        silent.in_a_row = silent.in_a_row.saturating_add(1);
        words.clone_into(&mut silent.words);
        if let Some(again) = silent.in_a_row.checked_sub(IN_A_ROW) {
            let wait = waits.first.saturating_mul(1 << again.min(16)).min(waits.longest);
            silent.until = now + wait;
            tracing::warn!(%server, asked = ?asked, wait_secs = wait.as_secs(), words, "it does not answer; left alone for a while");
        }
    }

    /// Why `server` is asked nothing now.
    pub(super) fn wait(&self, server: &RelayUrl) -> Result<(), String> {
        let now = Instant::now();
        let known = self.known();
        let silent = known.iter().find(|((silent, _), how)| silent == server && how.until > now);
        silent.map_or(Ok(()), |(_, how)| {
            Err(clean(
                &format!("left alone for a while, since it does not answer: {}", how.words),
                REASON_MAX,
            ))
        })
    }

    /// This server, or every one, is asked again.
    pub(super) fn forget(&self, server: Option<&RelayUrl>) {
        self.known().retain(|(silent, _), _| server.is_some_and(|server| server != silent));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(RelayUrl, Asked), Silent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const WAITS: Waits = Waits { first: Duration::from_secs(30), longest: Duration::from_secs(100) };

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_left_alone_for_longer_each_time_until_it_answers() {
        let [one, other]: [RelayUrl; 2] =
            ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap());
        let silence = Silence::default();
        let ask = |asked| silence.unanswered(&one, asked, "no push within 60 s", WAITS);
        for _ in 1..IN_A_ROW {
            ask(Asked::Push);
            ask(Asked::Event);
        }
        assert_eq!(silence.wait(&one), Ok(()));
        silence.answered(&one, Asked::Event);
        ask(Asked::Event);
        assert_eq!(silence.wait(&one), Ok(()), "it began anew");
        ask(Asked::Push);
        for secs in [30, 60, 100, 100] {
            let why = silence.wait(&one).unwrap_err();
            assert_eq!(why, "left alone for a while, since it does not answer: no push within 60 s");
            assert_eq!(silence.wait(&other), Ok(()));
            // Many were under way.
            ask(Asked::Push);
            ask(Asked::Push);
            advance(Duration::from_secs(secs) - Duration::from_millis(1)).await;
            assert!(silence.wait(&one).is_err(), "{secs}");
            advance(Duration::from_millis(1)).await;
            assert_eq!(silence.wait(&one), Ok(()), "{secs}");
            ask(Asked::Push);
        }
        silence.answered(&one, Asked::Push);
        assert_eq!(silence.wait(&one), Ok(()));
        (0..IN_A_ROW).for_each(|_| ask(Asked::Refs));
        assert!(silence.wait(&one).is_err());
        silence.forget(Some(&other));
        assert!(silence.wait(&one).is_err());
        silence.forget(Some(&one));
        assert_eq!(silence.wait(&one), Ok(()));
    }
}
