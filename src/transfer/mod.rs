//! Carries out what was planned, and reports what it saw.
//!
//! [`Transfer::bring`] fetches, [`Transfer::converge`] walks one mirror to its end, asking the plan for the next
//! step after each. Work is bounded per server and in all, and every address that only an event names passes
//! the [`guard`].

pub mod fetch;
pub mod guard;
pub mod left_alone;
pub mod mirror;
pub mod newer;
mod pushes;
mod returns;
pub mod supply;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc},
    time::Duration,
};

use nostr::prelude::{Event, RelayUrl, Timestamp};
use tokio::sync::{Semaphore, oneshot};

pub use self::left_alone::{Asked, Waits};
use self::{
    guard::Guard,
    left_alone::{CoolDowns, LeftAlone},
    pushes::Pushes,
    returns::Returns,
};
use crate::{
    git::wire::GitHttp,
    plan::{converge::Answer, retry::told_secs},
    relay::{RelayError, Relays},
};

/// What bounds the work in all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Large pushes to one server at a time.
    pub per_server: usize,
    /// Free disk space, in bytes, below which nothing is fetched.
    pub disk_floor_bytes: u64,
    /// How long one mirror, or all sources of one repository together, may take in one run.
    pub total_timeout: Duration,
    /// For how long a host is not asked for git data after it did not answer, and a server for anything when it does so
    /// time and again.
    pub silence: Waits,
}

/// The hands of a run.
#[derive(Debug)]
pub struct Transfer {
    relays: Arc<Relays>,
    git: GitHttp,
    guard: Guard,
    limits: Limits,
    common: Arc<Common>,
}

/// What all [`Transfer`]s of a program have in common.
#[derive(Debug, Default)]
pub struct Common {
    pushes: Pushes,
    left_alone: LeftAlone,
    returns: Returns,
}

impl Common {
    /// Sends `event` to a server or relay, unless that wants to be left alone for a while; it may say so now.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub async fn send(&self, relays: &Relays, relay: &RelayUrl, event: &Event) -> Result<Answer, RelayError> {
        if let Some((_, reason)) = self.left_alone.told(relay) {
            return Err(RelayError::RateLimited { relay: relay.to_string(), reason });
        }
        let sent = relays.send(relay, event).await;
        if let Err(RelayError::RateLimited { reason, .. }) = &sent
            && let Some(secs) = told_secs(reason)
        {
            self.left_alone.note_told(relay, secs, reason);
        }
        sent
    }

    /// Who wants to be left alone and until when, if somebody has said so since this was last asked.
    pub fn new_cool_downs(&self, now: Timestamp) -> Option<CoolDowns> {
        self.left_alone.news(now)
    }

    /// Leaves alone who said so to an earlier process.
    pub fn recall_cool_downs(&self, known: CoolDowns, now: Timestamp) {
        self.left_alone.recall(known, now);
    }

    /// Somebody asked for it: servers that did not answer are asked again.
    pub fn forget_silence(&self) {
        self.left_alone.forget_silence(None);
    }

    /// Nobody hears the server at `relay`.
    pub fn is_lost(&self, relay: &RelayUrl) {
        self.returns.lost(relay);
    }

    /// The server at `relay` is heard, and was away perhaps: it is asked again.
    pub fn is_back(&self, relay: &RelayUrl) {
        self.left_alone.forget_silence(Some(relay));
        self.returns.back(relay);
    }

    /// The server at `relay` is not listened to any more.
    pub fn is_left(&self, relay: &RelayUrl) {
        self.returns.forget(relay);
    }

    /// Breaks off the pushes that go on without their walks.
    pub fn break_off(&self) {
        self.pushes.break_off();
    }
}

impl Transfer {
    /// Whether the server at `relay` is asked anything now.
    ///
    /// # Errors
    ///
    /// Why not: it does not answer.
    pub fn is_heard(&self, relay: &RelayUrl) -> Result<(), String> {
        self.common.left_alone.is_heard(relay)
    }

