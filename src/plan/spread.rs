//! Which servers a repository is brought to, of those that the policy leaves: all of them, or as many as copies are
//! wanted.
//!
//! Servers are chosen by rendezvous hashing (highest random weight): each has a weight of its own for each repository,
//! and those of the greatest weight are taken. So whoever computes it comes to the same servers, every server gets its
//! share, and a new server moves few copies. What is there already stays, and one that is down does, too, until it
//! has been down for longer than a day.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use nostr::prelude::PublicKey;
use sha2::{Digest, Sha256};

use super::{
    catalog::Repository,
    placement::{Grasp, Place, places},
};
use crate::model::{
    coordinate::{Coordinate, npub},
    placement::Placement,
    policy::{Blocked, Policy, Reach},
    server::ServerUrl,
};

/// A server that has been down for so long, in seconds, is lost.
pub const LOST_AFTER_SECS: u64 = 24 * 3_600;

/// A server, as far as the choice goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it said it is.
    pub grasp: Grasp,
    /// Whether everything may be brought there; else only that for which an exception names it.
    pub is_general: bool,
    /// Whether only maintainers name it, and the operator does not.
    pub is_found: bool,
    /// Whether it answers.
    pub is_up: bool,
    /// Whether it has been down for longer than a day.
    pub is_lost: bool,
}

/// What goes for repositories without exceptions, as `[mirror]` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// How far to spread.
    pub reach: Reach,
    /// On how many servers to keep a copy; `None` means all.
    pub copies_wanted: Option<u32>,
}

/// Where a repository goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Its mirrors.
    pub places: BTreeMap<ServerUrl, Place>,
    /// Where it would have one but for a rule about the server.
    pub barred: BTreeMap<ServerUrl, (Place, Blocked)>,
    /// Where it has none, and why.
    pub left_out: BTreeMap<ServerUrl, LeftOut>,
    /// How many copies there should be.
    pub wanted: usize,
}

/// Why a repository has no mirror on a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// Its own table of the configuration names other servers.
    #[error("{0} servers does not name it")]
    OtherServers(String),
    /// The server is named for others only.
    #[error("only exceptions for others in [policy] name it")]
    ForOthers,
    /// It does not speak GRASP.
    #[error("no GRASP server: {0}")]
    NotGrasp(String),
    /// No maintainer lists it, and that is needed.
    #[error("{0} placement = \"listed\", and no maintainer's announcement lists it")]
    NotListed(String),
    /// There is no name for a copy.
    #[error("not listed, and all names for a copy are taken")]
    NoName,
    /// A rule names the servers that are used; neither the operator nor a maintainer of this repository names this one.
    #[error("{0}")]
    NotAllowed(Blocked),
    /// Others come first.
    #[error("not chosen: {table} copies_wanted = {wanted}, and {}", if *.lost { "it has been down for longer than a day" } else { "other servers come first" })]
    NotChosen {
        /// The table of the configuration that says so.
        table: String,
        /// How many copies are wanted.
        wanted: u32,
        /// Whether it has been down for longer than a day.
        lost: bool,
    },
}

