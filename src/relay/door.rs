//! What a read lets in: some reads may bring anybody's events, and only those that matter are to be kept.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nostr::prelude::{Event, RelayUrl, SubscriptionId};
use nostr_sdk::{
    error::Error,
    policy::{AdmitPolicy, AdmitStatus},
};
use tokio::{runtime::Handle, time::sleep};

/// Sees every verified event of a read, and says whether it is kept and handed over.
pub type Admit = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// Stands between relays and the database.
#[derive(Clone, Default)]
pub(super) struct Door {
    reads: Arc<Mutex<HashMap<SubscriptionId, Admit>>>,
}

impl Door {
    /// `admit` is asked about the events of the read `id` for as long as the guard lives. It is over for the relay, too,
    /// `at_most` so long after it was given up; until then nothing of it is let in.
    pub(super) fn guard(&self, id: SubscriptionId, admit: Admit, at_most: Duration) -> Guarded {
        self.reads().insert(id.clone(), admit);
        Guarded { door: self.clone(), id, at_most, is_over: false }
    }

    fn reads(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Admit>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Door")
    }
}

impl AdmitPolicy for Door {
    fn admit_event<'a>(
        &'a self,
        _relay: &'a RelayUrl,
        subscription: &'a SubscriptionId,
        event: &'a Event,
    ) -> Pin<Box<dyn Future<Output = Result<AdmitStatus, Error>> + Send + 'a>> {
        let admit = self.reads().get(subscription).cloned();
        let admitted = admit.is_none_or(|admit| admit(event));
        Box::pin(async move {
            Ok(if admitted { AdmitStatus::success() } else { AdmitStatus::Rejected { reason: None } })
        })
    }
}

/// A read that is looked at; until this is dropped.
pub(super) struct Guarded {
    door: Door,
    id: SubscriptionId,
    at_most: Duration,
    is_over: bool,
}

impl Guarded {
    /// The relay has ended it.
    pub(super) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        match Handle::try_current() {
            Ok(runtime) if !self.is_over => {
                self.door.reads().insert(self.id.clone(), Arc::new(|_| false));
                let (door, id, at_most) = (self.door.clone(), self.id.clone(), self.at_most);
                runtime.spawn(async move {
                    sleep(at_most).await;
                    door.reads().remove(&id);
                });
            }
            _ => {
                self.door.reads().remove(&self.id);
            }
        }
    }
}
