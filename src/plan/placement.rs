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
    /// Whether it lies in the bot's own namespace.
    pub own: bool,
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
    // The maintainers' own state governs only what has their identifier.
    let same_name = copy == repository.coordinate.identifier;
    let in_namespace = match (repository.invites(bot), repository.lead()) {
        (true, _) if same_name => Placement::Signed,
        (_, Some(_)) if same_name => Placement::Lead,
        _ => Placement::Namespace,
    };
    let place = |server: &ServerUrl, grasp: &Grasp| {
        if matches!(grasp, Grasp::NotGrasp(_)) {
            return None;
        }
        let takes_pushes = *grasp != Grasp::ArchiveOnly;
        if let Some(path) = repository.listed_by(server) {
            let ours = repository.signed_on.contains(server);
            let placement = if ours { Placement::Signed } else { Placement::Listed };
            return Some(Place { placement, path: path.clone(), takes_pushes, own: false });
        }
        // Without a name of its own there is no copy.
        if reach == Reach::Listed || copy.is_empty() {
            return None;
        }
        Some(if takes_pushes {
            Place { placement: in_namespace, path: Coordinate::new(*bot, copy), takes_pushes, own: true }
        } else {
            // An archive takes the owner's own events, listed or not, and fetches what they name.
            let path = repository.coordinate.clone();
            Place { placement: Placement::Listed, path, takes_pushes, own: false }
        })
    };
    servers.iter().filter_map(|(server, grasp)| Some((server.clone(), place(server, grasp)?))).collect()
}

/// The servers to name in the bot's announcement: those placed in its namespace and known to be GRASP servers.
///
/// A server that has never answered is left out until it does: nobody should be sent there.
#[must_use]
pub fn announced_servers<'a>(
    places: impl IntoIterator<Item = (&'a ServerUrl, &'a Place)>,
    servers: &BTreeMap<ServerUrl, Grasp>,
) -> BTreeSet<ServerUrl> {
    places
        .into_iter()
        .filter(|(_, place)| place.own)
        .filter(|(server, _)| servers.get(*server) == Some(&Grasp::Full))
        .map(|(server, _)| server.clone())
        .collect()
}
