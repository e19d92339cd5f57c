//! One repository: what each server is to have of it, worked out from the catalog and the stored conversation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grasp_mirror_commands::clean;
use nostr::prelude::{Event, EventId, Timestamp};

use super::{CycleError, copy::OwnCopies, shared::Joined, threads::relays_of, world::World};
use crate::{
    model::{
        announcement::Announcement, coordinate::Coordinate, policy::Blocked, server::ServerUrl, state::State,
        status::MirrorStatus,
    },
    plan::{
        catalog::{Obstacle, Repository},
        converge::{Seen, Wanted},
        conversation::{Conversation, PullRequest, Threads},
        per_server::Places,
        placement::Place,
        record::{Ending, REASON_MAX, RepositoryRecord},
        rest::{Known, Proofs},
        spread::{Candidate, LeftOut, Spread, Usual, spread},
        wanted::{fingerprint, wanted},
    },
};

/// One repository with all its mirrors.
#[derive(Debug)]
pub struct Subject {
    /// What is wanted.
    pub repository: Repository,
    /// Why nothing can be done for it.
    pub obstacle: Option<Obstacle>,
    /// What each server is to have.
    pub wanted: BTreeMap<ServerUrl, Wanted>,
    /// What each server that answered serves already.
    pub seen: BTreeMap<ServerUrl, Seen>,
    /// Servers that could not be asked, and for which there is nothing new: their mirrors stand as they stood.
    pub standing: BTreeSet<ServerUrl>,
    /// Where it belongs, also when there is nothing to mirror yet.
    pub places: Places,
    /// Where it would belong but for a rule about the server.
    pub barred: BTreeMap<ServerUrl, (Place, Blocked)>,
    /// Where it does not, and why.
    pub left_out: BTreeMap<ServerUrl, LeftOut>,
    /// Whether the operator's rules forbid it altogether.
    pub is_denied: bool,
    /// The conversation, in order: everything there is to send beside announcements and states.
    pub conversation: Vec<EventId>,
    /// Pull requests, whose commits may have to be fetched.
    pub pull_requests: Vec<PullRequest>,
    /// Fingerprint of the conversation.
    pub fingerprint: String,
    /// All events of the conversation with their dates, also those that are not forwarded.
    pub thread: Vec<(EventId, Timestamp)>,
    /// Whether its turn has come to be looked at in depth.
    pub in_depth: bool,
    /// The announcements and states that `wanted` names. The conversation is loaded when somebody lacks it.
    pub events: Arc<BTreeMap<EventId, Event>>,
    /// What was remembered of its mirrors.
    pub record: RepositoryRecord,
    /// What people should know.
    pub notes: Vec<String>,
    /// Keeps jobs away from it; `None` where the caller does.
    pub(super) turn: Option<Joined>,
}

/// What subjects are worked out from, beside the repository.
pub(super) struct Ground<'a> {
    pub(super) candidates: &'a BTreeMap<ServerUrl, Candidate>,
    pub(super) own: &'a OwnCopies,
    pub(super) copies: &'a BTreeMap<Coordinate, String>,
    pub(super) in_depth: &'a BTreeSet<Coordinate>,
    pub(super) now: Timestamp,
}

impl World {
    /// Works out one repository's mirrors.
    pub(super) fn subject(
        &self,
        mut repository: Repository,
        mut record: RepositoryRecord,
        threads: &Threads<'_>,
        ground: &Ground<'_>,
    ) -> Result<(Subject, Vec<Event>), CycleError> {
        let copy = ground.copies.get(&repository.coordinate).map(String::as_str).unwrap_or_default();
        repository.heed(&record);
        let spread = self.spread(&repository, &record, copy, ground);
        let denied = self.policy.admits_all(&repository.coordinates());
        record.wanted = Some(if denied.is_ok() { spread.wanted } else { 0 });
        let left_out = spread.left_out.iter();
        record.left_out =
            left_out.map(|(url, why)| (url.clone(), clean(&why.to_string(), REASON_MAX))).collect();
        let is_denied = denied.is_err();
        let obstacle = match denied {
            Err(rule) => Some(Obstacle::Limit(rule.to_string())),
            Ok(()) => repository.obstacle.clone(),
        };
        let in_depth = ground.in_depth.contains(&repository.coordinate);
        if self.is_afresh(&repository.coordinate) {
            record.look_anew();
        } else if in_depth {
            record.doubt();
        }
        let mut subject = Subject {
            obstacle,
            wanted: BTreeMap::new(),
            seen: BTreeMap::new(),
            standing: BTreeSet::new(),
            places: spread.places.into(),
            barred: spread.barred,
            left_out: spread.left_out,
            is_denied,
            conversation: Vec::new(),
            pull_requests: Vec::new(),
            fingerprint: String::new(),
            thread: Vec::new(),
            in_depth,
            events: Arc::default(),
            record,
            notes: Vec::new(),
            turn: None,
            repository,
        };
        let Some(state) = subject.state_to_mirror() else { return Ok((subject, Vec::new())) };
        let signed = self.sign_copy(&subject, &state, copy, ground)?;
        let in_namespace = subject.places.values().any(|place| place.own);
        if in_namespace && copy != subject.repository.coordinate.identifier {
            subject.notes.push(format!(
                "its copies are called {copy}, since another owner's have its name; servers take their git data, \
                 not the conversation"
            ));
        }
        let talk = threads.around(
            &subject.repository.coordinates(),
            &subject.record.lost_now(ground.now),
            ground.now,
            self.config.limits.max_events_per_repo,
        );
        subject.want(&state, &signed.current, talk);
        Ok((subject, signed.new))
    }

