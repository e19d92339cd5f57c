//! Hosts of clone URLs that are not asked for a while: they did not answer, or said when they want to be asked again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

use crate::{git::wire::WireError, model::address::shown};

/// So long a host is believed that wants to be left alone.
const TOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// One for all work of a program: many repositories and pull requests may name the same host.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<HashMap<String, Wait>>);

#[derive(Debug, Clone, Copy)]
struct Wait {
    until: Instant,
    /// Whether the host said so itself.
    told: bool,
}

impl Hosts {
    /// Why `url` is not asked now.
    pub(super) fn wait(&self, url: &Url) -> Result<(), String> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wait) = hosts.get(&host(url)).copied() else { return Ok(()) };
        let left = wait.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            hosts.remove(&host(url));
            return Ok(());
        }
        let why = if wait.told { "wants to be left alone" } else { "did not answer before" };
        Err(format!("{} is not asked: its host {why} (for {} s more)", shown(url), left.as_secs() + 1))
    }

    /// Takes note of how asking `url` went wrong. A host that does not answer costs its timeout once in `silence`.
    pub(super) fn note(&self, url: &Url, error: &WireError, silence: Duration) {
        let (told, wait) = match error {
            WireError::Unreachable { .. } | WireError::TimedOut { .. } => (false, silence),
            WireError::Status { retry_after_secs: Some(secs), .. } => {
                (true, Duration::from_secs(*secs).min(TOLD_MAX))
            }
            _ => return,
        };
        let wait = Wait { until: Instant::now() + wait, told };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host(url), wait);
    }
}

fn host(url: &Url) -> String {
    format!("{:?}:{:?}", url.host(), url.port_or_known_default())
}
