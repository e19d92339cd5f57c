//! What the bot keeps in memory from one cycle to the next, and what it leaves in peace because of that: as
//! `src/cycle/survey.rs` does it, with the program's own decisions ([`grasp_mirror::plan::rest`], `holdings`, `retry`).

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{
        catalog::{Obstacle, Repository},
        conversation,
        holdings::Holdings,
        placement::Grasp,
        record::{Ending, RepositoryRecord},
        rest::{self, Known, Look, Proofs, Terms},
        retry::Backoff,
        spread::{Candidate, LOST_AFTER_SECS},
    },
};
use nostr::event::{Event, EventId};

use crate::{
    bot::{Bot, MAX_EVENTS, Subject},
    check,
    live::Listening,
    world::{Crash, Target, tell},
};

/// Between two cycles, as far as the share of each is concerned that is looked at in depth.
const INTERVAL_SECS: u64 = 3_600;

/// A server in one cycle.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// What it said, now or before.
    pub(crate) grasp: Grasp,
    pub(crate) is_down: bool,
    /// For how long it says that it wants to be left alone.
    pub(crate) told_secs: Option<u64>,
    /// It was not asked: its next try is later.
    pub(crate) left_alone: bool,
    /// It has been down for longer than a day.
    pub(crate) is_lost: bool,
    /// Its holdings are those of this cycle.
    pub(crate) is_compared: bool,
}

pub(crate) type Servers = BTreeMap<ServerUrl, Server>;

/// What is kept. It is lost with the bot.
#[derive(Debug, Default)]
pub struct Kept {
    pub(crate) repositories: BTreeMap<Coordinate, Known>,
    /// What relays and servers were last seen to have.
    pub(crate) holdings: BTreeMap<Target, Holdings>,
    /// Servers that want to be left alone, and until when.
    pub(crate) cooling: BTreeMap<usize, u64>,
    /// What is listened to since the last cycle.
    pub(crate) listening: Option<Listening>,
    /// What an earlier process left behind is taken up.
    pub(crate) has_taken_up: bool,
    /// Questions whose answers are not delivered yet.
    pub(crate) undelivered: BTreeSet<EventId>,
    /// Messages that it has opened.
    pub(crate) heard: BTreeSet<EventId>,
    /// What it knew when there was nothing to sign for an owner.
    pub(crate) nothing_to_list: Option<u64>,
    /// It has looked for its own lists.
    pub(crate) has_looked: bool,
    /// It knows what they say.
    pub(crate) knows_its_lists: bool,
    grasps: BTreeMap<ServerUrl, (Grasp, bool)>,
}

/// How those mirrors of a repository that rests end that do not stand as they stood.
pub(crate) type Endings = BTreeMap<ServerUrl, Ending>;

pub(crate) fn grasps(servers: &Servers) -> BTreeMap<ServerUrl, Grasp> {
    servers.iter().map(|(url, server)| (url.clone(), server.grasp.clone())).collect()
}

/// How every mirror ends when something is in the way of all.
pub(crate) fn in_the_way(obstacle: &Obstacle) -> Ending {
    match obstacle {
        Obstacle::Limit(reason) => Ending::Blocked(reason.clone()),
        Obstacle::Signed(reason) => Ending::Failed(reason.clone()),
    }
}

