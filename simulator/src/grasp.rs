//! A GRASP server that does nothing wrong, as `ngit-grasp` 3.0.9 behaves; `tests/contract.rs` holds the two together.

mod announcements;
mod push;

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement,
        coordinate::Coordinate,
        refs::{ObjectId, Refs},
        replace::wins,
        server::ServerUrl,
        state::State,
    },
    plan::authority::{self, Family},
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
    types::Timestamp,
};

use crate::git::History;

/// How long an event waits for its git data, in seconds.
const PURGATORY_SECS: u64 = 30 * 60;

/// What a server says to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// `OK true`, and it is served.
    Taken,
    /// `OK true`, but it is kept back until its git data comes.
    Purgatory,
    /// `OK false`, with the reason.
    Refused(String),
}

impl Said {
    fn no(words: &str) -> Self {
        Self::Refused(words.to_owned())
    }
}

/// One change of a ref; `None` takes it away.
pub type Change = (String, Option<ObjectId>);

/// A repository on the server.
#[derive(Clone, Debug, Default)]
struct Repository {
    refs: BTreeMap<String, ObjectId>,
    head: Option<String>,
}

impl Repository {
    /// Heads and tags.
    fn mirrored(&self) -> BTreeMap<String, ObjectId> {
        let mirrored = |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
        self.refs.iter().filter(|(name, _)| mirrored(name)).map(|(name, id)| (name.clone(), *id)).collect()
    }
}

/// The server.
#[derive(Clone, Debug)]
pub struct Grasp {
    /// Its address.
    pub url: ServerUrl,
    /// Whose announcements it refuses, and of which repositories.
    pub denied: BTreeSet<Coordinate>,
    served: BTreeMap<EventId, Event>,
    /// Kept back, until when.
    purgatory: BTreeMap<EventId, (Event, u64)>,
    repositories: BTreeMap<Coordinate, Repository>,
    /// Those whose owners do not list the server any more, with what was served of them.
    left: BTreeMap<Coordinate, (Repository, Vec<Event>)>,
    /// By identifier: all repositories of one name share their objects.
    objects: BTreeMap<String, BTreeSet<ObjectId>>,
    deleted: BTreeSet<EventId>,
    deleted_until: BTreeMap<Coordinate, Timestamp>,
}

fn exactly(refs: &Refs) -> BTreeMap<String, ObjectId> {
    refs.iter().map(|(name, id)| (name.to_string(), *id)).collect()
}

impl Grasp {
    /// An empty server.
    #[must_use]
    pub fn new(url: ServerUrl) -> Self {
        Self {
            url,
            denied: BTreeSet::new(),
            served: BTreeMap::new(),
            purgatory: BTreeMap::new(),
            repositories: BTreeMap::new(),
            left: BTreeMap::new(),
            objects: BTreeMap::new(),
            deleted: BTreeSet::new(),
            deleted_until: BTreeMap::new(),
        }
    }

    /// Takes everything from it.
    pub fn wipe(&mut self) {
        *self = Self { denied: std::mem::take(&mut self.denied), ..Self::new(self.url.clone()) };
    }

    /// Takes the git data of `path` from it, and of all with the same name; what it served it goes on serving.
    pub fn lose_git_data(&mut self, path: &Coordinate) {
        self.objects.remove(&path.identifier);
        for (other, repository) in &mut self.repositories {
            if other.identifier == path.identifier {
                *repository = Repository::default();
            }
        }
    }

    /// Whether it serves the event.
    #[must_use]
    pub fn serves(&self, id: &EventId) -> bool {
        self.served.contains_key(id)
    }

    /// Everything it serves.
    pub fn served(&self) -> impl Iterator<Item = &Event> {
        self.served.values()
    }

    /// The refs it lists at `path`; `None` where there is no repository.
    #[must_use]
    pub fn refs(&self, path: &Coordinate) -> Option<&BTreeMap<String, ObjectId>> {
        self.repositories.get(path).map(|repository| &repository.refs)
    }

