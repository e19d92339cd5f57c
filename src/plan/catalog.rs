//! From stored events to the repositories that are to be mirrored.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use nostr::prelude::{Event, EventId, Kind, PublicKey, Timestamp};

use super::{
    authority::{self, Authority, Family},
    forget::{self, OptOut, Wishes},
    kinship::{self, Relative},
    record::RepositoryRecord,
};
use crate::model::{
    announcement::Announcement,
    coordinate::{Coordinate, folder_name},
    placement::Placement,
    replace::wins,
    server::ServerUrl,
    state::State,
};

/// What is to be mirrored, in whole authors and in single repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Every repository these authors announce.
    pub authors: BTreeSet<PublicKey>,
    /// Single repositories of others.
    pub repositories: BTreeSet<Coordinate>,
    /// What is left alone all the same, because somebody said so.
    pub forgotten: Wishes,
}

/// Bounds on what one repository or author may ask of the mirror.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Heads and tags in one state.
    pub max_refs: usize,
    /// Repositories mirrored for one author; the newest announcements win.
    pub max_repos_per_author: usize,
}

/// One repository to mirror.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The watched owner's coordinate.
    pub coordinate: Coordinate,
    /// The owner's announcement first, then those of the other confirmed maintainers.
    pub announcements: Vec<Announcement>,
    /// Who may sign its state.
    pub authority: Option<Authority>,
    /// The authoritative state; `None` while nobody has signed one.
    pub state: Option<State>,
    /// Why it cannot be mirrored although it should be.
    pub obstacle: Option<Obstacle>,
    /// The folder of its local copy, below the owner's.
    pub folder: String,
    /// Others that may hold some of its objects.
    pub kin: Vec<Relative>,
    /// Servers that a maintainer's announcement lists because the bot had it signed so.
    pub signed_on: BTreeSet<ServerUrl>,
    /// A server where copies lie does not take the lead's announcement ([`Repository::heed`]).
    pub lead_unwelcome: bool,
}

/// Why a repository cannot be mirrored although it is wanted, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// This mirror's own limits.
    Limit(String),
    /// What its maintainers signed cannot be followed.
    Signed(String),
}

impl Obstacle {
    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Limit(reason) | Self::Signed(reason) => reason,
        }
    }
}

/// Everything wanted, and what is left alone on purpose.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Sorted by coordinate.
    pub repositories: Vec<Repository>,
    /// Announced once and deleted since (NIP-09).
    pub deleted: BTreeSet<Coordinate>,
    /// Watched by name, and nobody has announced them.
    pub unannounced: BTreeSet<Coordinate>,
    /// Watched, and they have announced nothing.
    pub silent: BTreeSet<PublicKey>,
    /// Left alone because their maintainers, or who may command the bot, want it so.
    pub opted_out: BTreeMap<Coordinate, OptOut>,
    /// Whose mute list names the bot.
    pub muters: BTreeSet<PublicKey>,
    /// Private repositories: counted, never named.
    pub private: usize,
    /// Left out because their author announces more than the limit.
    pub over_limit: usize,
}

impl Repository {
    /// The maintainers' state that its mirrors are to have.
    #[must_use]
    pub fn state_id(&self) -> Option<EventId> {
        self.state.as_ref().map(|state| state.event.id)
    }

    /// The watched owner's announcement.
    #[must_use]
    pub fn announcement(&self) -> Option<&Announcement> {
        self.announcements.first()
    }

    /// All announced clone URLs, the owner's first, each once.
    #[must_use]
    pub fn clone_urls(&self) -> Vec<String> {
        distinct(self.announcements.iter().flat_map(|announcement| announcement.clone_urls.iter()))
    }

    /// Every confirmed maintainer's coordinate: what the conversation may point at.
    #[must_use]
    pub fn coordinates(&self) -> Vec<Coordinate> {
        self.announcements.iter().map(|announcement| announcement.coordinate.clone()).collect()
    }

