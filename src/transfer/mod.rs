//! Carries out what was planned, and reports what it saw.
//!
//! [`Transfer::bring`] fetches, [`Transfer::converge`] walks one mirror to its end, asking the plan for the next
//! step after each. Work is bounded per server and in all, and every address that only an event names passes
//! the [`guard`].

pub mod fetch;
pub mod guard;
pub mod mirror;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::guard::Guard;
use crate::{git::wire::GitHttp, model::server::ServerUrl, relay::Relays};

/// A push of so many bytes is a large one.
const LARGE: u64 = 8 << 20;

/// Small pushes to one server at a time.
const SMALL_AT_ONCE: usize = 8;

/// What bounds the work in all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Large pushes to one server at a time.
    pub per_server: usize,
    /// Free disk space, in bytes, below which nothing is fetched.
    pub disk_floor_bytes: u64,
    /// How long one mirror, or all sources of one repository together, may take in one run.
    pub total_timeout: Duration,
}

/// The hands of a run.
#[derive(Debug)]
pub struct Transfer {
    relays: Arc<Relays>,
    git: GitHttp,
    guard: Guard,
    limits: Limits,
    pushes: Mutex<HashMap<ServerUrl, PushPlaces>>,
    /// Hosts that did not answer a fetch in this run, with their ports.
    silent: Mutex<HashSet<String>>,
}

impl Transfer {
    /// Works over `relays` and `git` within `limits`.
    #[must_use]
    pub fn new(relays: Arc<Relays>, git: GitHttp, guard: Guard, limits: Limits) -> Self {
        Self { relays, git, guard, limits, pushes: Mutex::default(), silent: Mutex::default() }
    }

    /// A place for a push of so many bytes to `server`. A server holds what it is sent in memory, so large ones wait
    /// for each other; small ones go beside them.
    async fn push_place(&self, server: &ServerUrl, pack_bytes: u64) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut all = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
            let places = all.entry(server.clone()).or_insert_with(|| PushPlaces::new(self.limits.per_server));
            Arc::clone(if pack_bytes < LARGE { &places.small } else { &places.large })
        };
        // Nobody closes them, so there is always one.
        places.acquire_owned().await.ok()
    }
}

/// The places for pushes at one server.
#[derive(Debug)]
struct PushPlaces {
    large: Arc<Semaphore>,
    small: Arc<Semaphore>,
}

impl PushPlaces {
    fn new(large: usize) -> Self {
        Self { large: Arc::new(Semaphore::new(large)), small: Arc::new(Semaphore::new(SMALL_AT_ONCE)) }
    }
}

/// Runs blocking git work off the async threads.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
