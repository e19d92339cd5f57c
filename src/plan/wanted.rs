//! What each server is to have of a repository, from what the maintainers signed and the bot's own copies.

use std::collections::BTreeSet;

use nostr::prelude::{Event, EventId, Kind, PublicKey};
use sha2::{Digest, Sha256};

use super::{catalog::Repository, converge::Wanted, placement::Place};
use crate::model::{placement::Placement, server::ServerUrl, state::State};

/// What `server` is to have of `repository`; `copy` is the bot's announcement and state.
#[must_use]
pub fn wanted(
    repository: &Repository,
    state: &State,
    server: &ServerUrl,
    place: &Place,
    copy: &[Event],
    conversation: &[EventId],
) -> Wanted {
    let (governing, attached) = match place.placement {
        Placement::Namespace => {
            let order = repository.introduced_by(&repository.coordinate.owner);
            let owners = order.iter().map(|(announcement, _)| announcement.id()).chain([state.event.id]);
            // A copy of another name introduces nobody's announcement, and has no git data for the owner's state.
            let same_name = place.path.identifier == repository.coordinate.identifier;
            (copy.iter().map(|event| event.id).collect(), owners.filter(|_| same_name).collect())
        }
        Placement::Lead | Placement::Signed if place.own => {
            let lead = repository.lead().unwrap_or(repository.coordinate.owner);
            let (leads, attached) = listed_events(repository, &lead, &state.event);
            (copy.iter().map(|event| event.id).chain(leads).collect(), attached)
        }
        _ => {
            let (governing, mut attached) = listed_events(repository, &place.path.owner, &state.event);
            // A co-maintainer's announcement belongs where the others' are: who follows them finds its servers.
            attached.extend(copy.iter().filter(|event| joins(repository, event)).map(|event| event.id));
            (governing, attached)
        }
    };
    Wanted {
        repository: repository.coordinate.clone(),
        server: server.clone(),
        place: place.clone(),
        state: governing.last().copied(),
        governing,
        refs: state.refs.clone(),
        attached,
        pull_requests: Vec::new(),
        conversation: conversation.to_vec(),
    }
}

/// Whether `copy` is the announcement by which the bot accepts that it is a maintainer.
fn joins(repository: &Repository, copy: &Event) -> bool {
    copy.kind == Kind::GitRepoAnnouncement
        && repository.invites(&copy.pubkey)
        && copy.tags.identifier().is_some_and(|name| name == repository.coordinate.identifier)
}

/// What makes a server take a repository that one of its maintainers listed there: the lister's announcement,
/// those through which it leads to the state's author, and the state. The other maintainers' announcements are
/// attached.
fn listed_events(repository: &Repository, lister: &PublicKey, state: &Event) -> (Vec<EventId>, Vec<EventId>) {
    let order = repository.introduced_by(lister);
    let mut needed = BTreeSet::from([0]);
    let mut at = order.iter().position(|(announcement, _)| announcement.author() == state.pubkey);
    while let Some(place) = at {
        needed.insert(place);
        at = order.get(place).and_then(|(_, host)| *host);
    }
    let ids = order.iter().map(|(announcement, _)| announcement.id()).enumerate();
    let (first, attached): (Vec<_>, Vec<_>) = ids.partition(|(place, _)| needed.contains(place));
    let id = |(_, id)| id;
    (first.into_iter().map(id).chain([state.id]).collect(), attached.into_iter().map(id).collect())
}

/// A short name for a set of events.
#[must_use]
pub fn fingerprint(ids: &[EventId]) -> String {
    let sorted: BTreeSet<&EventId> = ids.iter().collect();
    let mut hasher = Sha256::new();
    for id in sorted {
        hasher.update(id.as_bytes());
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
