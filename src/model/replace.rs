//! Events that replace each other (NIP-01): of one author, kind and `d` only the newest counts, and of equally
//! old ones the lower id.

use nostr::prelude::{Event, Timestamp};

/// Whether `event` replaces `other`.
#[must_use]
pub fn wins(event: &Event, other: &Event) -> bool {
    (event.created_at, other.id) > (other.created_at, event.id)
}

/// When an event that replaces `before` is to be dated so that it wins: `at`, or a second after it.
#[must_use]
pub fn dated_after(before: Option<&Event>, at: Timestamp) -> Timestamp {
    // A date may be copied from a stranger's event, who may have chosen the last one there is.
    let later = |event: &Event| Timestamp::from_secs(event.created_at.as_secs().saturating_add(1));
    before.map(later).map_or(at, |later| at.max(later))
}