/// Where `repository` goes among `servers`, those included that the policy denies. `holds` says where it has a
/// mirror already; `copy` is its identifier in the bot's namespace ([`super::namespace::identifiers`]).
#[must_use]
pub fn spread(
    repository: &Repository,
    servers: &BTreeMap<ServerUrl, Candidate>,
    holds: impl Fn(&ServerUrl) -> bool,
    policy: &Policy,
    usual: Usual,
    (bot, copy): (&PublicKey, &str),
) -> Spread {
    let name = &repository.coordinate;
    let exception = policy.exception(name);
    let table = |table: Option<String>, usual: &str| table.unwrap_or_else(|| usual.to_owned());
    let mut spread = Spread::default();
    let mut open: BTreeMap<ServerUrl, Grasp> = BTreeMap::new();
    for (url, candidate) in servers {
        let left_out = match &exception.servers {
            Some(only) if only.contains(url) => None,
            Some(_) => {
                let table = policy.table(name, |exception| exception.servers.is_some());
                Some(LeftOut::OtherServers(table.unwrap_or_default()))
            }
            None => (!candidate.is_general).then_some(LeftOut::ForOthers),
        };
        match left_out {
            Some(left_out) => {
                spread.left_out.insert(url.clone(), left_out);
            }
            None => {
                open.insert(url.clone(), candidate.grasp.clone());
            }
        }
    }
    let reach = exception.reach.unwrap_or(usual.reach);
    let mut placed = places(repository, &open, reach, bot, copy);
    for (url, grasp) in open.into_iter().filter(|(url, _)| !placed.contains_key(url)) {
        let left_out = match grasp {
            Grasp::NotGrasp(reason) => LeftOut::NotGrasp(reason),
            _ if reach == Reach::Listed => {
                let own = policy.table(name, |exception| exception.reach.is_some());
                LeftOut::NotListed(table(own, "[mirror]"))
            }
            _ => LeftOut::NoName,
        };
        spread.left_out.insert(url, left_out);
    }
    placed.retain(|url, place| match policy.admits_server(url) {
        Ok(()) => true,
        Err(rule @ Blocked::NotAllowed(_))
            if servers.get(url).is_some_and(|candidate| candidate.is_found)
                && repository.listed_by(url).is_none() =>
        {
            // Whoever names a few servers does not want to hear of all the others, for each repository.
            spread.left_out.insert(url.clone(), LeftOut::NotAllowed(rule));
            false
        }
        Err(rule) => {
            spread.barred.insert(url.clone(), (place.clone(), rule));
            false
        }
    });
    spread.wanted = placed.len();
    if let Some(wanted) = exception.copies_wanted.or(usual.copies_wanted) {
        spread.wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let standing = |url: &ServerUrl| {
            let candidate = servers.get(url);
            Standing {
                // What the bot had listed is its own choice.
                is_listed: repository.listed_by(url).is_some() && !repository.signed_on.contains(url),
                is_held: holds(url) || repository.signed_on.contains(url),
                is_up: candidate.is_some_and(|candidate| candidate.is_up),
                is_lost: candidate.is_some_and(|candidate| candidate.is_lost),
            }
        };
        let standings: BTreeMap<&ServerUrl, Standing> =
            placed.keys().map(|url| (url, standing(url))).collect();
        let chosen = choose(name, &standings, spread.wanted);
        let lost: BTreeSet<ServerUrl> = placed.keys().filter(|url| standing(url).is_lost).cloned().collect();
        placed.retain(|url, _| {
            let stays = chosen.contains(url);
            if !stays {
                let own = policy.table(name, |exception| exception.copies_wanted.is_some());
                let (table, lost) = (table(own, "[mirror]"), lost.contains(url));
                spread.left_out.insert(url.clone(), LeftOut::NotChosen { table, wanted, lost });
            }
            stays
        });
    }
    spread.places = placed;
    spread
}

/// How one server stands to one repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    is_listed: bool,
    is_held: bool,
    is_up: bool,
    is_lost: bool,
}

/// The servers for `wanted` copies: all that maintainers list, and of the others those that have it already, those that
/// answer, and those of the greatest weight, in this order; what is lost comes last, and where it is listed it does not
/// count.
fn choose(
    repository: &Coordinate,
    servers: &BTreeMap<&ServerUrl, Standing>,
    wanted: usize,
) -> BTreeSet<ServerUrl> {
    let (listed, mut others): (Vec<_>, Vec<_>) =
        servers.iter().map(|(url, standing)| (*url, *standing)).partition(|(_, standing)| standing.is_listed);
    let there = listed.iter().filter(|(_, standing)| !standing.is_lost).count();
    others.sort_by_cached_key(|(url, standing)| {
        (standing.is_lost, !standing.is_held, !standing.is_up, Reverse(weight(repository, url)), *url)
    });
    let others = others.into_iter().take(wanted.saturating_sub(there));
    listed.into_iter().chain(others).map(|(url, _)| url.clone()).collect()
}

/// A number that is the server's own for this repository, and the same wherever it is computed.
fn weight(repository: &Coordinate, server: &ServerUrl) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(repository.to_string());
    hasher.update([0]);
    hasher.update(server.to_string());
    hasher.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Why a repository is placed on `server` as it is, for people.
#[must_use]
pub fn why_placed(repository: &Repository, server: &ServerUrl, place: &Place) -> String {
    let leads = repository.announcement().map(|announcement| &announcement.roles.leads);
    match (place.placement, repository.listed_by(server)) {
        (Placement::Listed, Some(by)) if by.owner == repository.coordinate.owner => {
            "the owner's announcement lists it".to_owned()
        }
        (Placement::Listed, Some(by)) => format!("the announcement of {} lists it", npub(&by.owner)),
        (Placement::Listed, None) => {
            "not listed; an archive (GRASP-05) takes what the owner signed, and fetches by itself".to_owned()
        }
        (Placement::Lead, _) => {
            let lead = repository.lead().unwrap_or(repository.coordinate.owner);
            format!("not listed; {} leads it (M), and that state governs the copy", npub(&lead))
        }
        (Placement::Namespace, _) if repository.lead().is_some() => {
            "not listed; the copy has another name than the lead's, whose state cannot govern it".to_owned()
        }
        (Placement::Namespace, _) if leads.is_some_and(BTreeSet::is_empty) => {
            "not listed; the owner's announcement has no M tag".to_owned()
        }
        (Placement::Namespace, _) => {
            "not listed; the owner's M tags name nobody whose own announcement says the same".to_owned()
        }
        (Placement::Signed, Some(_)) => "a maintainer's key signed an announcement that lists it".to_owned(),
        (Placement::Signed, None) => {
            "not listed; the owner lists the bot as a maintainer, and the bot's announcement lists it"
                .to_owned()
        }
    }
}

#[cfg(test)]
#[path = "spread/tests.rs"]
mod tests;
