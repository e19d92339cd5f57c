//! An event of the bot's own that is to be signed.

use std::collections::BTreeSet;

use nostr::prelude::{Event, EventBuilder, EventId, FinalizeEvent, Keys, Kind, PublicKey, Tag, Timestamp};

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

    /// A deletion request (NIP-09) for `events`, and for every version until `created_at` of what `author` has under these
    /// kinds and `d` tags. `content` says why.
    #[must_use]
    pub fn deletion<'a>(
        author: &PublicKey,
        events: impl IntoIterator<Item = EventId>,
        called: impl IntoIterator<Item = (Kind, &'a str)>,
        content: &str,
        created_at: Timestamp,
    ) -> Self {
        let mut tags: Vec<Tag> = events.into_iter().map(Tag::event).collect();
        let mut kinds = BTreeSet::new();
        for (kind, name) in called {
            let kind = kind.as_u16();
            kinds.insert(kind);
            tags.push(Tag::custom("a", [format!("{kind}:{}:{name}", author.to_hex())]));
        }
        tags.extend(kinds.iter().map(|kind| Tag::custom("k", [kind.to_string()])));
        Self { kind: Kind::EventDeletion, tags, content: content.to_owned(), created_at }
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