    /// The announcements in the order in which a server takes them that took `first`'s: each after one that
    /// lists its author. With each the place of that one.
    #[must_use]
    pub fn introduced_by(&self, first: &PublicKey) -> Vec<(&Announcement, Option<usize>)> {
        let (mut order, mut rest): (Vec<_>, Vec<_>) = self
            .announcements
            .iter()
            .map(|announcement| (announcement, None))
            .partition(|(announcement, _)| announcement.author() == *first);
        let mut at = 0;
        while let Some((host, _)) = order.get(at) {
            let listed = &host.roles.listed;
            let (guests, others) = rest.into_iter().partition(|(guest, _)| listed.contains(&guest.author()));
            let guests: Vec<(&Announcement, Option<usize>)> = guests;
            order.extend(guests.into_iter().map(|(guest, _)| (guest, Some(at))));
            rest = others;
            at += 1;
        }
        order.extend(rest);
        order
    }

    /// Learns from what servers refused: one that the lead took off its list does not take the announcement that says
    /// so, and copies there can be the bot's own only. All copies have one announcement, so it decides for all.
    pub fn heed(&mut self, record: &RepositoryRecord) {
        self.lead_unwelcome = false;
        let Some(lead) = self.lead() else { return };
        let announced = self.announcements.iter().find(|announcement| announcement.author() == lead);
        let copies = || record.mirrors.values().filter(|mirror| mirror.placement != Placement::Listed);
        let refuses = |id: EventId| copies().any(|mirror| mirror.refuses_unlisted(&id));
        self.lead_unwelcome = announced.map(Announcement::id).is_some_and(refuses);
    }

    /// The same by the bot's own announcement of its `copy`: one that names no lead follows none.
    pub fn heed_copy(&mut self, copy: &Announcement) {
        self.lead_unwelcome = false;
        let Some(lead) = self.lead() else { return };
        self.lead_unwelcome = !copy.roles.leads.contains(&lead);
    }

    /// Who leads it: the one whose own announcement names itself as the only active lead (`M`). A copy can follow a
    /// lead without a signature of the copier's.
    #[must_use]
    pub fn lead(&self) -> Option<PublicKey> {
        if self.lead_unwelcome {
            return None;
        }
        let root = self.authority.as_ref()?.root;
        let announcement = self.announcements.iter().find(|announcement| announcement.author() == root)?;
        announcement.roles.leads.iter().eq([&root]).then_some(root)
    }

    /// Whether a maintainer lists `key`, whose own announcement does not count here, as one, too. The bot accepts it
    /// with the announcement of its copy, which lists the owner back.
    #[must_use]
    pub fn invites(&self, key: &PublicKey) -> bool {
        self.authority.as_ref().is_some_and(|authority| authority.invited.contains(key))
    }

    /// Whose announcement lists `server`, the owner before the other maintainers.
    #[must_use]
    pub fn listed_by(&self, server: &ServerUrl) -> Option<&Coordinate> {
        self.announcements.iter().find(|announcement| announcement.lists(server)).map(|a| &a.coordinate)
    }
}

fn distinct<'a>(values: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    values.filter(|value| seen.insert(*value)).cloned().collect()
}

/// Deletion requests (NIP-09): an author may take back what it signed.
#[derive(Debug, Default)]
struct Deletions {
    ids: BTreeSet<(PublicKey, EventId)>,
    coordinates: BTreeMap<(PublicKey, String), Timestamp>,
}

impl Deletions {
    fn of(events: &[Event]) -> Self {
        let mut all = Self::default();
        for event in events.iter().filter(|event| event.kind == Kind::EventDeletion) {
            all.ids.extend(event.tags.event_ids().map(|id| (event.pubkey, id)));
            for tag in event.tags.iter().filter(|tag| tag.kind() == "a") {
                let Some(target) = tag.content() else { continue };
                let at = all.coordinates.entry((event.pubkey, target.to_owned())).or_insert(event.created_at);
                *at = (*at).max(event.created_at);
            }
        }
        all
    }

    fn cover(&self, event: &Event, identifier: &str) -> bool {
        let coordinate = format!("{}:{}:{identifier}", event.kind.as_u16(), event.pubkey.to_hex());
        self.ids.contains(&(event.pubkey, event.id))
            || self.coordinates.get(&(event.pubkey, coordinate)).is_some_and(|at| *at >= event.created_at)
    }
}

