//! What may be signed with a maintainer's key: the one door. [`permit`] makes every [`Permitted`], and nothing else is
//! handed to a key or a remote signer.
//!
//! It is told what for, and believes nothing of the event: it compares it with what the maintainer signed last.

use std::collections::BTreeSet;

use nostr::prelude::{Event, EventId, Kind, PublicKey, Tag, Timestamp, UnsignedEvent};

use super::catalog::Repository;
use crate::model::{announcement::Announcement, server::ServerUrl, state::State};

/// What a signature is wanted for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// These servers, or some of them, are added to a maintainer's announcement.
    List(&'a BTreeSet<ServerUrl>),
    /// A server lost git data and takes it back only for a newer state: the authoritative one is said again.
    GiveBack,
}

/// Why something is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The key is none of a confirmed maintainer's.
    #[error("{0} is no confirmed maintainer of the repository")]
    NoMaintainer(PublicKey),
    /// Nothing of this kind is signed for this purpose.
    #[error("nothing of kind {0} is signed for that")]
    Kind(Kind),
    /// There is no event that it could replace.
    #[error("it would not replace anything of the same author")]
    ReplacesNothing,
    /// A private repository stays where its maintainers put it.
    #[error("the repository is private")]
    Private,
    /// It is to be dated one second after what it replaces: what anybody else signs meanwhile wins.
    #[error("it is not dated one second after what it replaces")]
    Date,
    /// Something is not as it was.
    #[error("it changes more than the servers that are listed")]
    Changes,
    /// It is already said.
    #[error("it says nothing new")]
    NothingNew,
}

/// An event that may be signed with the key of its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    event: UnsignedEvent,
    id: EventId,
}

impl Permitted {
    /// What to sign.
    #[must_use]
    pub fn event(&self) -> &UnsignedEvent {
        &self.event
    }

    /// Its id, which the signed event has, too.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Whether `signed` is exactly it, with a good signature.
    #[must_use]
    pub fn is_signed_as(&self, signed: &Event) -> bool {
        signed.id == self.id && signed.verify().is_ok()
    }
}

/// Lets `event` be signed with its author's key, if it is what `purpose` needs and nothing more.
///
/// # Errors
///
/// The rule that forbids it.
pub fn permit(
    event: UnsignedEvent,
    repository: &Repository,
    purpose: &Purpose<'_>,
) -> Result<Permitted, Forbidden> {
    let confirmed = repository.authority.as_ref().map(|authority| &authority.confirmed);
    if confirmed.is_none_or(|confirmed| !confirmed.contains(&event.pubkey)) {
        return Err(Forbidden::NoMaintainer(event.pubkey));
    }
    if repository.announcements.iter().any(|announcement| announcement.private) {
        return Err(Forbidden::Private);
    }
    match (event.kind, purpose) {
        (Kind::GitRepoAnnouncement, Purpose::List(servers)) => {
            let by_author =
                repository.announcements.iter().find(|announcement| announcement.author() == event.pubkey);
            let before = by_author.ok_or(Forbidden::ReplacesNothing)?;
            is_next(event.created_at, before.created_at())?;
            if event.content != before.event.content {
                return Err(Forbidden::Changes);
            }
            only_adds(before, event.tags.as_slice(), servers)?;
        }
        (Kind::RepoState, Purpose::GiveBack) => {
            let state: &State = repository.state.as_ref().ok_or(Forbidden::ReplacesNothing)?;
            is_next(event.created_at, state.event.created_at)?;
            if event.content != state.event.content || event.tags != state.event.tags {
                return Err(Forbidden::Changes);
            }
        }
        (kind, _) => return Err(Forbidden::Kind(kind)),
    }
    let id = event.compute_id();
    Ok(Permitted { event: UnsignedEvent { id: Some(id), ..event }, id })
}

fn is_next(date: Timestamp, before: Timestamp) -> Result<(), Forbidden> {
    let next = before.as_secs().checked_add(1) == Some(date.as_secs());
    if next { Ok(()) } else { Err(Forbidden::Date) }
}

/// Whether `tags` are those of `before` in the same order, but that the first `clone` and the first `relays` tag, or a
/// new one at the end where there is none, go on with addresses of `servers` that are not listed yet.
fn only_adds(before: &Announcement, tags: &[Tag], servers: &BTreeSet<ServerUrl>) -> Result<(), Forbidden> {
    let old = before.event.tags.as_slice();
    let (kept, new) = tags.split_at_checked(old.len()).ok_or(Forbidden::Changes)?;
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut added = 0;
    let nothing: &[String] = &[];
    let kept = old.iter().zip(kept).map(|(old, tag)| (Some(old), tag));
    for (old, tag) in kept.chain(new.iter().map(|tag| (None, tag))) {
        let is_first = seen.insert(tag.kind());
        if old == Some(tag) {
            continue;
        }
        let said = old.map_or(nothing, Tag::as_slice);
        let more = match old {
            Some(_) => tag.as_slice().strip_prefix(said),
            None => tag.as_slice().get(1..),
        };
        match more {
            Some(more) if is_first && !more.is_empty() => {
                added += are_missing(before, tag.kind(), more, servers)?
            }
            _ => return Err(Forbidden::Changes),
        }
    }
    if added > 0 { Ok(()) } else { Err(Forbidden::NothingNew) }
}

/// How many they are, if `values` are addresses of `servers` as a tag called `name` has them, each once, and none is said
/// already.
fn are_missing(
    before: &Announcement,
    name: &str,
    values: &[String],
    servers: &BTreeSet<ServerUrl>,
) -> Result<usize, Forbidden> {
    let address = |server: &ServerUrl| match name {
        "clone" if !before.has_clone_at(server) => {
            Some(server.clone_url(&before.author(), &before.coordinate.identifier).to_string())
        }
        "relays" if !before.has_relay(server) => Some(server.to_string()),
        _ => None,
    };
    let mut left: BTreeSet<String> = servers.iter().filter_map(address).collect();
    if values.iter().all(|value| left.remove(value)) { Ok(values.len()) } else { Err(Forbidden::Changes) }
}

#[cfg(test)]
mod tests;
