//! The signed state of a repository (NIP-34, kind 30618): the only truth about its refs.

use nostr::prelude::{Event, Kind, Tag};

use super::{
    coordinate::Coordinate,
    refs::{ObjectId, RefName, Refs},
};

/// What a state event declares.
#[derive(Clone, Debug)]
pub struct State {
    /// The event it was read from.
    pub event: Event,
    /// Whose state of which repository.
    pub coordinate: Coordinate,
    /// Heads and tags.
    pub refs: Refs,
    /// The branch `HEAD` names, when it is one.
    pub head: Option<RefName>,
    /// The tags that carry refs, peeled entries and `HEAD`, as they stand, to be copied into another state.
    pub ref_tags: Vec<Tag>,
}

/// Why a state event cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another kind, or no `d`.
    #[error("not a repository state (kind 30618 with a d tag)")]
    NotAState,
    /// One ref is broken, so the state as a whole cannot be served exactly.
    #[error("the state names {name:?} with {value:?}: {reason}")]
    BadRef {
        /// The ref's name.
        name: String,
        /// What it points at.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

impl State {
    /// Reads `event`.
    ///
    /// Peeled entries (`refs/tags/v1^{}`) and anything outside heads and tags are no refs to mirror and are
    /// passed over. `HEAD` may be written `ref: refs/heads/x` or `refs/heads/x`.
    ///
    /// # Errors
    ///
    /// [`StateError::BadRef`] for a malformed ref name, value, or a name given twice with different values: a
    /// server only takes a push that matches the whole state, so none of it can be mirrored.
    pub fn read(event: Event) -> Result<Self, StateError> {
        let identifier = super::announcement::first(&event, "d").ok_or(StateError::NotAState)?.to_owned();
        if event.kind != Kind::RepoState {
            return Err(StateError::NotAState);
        }
        let (mut refs, mut head, mut ref_tags) = (Refs::new(), None, Vec::new());
        for tag in event.tags.iter() {
            let [name, value, ..] = tag.as_slice() else { continue };
            if name == "HEAD" {
                head = value.strip_prefix("ref: ").unwrap_or(value).parse::<RefName>().ok();
                ref_tags.push(tag.clone());
            } else if name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
                ref_tags.push(tag.clone());
                if name.ends_with("^{}") {
                    continue;
                }
                let bad =
                    |reason: String| StateError::BadRef { name: name.clone(), value: value.clone(), reason };
                let parsed: RefName = name.parse().map_err(|error| bad(format!("{error}")))?;
                let target = ObjectId::from_hex(value.as_bytes())
                    .map_err(|_| bad("not a SHA-1 object name in hex".to_owned()))?;
                if target.is_null() {
                    return Err(bad("the null object is no value for a ref".to_owned()));
                }
                if refs.insert(parsed, target).is_some_and(|before| before != target) {
                    return Err(bad("given twice with different values".to_owned()));
                }
            }
        }
        // A symbolic HEAD without its branch would be refused or dangle.
        let head = head.filter(|branch| branch.is_branch() && refs.contains_key(branch));
        Ok(Self { coordinate: Coordinate::new(event.pubkey, identifier), refs, head, ref_tags, event })
    }
}