/// Works out from everything stored what is to be mirrored for `watched`.
///
/// `events` may hold anything; announcements, states, deletions and mute lists count. The bot's own announcements
/// (`bot`) are copies and never sources.
#[must_use]
pub fn build(events: &[Event], watched: &Watched, bot: &PublicKey, limits: Limits) -> Catalog {
    let deletions = Deletions::of(events);
    let mut announced: BTreeMap<(String, PublicKey), Announcement> = BTreeMap::new();
    let mut states: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if event.kind == Kind::RepoState {
            if let Some(identifier) = event.tags.identifier()
                && !deletions.cover(event, &identifier)
            {
                states.entry(identifier).or_default().push(event);
            }
        } else if let Some(found) = Announcement::read(event.clone())
            && found.author() != *bot
            && !deletions.cover(event, &found.coordinate.identifier)
        {
            let key = (found.coordinate.identifier.clone(), found.author());
            let newer = announced.get(&key).is_none_or(|known| wins(&found.event, &known.event));
            if newer {
                announced.insert(key, found);
            }
        }
    }

    let mut catalog = Catalog::default();
    for (author, target) in deletions.coordinates.keys() {
        if let Ok(coordinate) = target.parse::<Coordinate>()
            && coordinate.owner == *author
            && watched.wants(&coordinate)
            && !announced.contains_key(&(coordinate.identifier.clone(), *author))
        {
            catalog.deleted.insert(coordinate);
        }
    }
    catalog.note_unannounced(&announced, watched);
    let mut by_identifier: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for ((identifier, author), announcement) in &announced {
        by_identifier.entry(identifier).or_default().insert(*author, announcement);
    }
    for (identifier, family) in &by_identifier {
        let no_states = Vec::new();
        let states = states.get(*identifier).unwrap_or(&no_states);
        gather_family(family, states, watched, limits, &mut catalog);
    }
    catalog.muters = forget::muters(events, bot);
    catalog.leave_alone(&watched.forgotten);
    catalog.keep_newest(limits.max_repos_per_author);
    catalog.repositories.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));
    kinship::find(&mut catalog.repositories);
    catalog
}

impl Watched {
    /// Whether nothing is to be mirrored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authors.is_empty() && self.repositories.is_empty()
    }

    /// Whether all of `other` is watched by name.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.authors.is_subset(&self.authors) && other.repositories.is_subset(&self.repositories)
    }

    /// Whether `after` leaves out something of this.
    #[must_use]
    pub fn loses_by(&self, after: &Self) -> bool {
        let forgets = after.forgotten.keys().any(|one| !self.forgotten.contains_key(one));
        forgets || !after.includes(self)
    }

    /// Watches `other`, too.
    pub fn add(&mut self, other: Self) {
        self.authors.extend(other.authors);
        self.repositories.extend(other.repositories);
    }

    /// Watches nothing of `other` by name any more.
    pub fn remove(&mut self, other: &Self) {
        self.authors.retain(|author| !other.authors.contains(author));
        self.repositories.retain(|repository| !other.repositories.contains(repository));
    }

    /// Whether `coordinate` is watched, by its author or by itself.
    #[must_use]
    pub fn wants(&self, coordinate: &Coordinate) -> bool {
        self.authors.contains(&coordinate.owner) || self.repositories.contains(coordinate)
    }
}

impl Catalog {
    fn note_unannounced(
        &mut self,
        announced: &BTreeMap<(String, PublicKey), Announcement>,
        watched: &Watched,
    ) {
        let is_known = |name: &Coordinate| {
            announced.contains_key(&(name.identifier.clone(), name.owner))
                || self.deleted.contains(name)
                || watched.forgotten.contains_key(name)
        };
        self.unannounced = watched.repositories.iter().filter(|name| !is_known(name)).cloned().collect();
        let deleted = self.deleted.iter().map(|name| name.owner);
        let heard: BTreeSet<PublicKey> = announced.keys().map(|(_, author)| *author).chain(deleted).collect();
        self.silent = watched.authors.difference(&heard).copied().collect();
    }

    fn leave_alone(&mut self, wishes: &Wishes) {
        for repository in mem::take(&mut self.repositories) {
            match forget::opt_out(&repository, wishes, &self.muters) {
                Some(opt_out) => {
                    self.opted_out.insert(repository.coordinate, opt_out);
                }
                None => self.repositories.push(repository),
            }
        }
    }

