//! An event of the bot's own that is to be signed.

use nostr::prelude::{Event, EventBuilder, FinalizeEvent, Keys, Kind, Tag, Timestamp};

use super::replace::dated_after;

/// What the bot has to say, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The kind of event.
    pub kind: Kind,
    /// Tags in order.
    pub tags: Vec<Tag>,
    /// The content as it is published.
    pub content: String,
    /// When it is to be dated.
    pub created_at: Timestamp,
}

/// An event could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("an event of kind {kind} could not be signed: {reason}")]
pub struct SignError {
    /// The kind of event.
    pub kind: Kind,
    /// Why.
    pub reason: String,
}

impl Draft {
    /// What is to be signed to replace `existing`, dated after it; `None` when it already says the same.
    #[must_use]
    pub fn unless_said(mut self, existing: Option<&Event>) -> Option<Self> {
        if existing.is_some_and(|event| event.content == self.content && event.tags.iter().eq(&self.tags)) {
            return None;
        }
        self.created_at = dated_after(existing, self.created_at);
        Some(self)
    }

    /// The event, signed with `keys`.
    ///
    /// # Errors
    ///
    /// [`SignError`] when the signature cannot be made.
    pub fn sign(self, keys: &Keys) -> Result<Event, SignError> {
        let kind = self.kind;
        EventBuilder::new(kind, self.content)
            .tags(self.tags)
            .custom_created_at(self.created_at)
            .finalize(keys)
            .map_err(|error| SignError { kind, reason: error.to_string() })
    }
}
