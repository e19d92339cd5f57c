//! What the bot says in its own namespace: a copy of a repository under the bot's key, for servers that no
//! maintainer listed.
//!
//! A server takes the copy because the bot announces it, governs it by the bot's state, which is a copy of the
//! authoritative one, and then also accepts the owner's announcement, state and conversation, because the
//! bot's announcement names the owner (`u`, `maintainers`). Where the owner's announcement names a lead (`M`), the
//! bot's follows that lead instead: the lead's own state governs the copy, and the bot signs none. Neither does it where
//! a maintainer lists it as one, too: then it is no copy (no `u`), but a maintainer's announcement like the others.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Kind, PublicKey, Tag};

use super::catalog::Repository;
use crate::model::{
    announcement::{Announcement, first, values},
    coordinate::Coordinate,
    draft::Draft,
    server::ServerUrl,
    state::State,
};

/// The identifier of each repository's copy in the bot's namespace.
///
/// A copy keeps the owner's `d`. Where two owners use the same `d`, who has it already (in the bot's published
/// announcements, `own`) keeps it, else who announced first; the others get `d-<first eight hex digits of the
/// owner's key>`.
#[must_use]
pub fn identifiers(repositories: &[Repository], own: &[Announcement]) -> BTreeMap<Coordinate, String> {
    let mut assigned: BTreeMap<Coordinate, String> = BTreeMap::new();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let joined = |copy: &Announcement| {
        let is_it = |repository: &&Repository| {
            repository.coordinate.identifier == copy.coordinate.identifier
                && repository.invites(&copy.author())
        };
        repositories.iter().find(is_it).map(|repository| repository.coordinate.clone())
    };
    for copy in own {
        if let Some(upstream) = copy.upstream.clone().or_else(|| joined(copy))
            && used.insert(copy.coordinate.identifier.clone())
        {
            assigned.entry(upstream).or_insert_with(|| copy.coordinate.identifier.clone());
        }
    }
    let mut order: Vec<&Repository> = repositories.iter().collect();
    order.sort_by_key(|repository| {
        (repository.announcement().map(Announcement::created_at), repository.coordinate.clone())
    });
    for repository in order {
        let coordinate = &repository.coordinate;
        if assigned.contains_key(coordinate) {
            continue;
        }
        let hex = coordinate.owner.to_hex();
        let name = [coordinate.identifier.clone()]
            .into_iter()
            .chain(
                [8, hex.len()]
                    .map(|digits| format!("{}-{}", coordinate.identifier, hex.get(..digits).unwrap_or(&hex))),
            )
            .find(|name| !used.contains(name));
        if let Some(name) = name {
            used.insert(name.clone());
            assigned.insert(coordinate.clone(), name);
        }
    }
    assigned
}

/// The bot's announcement of its copy of `repository` on `servers`, which follows `lead` where there is one.
#[must_use]
pub fn announcement(
    repository: &Repository,
    bot: &PublicKey,
    identifier: &str,
    servers: &BTreeSet<ServerUrl>,
    lead: Option<PublicKey>,
) -> Option<Draft> {
    let owner = repository.announcement()?;
    let owner_hex = repository.coordinate.owner.to_hex();
    let mut tags = vec![Tag::identifier(identifier)];
    for name in ["name", "description"] {
        if let Some(value) = first(&owner.event, name) {
            tags.push(Tag::custom(name, [value]));
        }
    }
    let web = values(&owner.event, "web");
    if !web.is_empty() {
        tags.push(Tag::custom("web", web));
    }
    let clone = servers.iter().map(|server| server.clone_url(bot, identifier).to_string());
    tags.push(Tag::custom("clone", clone));
    tags.push(Tag::custom("relays", servers.iter().map(ToString::to_string)));
    let copied = owner.event.tags.iter().filter(|tag| match tag.as_slice() {
        [name, _, marker, ..] if name == "r" => marker == "euc",
        [name, ..] => name == "t",
        [] => false,
    });
    tags.extend(copied.cloned());
    let joins = repository.invites(bot) && identifier == repository.coordinate.identifier;
    if !joins {
        let hint = owner.relays.first().cloned().unwrap_or_default();
        tags.push(Tag::custom("u", [repository.coordinate.to_string(), hint, owner_hex.clone()]));
    }
    tags.push(match lead {
        Some(lead) => Tag::custom("M", [lead.to_hex()]),
        None => Tag::custom("maintainers", [owner_hex]),
    });
    let alt = format!("mirror of the git repository {}", repository.coordinate.for_people());
    tags.push(Tag::custom("alt", [alt]));
    Some(Draft {
        kind: Kind::GitRepoAnnouncement,
        tags,
        content: String::new(),
        // Never the clock's: a bot that lost its disk signs the same event again.
        created_at: owner.created_at(),
    })
}

/// The bot's state for its copy: the authoritative one, ref by ref, under another `d`.
#[must_use]
pub fn state(authoritative: &State, identifier: &str) -> Draft {
    let mut tags = vec![Tag::identifier(identifier)];
    tags.extend(authoritative.ref_tags.iter().cloned());
    let created_at = authoritative.event.created_at;
    Draft { kind: Kind::RepoState, tags, content: String::new(), created_at }
}