    fn keep_newest(&mut self, per_author: usize) {
        self.repositories.sort_by_key(|repository| {
            std::cmp::Reverse(repository.announcement().map(Announcement::created_at))
        });
        let mut counts: BTreeMap<PublicKey, usize> = BTreeMap::new();
        let before = self.repositories.len();
        self.repositories.retain(|repository| {
            let count = counts.entry(repository.coordinate.owner).or_default();
            *count += 1;
            *count <= per_author
        });
        self.over_limit = before - self.repositories.len();
    }
}

/// Adds the repositories that watched authors announce under one `d`.
///
/// Maintainers of one repository who are all watched get one mirror, named after the lead where there is one:
/// their coordinates stand for the same thing.
fn gather_family(
    family: &Family<'_>,
    states: &[&Event],
    watched: &Watched,
    limits: Limits,
    into: &mut Catalog,
) {
    let mut candidates: Vec<_> = family
        .values()
        .filter(|announcement| watched.wants(&announcement.coordinate))
        .map(|announcement| (*announcement, authority::resolve(announcement.author(), family)))
        .collect();
    candidates.sort_by_key(|(announcement, authority)| {
        let leads_itself = authority.as_ref().is_ok_and(|found| found.root == announcement.author());
        (!leads_itself, announcement.author())
    });
    let mut taken: Vec<Authority> = Vec::new();
    for (announcement, authority) in candidates {
        let same = |other: &Authority| {
            authority.as_ref().is_ok_and(|found| found.confirmed == other.confirmed)
                && other.confirmed.contains(&announcement.author())
        };
        if taken.iter().any(same) {
            continue;
        }
        let members: Vec<Announcement> = match &authority {
            Ok(found) => std::iter::once(announcement)
                .chain(
                    found
                        .confirmed
                        .iter()
                        .filter(|key| **key != announcement.author())
                        .filter_map(|key| family.get(key).copied()),
                )
                .cloned()
                .collect(),
            Err(_) => vec![announcement.clone()],
        };
        if members.iter().any(|member| member.private) {
            into.private += 1;
            taken.extend(authority.ok());
            continue;
        }
        into.repositories.push(repository(
            announcement.coordinate.clone(),
            members,
            authority.as_ref(),
            states,
            limits,
        ));
        taken.extend(authority.ok());
    }
}

fn repository(
    coordinate: Coordinate,
    announcements: Vec<Announcement>,
    authority: Result<&Authority, &authority::AuthorityError>,
    states: &[&Event],
    limits: Limits,
) -> Repository {
    let mut obstacle =
        authority.err().map(|error| Obstacle::Signed(format!("nobody may sign its state: {error}")));
    let folder = folder_name(&coordinate.identifier).unwrap_or_else(|error| {
        obstacle = Some(Obstacle::Limit(error.to_string()));
        String::new()
    });
    let newest = authority.ok().and_then(|authority| {
        states.iter().filter(|event| authority.confirmed.contains(&event.pubkey)).fold(
            None,
            |best: Option<&Event>, event| match best {
                Some(best) if !wins(event, best) => Some(best),
                _ => Some(event),
            },
        )
    });
    // A newest state that cannot be followed is not replaced by an older one: no server would take it.
    let state = match newest.map(|event| State::read(event.clone())) {
        Some(Ok(state)) if state.refs.len() > limits.max_refs => {
            obstacle = Some(Obstacle::Limit(format!(
                "its state has {} refs, more than limits.max_refs = {}",
                state.refs.len(),
                limits.max_refs
            )));
            None
        }
        Some(Ok(state)) => Some(state),
        Some(Err(error)) => {
            obstacle = Some(Obstacle::Signed(error.to_string()));
            None
        }
        None => None,
    };
    let authority = authority.ok().cloned();
    Repository {
        coordinate,
        announcements,
        authority,
        state,
        obstacle,
        folder,
        kin: Vec::new(),
        signed_on: BTreeSet::new(),
        lead_unwelcome: false,
    }
}

#[cfg(test)]
mod tests;