    /// The server at `relay` was asked for something; `silence` is the reason when it did not answer.
    pub fn note_answer(&self, relay: &RelayUrl, asked: Asked, silence: Option<&str>) {
        let known = &self.common.left_alone;
        match silence {
            Some(words) => known.unanswered(relay, asked, words, self.limits.silence),
            None => known.answered(relay, asked),
        }
    }

    /// Works over `relays` and `git` within `limits`, beside others that have the same `common`.
    #[must_use]
    pub fn new(relays: Arc<Relays>, git: GitHttp, guard: Guard, limits: Limits, common: Arc<Common>) -> Self {
        Self { relays, git, guard, limits, common }
    }
}

/// Git work at the same time: fewer than the program has threads for what blocks. A pack for a server may take minutes, and
/// the store is read on those threads, too.
const GIT_AT_ONCE: usize = 10;

/// Runs blocking git work off the async threads.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    static PLACES: Semaphore = Semaphore::const_new(GIT_AT_ONCE);
    // Closed never. Work goes on when nobody waits for it any more, and keeps its place.
    let place = PLACES.acquire().await;
    let work = move || {
        let _place = place;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => resume_unwind(error.into_panic()),
    }
}

/// Runs blocking work that nobody waits for on a thread of its own, called `name` (at most 15 bytes are shown),
/// that gives way to everything else on the machine.
///
/// Not one of the runtime's threads: a priority once lowered stays so, and a runtime that ends would wait for
/// the work. When the caller goes, the work goes on until it is done or the process ends.
pub(crate) async fn low_priority<T, E, W>(name: &str, work: W) -> Result<T, E>
where
    W: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (hand_over, handed) = mpsc::channel::<W>();
    let (finish, finished) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        lower_priority();
        if let Ok(work) = handed.recv() {
            // Nobody may be waiting any more.
            let _ = finish.send(catch_unwind(AssertUnwindSafe(work)));
        }
    });
    if let Err(error) = thread {
        tracing::debug!(name, %error, "no thread of its own");
        return blocking(work).await;
    }
    match hand_over.send(work) {
        Ok(()) => match finished.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => resume_unwind(Box::new(error)),
        },
        Err(mpsc::SendError(work)) => blocking(work).await,
    }
}

/// Only where a priority is a thread's: elsewhere this would slow down the whole process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!(%error, "the priority was not lowered");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn git_leaves_threads_to_the_store() {
        let threads = GIT_AT_ONCE + 1;
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(threads).enable_all().build();
        runtime.unwrap().block_on(async {
            let (end, ends) = mpsc::channel::<()>();
            let ends = Arc::new(std::sync::Mutex::new(ends));
            let work = || {
                let ends = Arc::clone(&ends);
                tokio::spawn(blocking(move || Ok::<_, ()>(ends.lock().unwrap().recv().is_err())))
            };
            let works: Vec<_> = (0..2 * threads).map(|_| work()).collect();
            // Each begins, or waits for its place.
            tokio::task::yield_now().await;
            let read = tokio::task::spawn_blocking(|| "read");
            let read = tokio::time::timeout(Duration::from_secs(60), read).await;
            assert_eq!(read.unwrap().unwrap(), "read");
            drop(end);
            for work in works {
                assert!(work.await.unwrap().unwrap());
            }
        });
    }

    #[tokio::test]
    async fn work_of_low_priority_leaves_the_others_theirs() {
        let done = low_priority("attic", || {
            let name = std::thread::current().name().map(str::to_owned);
            Ok::<_, ()>((name, rustix::process::getpriority_process(None).unwrap()))
        });
        let (name, there) = done.await.unwrap();
        assert_eq!(name.as_deref(), Some("attic"));
        let here = rustix::process::getpriority_process(None).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(there, 10.max(here));
        }
        assert_eq!(low_priority("attic", || Err::<(), _>("no")).await, Err("no"));
    }
}
