//! Where each repository goes, and how it may exist there.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::PublicKey;

use super::catalog::Repository;
use crate::model::{coordinate::Coordinate, placement::Placement, policy::Reach, server::ServerUrl};

/// What a server has said about itself (NIP-11 `supported_grasps`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grasp {
    /// Never reached, so nothing is known.
    Unknown,
    /// A git server and relay that takes pushes (GRASP-01).
    Full,
    /// An archive that fetches by itself (GRASP-05 alone): it gets events, never pushes.
    ArchiveOnly,
    /// Something else, with what it said.
    NotGrasp(String),
}

/// One mirror's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The way it exists there.
    pub placement: Placement,
    /// Whose path it has on the server: `/<npub>/<d>.git`.
    pub path: Coordinate,
    /// Whether git data may be pushed.
    pub takes_pushes: bool,
}

/// The places of one repository, by server. A server that is no GRASP server has none.
///
/// `copy` is the identifier in the bot's namespace ([`super::namespace::identifiers`]).
#[must_use]
pub fn places(
    repository: &Repository,
    servers: &BTreeMap<ServerUrl, Grasp>,
    reach: Reach,
    bot: &PublicKey,
    copy: &str,
) -> BTreeMap<ServerUrl, Place> {
    // A lead's state governs what has the lead's identifier.
    let follows = repository.lead().is_some() && copy == repository.coordinate.identifier;
    let own = if follows { Placement::Lead } else { Placement::Namespace };
    let place = |server: &ServerUrl, grasp: &Grasp| {
        if matches!(grasp, Grasp::NotGrasp(_)) {
            return None;
        }
        let takes_pushes = *grasp != Grasp::ArchiveOnly;
        if let Some(path) = repository.listed_by(server) {
            return Some(Place { placement: Placement::Listed, path: path.clone(), takes_pushes });
        }
        // Without a name of its own there is no copy.
        if reach == Reach::Listed || copy.is_empty() {
            return None;
        }
        Some(if takes_pushes {
            Place { placement: own, path: Coordinate::new(*bot, copy), takes_pushes }
        } else {
            // An archive takes the owner's own events, listed or not, and fetches what they name.
            Place { placement: Placement::Listed, path: repository.coordinate.clone(), takes_pushes }
        })
    };
    servers.iter().filter_map(|(server, grasp)| Some((server.clone(), place(server, grasp)?))).collect()
}

/// The servers to name in the bot's announcement: those placed in its namespace and known to be GRASP servers.
///
/// A server that has never answered is left out until it does: nobody should be sent there.
#[must_use]
pub fn announced_servers(
    places: &BTreeMap<ServerUrl, Place>,
    servers: &BTreeMap<ServerUrl, Grasp>,
) -> BTreeSet<ServerUrl> {
    places
        .iter()
        .filter(|(_, place)| place.placement.is_own())
        .filter(|(server, _)| servers.get(*server) == Some(&Grasp::Full))
        .map(|(server, _)| server.clone())
        .collect()
}