    /// The objects that a clone of `path` can get.
    #[must_use]
    pub fn objects(&self, path: &Coordinate) -> Option<&BTreeSet<ObjectId>> {
        self.repositories.get(path).and_then(|_| self.objects.get(&path.identifier))
    }

    /// The paths that are announced and list branches or tags.
    #[must_use]
    pub fn cloneable(&self) -> BTreeSet<Coordinate> {
        let lists = |(path, refs): (&Coordinate, BTreeMap<_, _>)| (!refs.is_empty()).then(|| path.clone());
        self.repositories().filter_map(lists).filter(|path| self.announced(path).is_some()).collect()
    }

    /// Repositories with their heads and tags.
    pub fn repositories(&self) -> impl Iterator<Item = (&Coordinate, BTreeMap<String, ObjectId>)> {
        self.repositories.iter().map(|(path, repository)| (path, repository.mirrored()))
    }

    /// Forgets what has waited too long.
    pub fn expire(&mut self, now: Timestamp) {
        let gone: Vec<EventId> = self
            .purgatory
            .iter()
            .filter(|(_, (_, until))| *until <= now.as_secs())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let Some((event, _)) = self.purgatory.remove(&id) else { continue };
            if let Some(announcement) = Announcement::read(event)
                && self.announced(&announcement.coordinate).is_none()
            {
                self.repositories.remove(&announcement.coordinate);
            }
        }
    }

    /// An event arrives.
    pub fn send(&mut self, event: &Event, history: &History, now: Timestamp) -> Said {
        self.expire(now);
        if self.is_deleted(event) {
            return Said::no("invalid: this event is deleted");
        }
        if event.is_protected() {
            return Said::no("auth-required: you must auth");
        }
        if self.purgatory.contains_key(&event.id) {
            // "duplicate: in purgatory"
            return Said::Purgatory;
        }
        if event.kind != Kind::RepoState && self.serves(&event.id) {
            return Said::Taken;
        }
        match event.kind {
            Kind::GitRepoAnnouncement => self.take_announcement(event, history, now),
            Kind::RepoState => self.take_state(event, history, now),
            Kind::EventDeletion => self.take_deletion(event),
            _ => self.take_conversation(event, now),
        }
    }

    fn is_deleted(&self, event: &Event) -> bool {
        let coordinate = event.tags.identifier().map(|d| Coordinate::new(event.pubkey, d));
        self.deleted.contains(&event.id)
            || event.kind == Kind::GitRepoAnnouncement
                && coordinate
                    .and_then(|coordinate| self.deleted_until.get(&coordinate))
                    .is_some_and(|at| *at >= event.created_at)
    }

    /// The served announcement of a repository.
    fn announced(&self, coordinate: &Coordinate) -> Option<&Event> {
        self.served.values().find(|event| {
            event.kind == Kind::GitRepoAnnouncement
                && event.pubkey == coordinate.owner
                && event.tags.identifier().as_deref() == Some(coordinate.identifier.as_str())
        })
    }

    fn known(&self) -> impl Iterator<Item = &Event> {
        self.served.values().chain(self.purgatory.values().map(|(event, _)| event))
    }

    /// The newest announcements of one identifier, served or kept back.
    fn announcements(&self, identifier: &str) -> BTreeMap<PublicKey, Announcement> {
        let mut all: BTreeMap<PublicKey, Announcement> = BTreeMap::new();
        for event in self.known().filter(|event| event.kind == Kind::GitRepoAnnouncement) {
            if event.tags.identifier().as_deref() == Some(identifier)
                && all.get(&event.pubkey).is_none_or(|known| wins(event, &known.event))
            {
                all.extend(Announcement::read(event.clone()).map(|found| (found.author(), found)));
            }
        }
        all
    }

    /// Whose repositories called `identifier` follow a state by `author`.
    fn governed_by(&self, author: &PublicKey, identifier: &str) -> Vec<Announcement> {
        let all = self.announcements(identifier);
        let family: Family<'_> = all.iter().map(|(key, announcement)| (*key, announcement)).collect();
        all.values()
            .filter(|announcement| {
                authority::resolve(announcement.author(), &family)
                    .is_ok_and(|authority| authority.confirmed.contains(author))
            })
            .cloned()
            .collect()
    }

    fn take_state(&mut self, event: &Event, history: &History, now: Timestamp) -> Said {
        let Ok(state) = State::read(event.clone()) else { return Said::no("invalid: not a state") };
        let identifier = &state.coordinate.identifier;
        if self.announcements(identifier).is_empty() {
            return Said::no("invalid: no announcement exists for this repository");
        }
        if self.governed_by(&event.pubkey, identifier).is_empty() {
            return Said::no("restricted: author not authorized for this repository");
        }
        let superseded = |known: &Event| {
            known.kind == event.kind
                && known.pubkey == event.pubkey
                && known.tags.identifier() == event.tags.identifier()
                && known.id != event.id
                && !wins(event, known)
        };
        if self.served.values().any(superseded) {
            return Said::Taken;
        }
        let waiting = |announcement: &Announcement| self.purgatory.contains_key(&announcement.id());
        if self.serves(&event.id) && !self.governed_by(&event.pubkey, identifier).iter().any(waiting) {
            return Said::Taken;
        }
        if self.holds(&state) {
            self.serve(event);
            self.reconcile(identifier, history);
            return Said::Taken;
        }
        if self.serves(&event.id) {
            return Said::Taken;
        }
        self.keep_back(event, now);
        // What it belongs to waits as long as it does.
        let again: Vec<EventId> = self
            .governed_by(&event.pubkey, identifier)
            .iter()
            .map(Announcement::id)
            .filter(|id| self.purgatory.contains_key(id))
            .collect();
        for id in again {
            if let Some((_, until)) = self.purgatory.get_mut(&id) {
                *until = now.as_secs() + PURGATORY_SECS;
            }
        }
        Said::Purgatory
    }

    /// Whether everything that a state names is here.
    fn holds(&self, state: &State) -> bool {
        let held = self.objects.get(&state.coordinate.identifier);
        state.refs.values().all(|id| held.is_some_and(|held| held.contains(id)))
    }

    fn keep_back(&mut self, event: &Event, now: Timestamp) {
        self.purgatory.insert(event.id, (event.clone(), now.as_secs() + PURGATORY_SECS));
    }

    /// Serves an event instead of what it replaces.
    fn serve(&mut self, event: &Event) {
        self.purgatory.remove(&event.id);
        if event.kind.is_addressable() {
            self.served.retain(|_, known| {
                known.kind != event.kind
                    || known.pubkey != event.pubkey
                    || known.tags.identifier() != event.tags.identifier()
            });
        }
        self.served.insert(event.id, event.clone());
    }

    /// States whose git data is here are served, oldest first, and with them the announcements they belong to.
    fn reconcile(&mut self, identifier: &str, _: &History) {
        let mut states: Vec<State> = self
            .known()
            .filter(|event| {
                event.kind == Kind::RepoState && event.tags.identifier().as_deref() == Some(identifier)
            })
            .filter_map(|event| State::read(event.clone()).ok())
            .filter(|state| self.holds(state))
            .collect();
        states.sort_by_key(|state| (state.event.created_at, std::cmp::Reverse(state.event.id)));
        for state in states {
            let governed = self.governed_by(&state.event.pubkey, identifier);
            if governed.is_empty() {
                continue;
            }
            let is_old = self.served.values().any(|known| {
                known.kind == Kind::RepoState
                    && known.pubkey == state.event.pubkey
                    && known.tags.identifier() == state.event.tags.identifier()
                    && wins(known, &state.event)
            });
            if is_old {
                self.purgatory.remove(&state.event.id);
                continue;
            }
            self.serve(&state.event);
            let url = self.url.clone();
            for announcement in governed.iter().filter(|announcement| announcement.lists(&url)) {
                self.serve(&announcement.event);
                self.align(announcement, &state);
            }
        }
    }

    /// Makes a repository's refs those of `state`, if that is the newest that it follows.
    fn align(&mut self, announcement: &Announcement, state: &State) {
        let newer = self.served.values().any(|other| {
            other.kind == Kind::RepoState
                && other.tags.identifier() == state.event.tags.identifier()
                && wins(other, &state.event)
                && self
                    .governed_by(&other.pubkey, &state.coordinate.identifier)
                    .iter()
                    .any(|governed| governed.coordinate == announcement.coordinate)
        });
        if newer {
            return;
        }
        let repository = self.repositories.entry(announcement.coordinate.clone()).or_default();
        repository.refs.retain(|name, _| name.starts_with("refs/nostr/"));
        repository.refs.extend(exactly(&state.refs));
        if let Some(head) = &state.head {
            repository.head = Some(head.to_string());
        }
    }

    fn take_deletion(&mut self, event: &Event) -> Said {
        let ids: Vec<EventId> = event.tags.event_ids().collect();
        for id in ids {
            let own = |known: &Event| known.pubkey == event.pubkey;
            if self.served.get(&id).is_none_or(own)
                && self.purgatory.get(&id).is_none_or(|(known, _)| own(known))
            {
                self.deleted.insert(id);
            }
        }
        for target in event.tags.iter().filter(|tag| tag.kind() == "a").filter_map(|tag| tag.content()) {
            if let Ok(coordinate) = target.parse::<Coordinate>()
                && coordinate.owner == event.pubkey
            {
                let until = self.deleted_until.entry(coordinate.clone()).or_insert(event.created_at);
                *until = (*until).max(event.created_at);
            }
        }
        let gone: Vec<Event> = self.known().filter(|known| self.is_deleted(known)).cloned().collect();
        for known in gone {
            self.served.remove(&known.id);
            self.purgatory.remove(&known.id);
            if let Some(announcement) = Announcement::read(known) {
                self.repositories.remove(&announcement.coordinate);
                self.left.remove(&announcement.coordinate);
                let identifier = &announcement.coordinate.identifier;
                if self.repositories.keys().all(|other| other.identifier != *identifier) {
                    self.objects.remove(identifier);
                }
                self.forget_states_of_nothing(identifier);
            }
        }
        self.served.insert(event.id, event.clone());
        Said::Taken
    }

    fn take_conversation(&mut self, event: &Event, now: Timestamp) -> Said {
        let known = event.tags.iter().any(|tag| match (tag.kind(), tag.content()) {
            ("a" | "A" | "q", Some(target)) if target.contains(':') => {
                target.parse::<Coordinate>().is_ok_and(|coordinate| self.announced(&coordinate).is_some())
            }
            ("e" | "E" | "q", Some(target)) => EventId::from_hex(target).is_ok_and(|id| self.serves(&id)),
            _ => false,
        });
        if !known {
            return Said::no(
                "restricted: Event event must reference an accepted repository or accepted event",
            );
        }
        if matches!(event.kind, Kind::GitPullRequest | Kind::GitPullRequestUpdate) {
            let tip = event.tags.iter().find(|tag| tag.kind() == "c").and_then(|tag| tag.content());
            let name = format!("refs/nostr/{}", event.id.to_hex());
            let here = self
                .repositories
                .values()
                .any(|repository| repository.refs.get(&name).map(ToString::to_string).as_deref() == tip);
            if !here {
                self.keep_back(event, now);
                return Said::Purgatory;
            }
        }
        self.served.insert(event.id, event.clone());
        Said::Taken
    }
}
