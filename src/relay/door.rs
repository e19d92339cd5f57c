//! What a read lets in: some reads may bring anybody's events, and only those that matter are to be kept.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use nostr::prelude::{Event, RelayUrl, SubscriptionId};
use nostr_sdk::{
    error::Error,
    policy::{AdmitPolicy, AdmitStatus},
};

/// Sees every verified event of a read, and says whether it is kept and handed over.
pub type Admit = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// Stands between relays and the database.
#[derive(Clone, Default)]
pub(super) struct Door {
    reads: Arc<Mutex<HashMap<SubscriptionId, Admit>>>,
}

impl Door {
    /// `admit` is asked about the events of the read `id` for as long as the guard lives.
    pub(super) fn guard(&self, id: SubscriptionId, admit: Admit) -> Guarded {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), admit);
        Guarded { door: self.clone(), id }
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
        let admit = self.reads.lock().unwrap_or_else(PoisonError::into_inner).get(subscription).cloned();
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
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.door.reads.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
