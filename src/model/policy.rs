//! What the operator wants mirrored, and where: global wishes, rules and exceptions.

use std::collections::{BTreeMap, BTreeSet};

use nostr::key::PublicKey;
use serde::{Deserialize, Serialize};

use super::{coordinate::Coordinate, server::ServerUrl};

/// Which servers a repository may be brought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Every known server, in the bot's namespace where the maintainers did not list it.
    #[default]
    Everywhere,
    /// Only the servers that the maintainers' announcements list.
    Listed,
}

/// A list of authors, repositories and servers, as in `[policy] allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Authors, with all their repositories.
    pub authors: BTreeSet<PublicKey>,
    /// Single repositories.
    pub repositories: BTreeSet<Coordinate>,
    /// Servers.
    pub servers: BTreeSet<ServerUrl>,
}

/// Settings of one author or repository that differ from the global ones; `None` means "as usual".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exception {
    /// The servers to mirror to, instead of all known ones.
    pub servers: Option<BTreeSet<ServerUrl>>,
    /// How far to spread.
    pub reach: Option<Reach>,
    /// On how many servers to keep a copy.
    pub copies_wanted: Option<u32>,
    /// How long rewound and deleted refs are kept.
    pub archive_days: Option<u32>,
    /// The largest repository taken.
    pub max_repo_bytes: Option<u64>,
}

/// The `[policy]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// When it names authors or repositories, only those are mirrored; when it names servers, only to those.
    pub allow: Rules,
    /// Never mirrored, never mirrored to. Wins over `allow`.
    pub deny: Rules,
    /// Exceptions for all repositories of one author.
    pub authors: BTreeMap<PublicKey, Exception>,
    /// Exceptions for single repositories; they win over their author's.
    pub repositories: BTreeMap<Coordinate, Exception>,
}

/// The rule of the operator that keeps something from being mirrored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Named in `deny`.
    #[error("[policy] deny names {0}")]
    Denied(String),
    /// `allow` names others only.
    #[error("[policy] allow does not name {0}")]
    NotAllowed(String),
}

impl Policy {
    /// Whether `repository` may be mirrored at all.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn admits(&self, repository: &Coordinate) -> Result<(), Blocked> {
        if self.deny.repositories.contains(repository) {
            return Err(Blocked::Denied(repository.to_string()));
        }
        if self.deny.authors.contains(&repository.owner) {
            return Err(Blocked::Denied(super::coordinate::npub(&repository.owner)));
        }
        let open = self.allow.authors.is_empty() && self.allow.repositories.is_empty();
        let named =
            self.allow.authors.contains(&repository.owner) || self.allow.repositories.contains(repository);
        if open || named { Ok(()) } else { Err(Blocked::NotAllowed(repository.to_string())) }
    }

    /// Whether anything may be mirrored to `server`.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn admits_server(&self, server: &ServerUrl) -> Result<(), Blocked> {
        if self.deny.servers.contains(server) {
            return Err(Blocked::Denied(server.to_string()));
        }
        if self.allow.servers.is_empty() || self.allow.servers.contains(server) {
            return Ok(());
        }
        Err(Blocked::NotAllowed(server.to_string()))
    }

    /// What differs for `repository`: its own exception first, then its author's.
    #[must_use]
    pub fn exception(&self, repository: &Coordinate) -> Exception {
        let own = self.repositories.get(repository).cloned().unwrap_or_default();
        let author = self.authors.get(&repository.owner).cloned().unwrap_or_default();
        Exception {
            servers: own.servers.or(author.servers),
            reach: own.reach.or(author.reach),
            copies_wanted: own.copies_wanted.or(author.copies_wanted),
            archive_days: own.archive_days.or(author.archive_days),
            max_repo_bytes: own.max_repo_bytes.or(author.max_repo_bytes),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::key::Keys;

    use super::*;

    #[test]
    fn deny_wins_over_allow() {
        let (alice, bob) = (Keys::generate().public_key(), Keys::generate().public_key());
        let (kept, dropped) = (Coordinate::new(alice, "kept"), Coordinate::new(alice, "dropped"));
        let mut policy = Policy::default();
        assert_eq!(policy.admits(&kept), Ok(()));

        policy.allow.authors.insert(alice);
        policy.deny.repositories.insert(dropped.clone());
        assert_eq!(policy.admits(&kept), Ok(()));
        assert_eq!(policy.admits(&dropped), Err(Blocked::Denied(dropped.to_string())));
        assert!(matches!(policy.admits(&Coordinate::new(bob, "kept")), Err(Blocked::NotAllowed(_))));

        let server: ServerUrl = "gitnostr.com".parse().unwrap();
        assert_eq!(policy.admits_server(&server), Ok(()));
        policy.allow.servers.insert("relay.ngit.dev".parse().unwrap());
        assert!(matches!(policy.admits_server(&server), Err(Blocked::NotAllowed(_))));
    }

    #[test]
    fn a_repository_s_exception_wins_over_its_author_s() {
        let alice = Keys::generate().public_key();
        let repository = Coordinate::new(alice, "x");
        let mut policy = Policy::default();
        let usual = Exception { copies_wanted: Some(3), reach: Some(Reach::Listed), ..Exception::default() };
        policy.authors.insert(alice, usual);
        policy
            .repositories
            .insert(repository.clone(), Exception { copies_wanted: Some(5), ..Exception::default() });

        let exception = policy.exception(&repository);
        assert_eq!((exception.copies_wanted, exception.reach), (Some(5), Some(Reach::Listed)));
        assert_eq!(policy.exception(&Coordinate::new(alice, "y")).copies_wanted, Some(3));
    }
}