    /// Where a repository belongs.
    fn spread(
        &self,
        repository: &Repository,
        record: &RepositoryRecord,
        copy: &str,
        ground: &Ground<'_>,
    ) -> Spread {
        // On a blank machine the bot's announcement remembers where its copies are.
        let announced = ground.own.announcement(copy);
        let holds = |url: &ServerUrl| {
            let mirror = record.mirrors.get(url);
            mirror.is_some_and(|mirror| mirror.status != MirrorStatus::Blocked)
                || announced.as_ref().is_some_and(|announcement| announcement.lists(url))
        };
        let usual =
            Usual { reach: self.config.mirror.reach, copies_wanted: self.config.mirror.copies_wanted };
        spread(repository, ground.candidates, holds, &self.policy, usual, (&self.bot(), copy))
    }
}

impl Subject {
    /// The state that its servers are to serve; without one there is nothing to mirror.
    fn state_to_mirror(&mut self) -> Option<State> {
        if self.obstacle.is_some() {
            return None;
        }
        match &self.repository.state {
            None => {
                self.notes.push("empty: no maintainer has signed a state yet".to_owned());
                None
            }
            // One that had something is followed: its servers are to be empty, too.
            Some(state) if state.refs.is_empty() && self.record.mirrors.is_empty() => {
                self.notes.push("empty: the signed state names no branches and tags".to_owned());
                None
            }
            Some(state) => Some(state.clone()),
        }
    }

    /// Each server is to have `state`, the bot's own `copies` of it and `talk`.
    fn want(&mut self, state: &State, copies: &[Event], talk: Conversation) {
        if talk.truncated {
            self.notes.push("only part of its events: limits.max_events_per_repo is reached".to_owned());
        }
        if talk.kept_home > 0 {
            tracing::debug!(repository = %self.repository.coordinate, events = talk.kept_home, "protected or expired, not forwarded");
        }
        let announcements = self.repository.announcements.iter().map(|announcement| &announcement.event);
        let events = announcements.chain([&state.event]).chain(copies);
        self.events = Arc::new(events.map(|event| (event.id, event.clone())).collect());
        self.fingerprint = fingerprint(&talk.events);
        let wanted = self.places.iter().map(|(server, place)| {
            (server.clone(), wanted(&self.repository, state, server, place, copies, &talk.events))
        });
        self.wanted = wanted.collect();
        self.pull_requests = talk.pull_requests;
        self.conversation = talk.events;
        self.thread = talk.thread;
    }

    /// What is kept of it when the cycle is over; the record and the notes are filled in then.
    pub(super) fn known(&self) -> Known {
        let proof = |id: &EventId| self.events.get(id).map(|event| (event.pubkey, event.id));
        let proofs = self.wanted.iter().map(|(server, wanted)| {
            let governing = wanted.governing.iter().filter_map(proof).collect();
            let attached = wanted.attached.iter().filter_map(proof).collect();
            (server.clone(), Proofs { governing, attached })
        });
        let mut made_of: BTreeSet<EventId> = self.events.keys().copied().collect();
        if self.wanted.is_empty() {
            made_of.extend(self.repository.announcements.iter().map(Announcement::id));
            made_of.extend(self.repository.state_id());
        }
        Known {
            state: self.repository.state_id(),
            made_of,
            coordinates: self.repository.coordinates(),
            thread: self.thread.iter().copied().collect(),
            relays: relays_of(&self.repository),
            fingerprint: self.fingerprint.clone(),
            places: self.places.clone(),
            proofs: proofs.collect(),
            obstacle: self.obstacle.as_ref().map(in_the_way),
            record: RepositoryRecord::default(),
            notes: Vec::new(),
        }
    }
}

/// How every mirror ends when something is in the way of all.
pub(super) fn in_the_way(obstacle: &Obstacle) -> Ending {
    match obstacle {
        Obstacle::Limit(reason) => Ending::Blocked(reason.clone()),
        Obstacle::Signed(reason) => Ending::Failed(reason.clone()),
    }
}
