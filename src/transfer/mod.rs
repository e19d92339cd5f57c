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

use tokio::sync::Semaphore;

use self::guard::Guard;
use crate::{git::wire::GitHttp, model::server::ServerUrl, relay::Relays};

/// What bounds the work in all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pushes to one server at a time.
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
    pushes: Mutex<HashMap<ServerUrl, Arc<Semaphore>>>,
    /// Hosts that did not answer a fetch in this run, with their ports.
    silent: Mutex<HashSet<String>>,
}

impl Transfer {
    /// Works over `relays` and `git` within `limits`.
    #[must_use]
    pub fn new(relays: Arc<Relays>, git: GitHttp, guard: Guard, limits: Limits) -> Self {
        Self { relays, git, guard, limits, pushes: Mutex::default(), silent: Mutex::default() }
    }

    /// The places for pushes at one server.
    fn push_places(&self, server: &ServerUrl) -> Arc<Semaphore> {
        let mut all = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Semaphore::new(self.limits.per_server));
        Arc::clone(all.entry(server.clone()).or_insert_with(make))
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