impl Bot<'_> {
    /// Notes what a server has, by its own word.
    pub(crate) fn compare(&mut self, url: &ServerUrl) -> Result<bool, Crash> {
        self.world.step()?;
        let at = self.world.host(url);
        let Ok(ids) = self.world.holdings(at) else { return Ok(false) };
        let mut holdings = Holdings::default();
        holdings.add(ids.iter().filter_map(|id| self.disk.events.get(id)));
        self.kept.holdings.insert(Target::Host(at), holdings);
        Ok(true)
    }

    /// Remembers since when servers are down, and marks those that are lost.
    pub(crate) fn note_down(&mut self, servers: &mut Servers) -> Result<(), Crash> {
        self.world.step()?;
        let now = self.world.now;
        self.world.ledger.noted = self.world.ledger.answered.clone();
        for (url, server) in servers {
            if server.is_down {
                let since = *self.disk.down.entry(url.clone()).or_insert(now);
                server.is_lost = since + LOST_AFTER_SECS < now;
            } else {
                self.disk.down.remove(url);
            }
        }
        Ok(())
    }

    /// The servers among which a repository's are chosen, those included that rules keep away.
    pub(crate) fn candidates(&self, servers: &Servers) -> BTreeMap<ServerUrl, Candidate> {
        let candidate = |url: &ServerUrl| {
            let server = servers.get(url);
            Candidate {
                grasp: server.map_or(Grasp::Unknown, |server| server.grasp.clone()),
                is_general: true,
                is_found: false,
                is_up: server.is_some_and(|server| !server.is_down),
                is_lost: server.is_some_and(|server| server.is_lost),
            }
        };
        self.world.hosts.iter().map(|host| (host.grasp.url.clone(), candidate(&host.grasp.url))).collect()
    }

    /// Notes which servers could be worked with, and when the others are tried again.
    pub(crate) fn note_tries(&mut self, servers: &Servers, afresh: bool) -> Result<(), Crash> {
        self.world.step()?;
        let now = self.world.time();
        for (url, server) in servers.iter().filter(|(_, server)| !server.left_alone) {
            let at = self.world.host(url);
            if !server.is_down {
                self.disk.tries.remove(url);
                self.world.ledger.tries.remove(&at);
                continue;
            }
            let tries = self.disk.tries.entry(url.clone()).or_default();
            let counted = self.world.ledger.tries.entry(at).or_default();
            if afresh {
                (*tries, *counted) = Default::default();
            }
            tries.failed(url, &Backoff::default(), server.told_secs, "no answer", now);
            *counted = (counted.0 + 1, now.as_secs());
        }
        Ok(())
    }

    /// Forgets what was kept of repositories that are not made of the same events any more.
    pub(crate) fn keep_what_is_as_before(
        &mut self,
        repositories: &[Repository],
        copies: &BTreeMap<Coordinate, String>,
        own: &[Event],
        servers: &Servers,
    ) {
        let of_server =
            |(url, server): (&ServerUrl, &Server)| (url.clone(), (server.grasp.clone(), server.is_lost));
        let grasps = servers.iter().map(of_server).collect();
        let mut known = std::mem::take(&mut self.kept.repositories);
        if self.kept.grasps != grasps {
            known.clear();
        }
        self.kept.grasps = grasps;
        for repository in repositories {
            let Some(known) = known.remove(&repository.coordinate) else { continue };
            let copy = copies.get(&repository.coordinate).map(String::as_str).unwrap_or_default();
            if is_made_of(&known.made_of, repository, own, copy) {
                self.kept.repositories.insert(repository.coordinate.clone(), known);
            }
        }
    }

    /// The repositories that are looked at in depth in this cycle.
    pub(crate) fn due_in_depth(&self, repositories: &[Repository]) -> BTreeSet<Coordinate> {
        let now = self.world.time();
        let known = &self.kept.repositories;
        let checked = repositories.iter().map(|repository| {
            let coordinate = &repository.coordinate;
            let at = known.get(coordinate).map(|known| known.record.deep_checked_at);
            (coordinate, at.unwrap_or_else(|| self.disk.record(coordinate).deep_checked_at))
        });
        rest::due_in_depth(checked, now, INTERVAL_SECS)
    }

    /// How the mirrors of `coordinate` end if there is nothing to do for it.
    pub(crate) fn rests(
        &self,
        coordinate: &Coordinate,
        events: &[Event],
        servers: &Servers,
        patient: bool,
    ) -> Option<Endings> {
        let known = self.kept.repositories.get(coordinate)?;
        let now = self.world.time();
        if !known.proofs.is_empty() {
            let lost = known.record.lost_now(now);
            let talk = conversation::gather(&known.coordinates, events, &lost, now, MAX_EVENTS);
            if talk.thread.iter().any(|(id, _)| !known.thread.contains_key(id)) {
                return None;
            }
        }
        let look = |url: &ServerUrl| match (
            servers.get(url),
            self.kept.holdings.get(&Target::Host(self.world.host(url))),
        ) {
            (Some(Server { left_alone: true, .. }), _) => Look::LeftAlone("no answer"),
            (Some(Server { is_down: true, .. }), _) => Look::Down("no answer"),
            (Some(Server { is_compared: true, .. }), Some(holdings)) => Look::Has(holdings),
            _ => Look::NotSeen,
        };
        rest::endings(known, Terms { now, patient, max_repo_bytes: u64::MAX }, look)
    }

    /// Notes that there was nothing to do for a repository.
    pub(crate) fn rest(&mut self, coordinate: &Coordinate, endings: &Endings) -> Result<(), Crash> {
        let now = self.world.time();
        let Some(known) = self.kept.repositories.get_mut(coordinate) else { return Ok(()) };
        tell!(self.world, "{} rests: {endings:?}", coordinate.identifier);
        self.world.totals.rests += 1;
        let changed = known.rest(endings, now);
        for (url, mirror) in known.record.mirrors.iter_mut() {
            mirror.wait_for_server(self.disk.tries.get(url).and_then(|tries| tries.retry_at));
        }
        let known = known.clone();
        for (url, mirror) in &known.record.mirrors {
            let at = self.world.host(url);
            match endings.get(url) {
                None if mirror.status == MirrorStatus::InSync => {
                    let governing = known.proofs.get(url).map(|proofs| {
                        let ids = proofs.governing.iter().map(|(_, id)| *id);
                        ids.collect::<Vec<EventId>>()
                    });
                    check::was_read_back(self.world, at, coordinate, governing.as_deref());
                }
                Some(Ending::Down(_)) => {
                    self.world.ledger.failed.remove(&(at, coordinate.clone()));
                    // What came since has taken its place in the record.
                    self.world.ledger.told.remove(&(at, coordinate.clone()));
                }
                _ => {}
            }
        }
        if changed {
            self.world.step()?;
            self.disk.write_record(coordinate, &known.record);
        }
        Ok(())
    }

    /// Keeps what was seen of a repository that was walked.
    pub(crate) fn keep(&mut self, coordinate: Coordinate, known: Known, record: RepositoryRecord) {
        self.kept.repositories.insert(coordinate, Known { record, ..known });
    }
}

