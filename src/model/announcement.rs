//! The repository announcement (NIP-34, kind 30617).

use std::collections::BTreeSet;

use nostr::prelude::{Event, EventId, Kind, PublicKey, Timestamp};

use super::{coordinate::Coordinate, refs::ObjectId, roles::Roles, server::ServerUrl};

/// What an announcement says, read once from its tags.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The event it was read from.
    pub event: Event,
    /// Who announces what.
    pub coordinate: Coordinate,
    /// Where the git data can be cloned, as announced.
    pub clone_urls: Vec<String>,
    /// Relays that carry the repository's events, as announced.
    pub relays: Vec<String>,
    /// Who may speak for it.
    pub roles: Roles,
    /// `["private","true"]`: it must not leave the servers it lists.
    pub private: bool,
    /// The repository this one is a subordinate copy of (`u` tag), as a mirror's announcement has it.
    pub upstream: Option<Coordinate>,
    /// The earliest commit that is this repository's own and its forks' (`["r", <commit>, "euc"]`), as announced.
    pub root: Option<ObjectId>,
}

impl Announcement {
    /// Reads `event`; `None` when it is no announcement or has no `d` tag.
    #[must_use]
    pub fn read(event: Event) -> Option<Self> {
        if event.kind != Kind::GitRepoAnnouncement {
            return None;
        }
        let identifier = first(&event, "d")?.to_owned();
        Some(Self {
            coordinate: Coordinate::new(event.pubkey, identifier),
            clone_urls: values(&event, "clone"),
            relays: values(&event, "relays"),
            roles: Roles::of(&event),
            private: first(&event, "private") == Some("true"),
            upstream: first(&event, "u").and_then(|target| target.parse().ok()),
            root: root(&event),
            event,
        })
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// Who signed it.
    #[must_use]
    pub fn author(&self) -> PublicKey {
        self.event.pubkey
    }

    /// When it was signed.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.event.created_at
    }

    /// Whether it lists `server`: a clone URL on it (the author's own path) and its relay (GRASP-01).
    #[must_use]
    pub fn lists(&self, server: &ServerUrl) -> bool {
        self.has_clone_at(server) && self.has_relay(server)
    }

    /// The servers that it lists.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<ServerUrl> {
        let servers = self.clone_urls.iter().filter_map(|url| ServerUrl::parse_clone_url(url));
        servers.map(|(server, ..)| server).filter(|server| self.lists(server)).collect()
    }

    /// Whether one of its clone URLs is the author's own path on `server`.
    #[must_use]
    pub fn has_clone_at(&self, server: &ServerUrl) -> bool {
        self.clone_urls.iter().filter_map(|url| ServerUrl::parse_clone_url(url)).any(
            |(at, owner, identifier)| {
                at == *server && owner == self.author() && identifier == self.coordinate.identifier
            },
        )
    }

    /// Whether `server` is one of its relays.
    #[must_use]
    pub fn has_relay(&self, server: &ServerUrl) -> bool {
        self.relays.iter().any(|relay| relay.parse::<ServerUrl>().is_ok_and(|relay| relay == *server))
    }
}

fn root(event: &Event) -> Option<ObjectId> {
    event.tags.iter().find_map(|tag| match tag.as_slice() {
        [name, commit, marker, ..] if name == "r" && marker == "euc" => commit.parse().ok(),
        _ => None,
    })
}

/// All values of all tags called `name`.
pub(crate) fn values(event: &Event, name: &str) -> Vec<String> {
    event
        .tags
        .iter()
        .filter(|tag| tag.kind() == name)
        .flat_map(|tag| tag.as_slice().iter().skip(1).cloned())
        .collect()
}

/// The first value of the first tag called `name`.
pub(crate) fn first<'event>(event: &'event Event, name: &str) -> Option<&'event str> {
    event.tags.iter().find(|tag| tag.kind() == name).and_then(|tag| tag.content())
}