impl Subject {
    /// What is kept of it.
    pub(crate) fn known(&self) -> Known {
        let proof = |id: &EventId| self.events.get(id).map(|event| (event.pubkey, event.id));
        let proofs = self.wanted.iter().map(|(server, wanted)| {
            let governing = wanted.governing.iter().filter_map(proof).collect();
            let attached = wanted.attached.iter().filter_map(proof).collect();
            (server.clone(), Proofs { governing, attached })
        });
        Known {
            state: self.repository.state.as_ref().map(|state| state.event.id),
            made_of: self.made_of.clone(),
            coordinates: self.repository.coordinates(),
            thread: self.thread.iter().copied().collect(),
            relays: Box::default(),
            fingerprint: self.fingerprint.clone(),
            places: self.places.clone().into(),
            proofs: proofs.collect(),
            obstacle: self.repository.obstacle.as_ref().map(in_the_way),
            record: RepositoryRecord::default(),
            notes: Vec::new(),
        }
    }

    /// Notes, when the cycle ends, that it was looked at in depth.
    pub(crate) fn note_depth(&mut self, now: u64) {
        let in_sync = self.record.mirrors.values().all(|mirror| mirror.status == MirrorStatus::InSync);
        if self.in_depth || self.record.deep_checked_at.is_none() && in_sync {
            self.record.deep_checked_at = Some(now);
        }
    }
}

/// What maintainers signed to make `repository`.
pub(crate) fn sources(repository: &Repository) -> BTreeSet<EventId> {
    let announcements = repository.announcements.iter().map(Announcement::id);
    announcements.chain(repository.state.iter().map(|state| state.event.id)).collect()
}

fn is_made_of(known: &BTreeSet<EventId>, repository: &Repository, own: &[Event], copy: &str) -> bool {
    let now = sources(repository);
    let is_copy = |id: &EventId| {
        own.iter().any(|event| event.id == *id && event.tags.identifier().as_deref() == Some(copy))
    };
    repository.obstacle.is_none() && now.is_subset(known) && known.difference(&now).all(is_copy)
}
