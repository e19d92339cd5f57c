//! One repository: what each server is to have of it, as `src/cycle/subject.rs` works it out.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement, placement::Placement, policy::Blocked, server::ServerUrl, state::State,
        status::MirrorStatus,
    },
    plan::{
        catalog::Repository,
        converge::{Seen, Wanted},
        conversation::{self, PullRequest},
        namespace,
        placement::{self, Place},
        record::{self, RepositoryRecord},
        spread::{Spread, spread},
        wanted::{fingerprint, wanted},
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    types::Timestamp,
};

use super::{Bot, MAX_EVENTS, bot};
use crate::{
    check,
    people::sign,
    rest::{self, Servers},
    world::Crash,
};

/// One repository in one cycle.
pub(crate) struct Subject {
    pub(crate) repository: Repository,
    pub(crate) state: Option<State>,
    pub(crate) places: BTreeMap<ServerUrl, Place>,
    pub(crate) barred: BTreeMap<ServerUrl, (Place, Blocked)>,
    pub(crate) wanted: BTreeMap<ServerUrl, Wanted>,
    pub(crate) seen: BTreeMap<ServerUrl, Seen>,
    pub(crate) events: BTreeMap<EventId, Event>,
    pub(crate) conversation: Vec<EventId>,
    pub(crate) requests: Vec<PullRequest>,
    pub(crate) fingerprint: String,
    pub(crate) record: RepositoryRecord,
    /// Events of the conversation, also those that stay here.
    pub(crate) thread: Vec<(EventId, Timestamp)>,
    /// What it is worked out from.
    pub(crate) made_of: BTreeSet<EventId>,
    pub(crate) in_depth: bool,
}

impl Bot<'_> {
    pub(super) fn subject(
        &mut self,
        mut repository: Repository,
        copy: &str,
        servers: &Servers,
        events: &[Event],
        own: &[Event],
        (afresh, in_depth): (bool, bool),
    ) -> Result<Subject, Crash> {
        let mut record = self.disk.record(&repository.coordinate);
        if self.world.habits.holds {
            self.hold_back(&mut repository, &mut record)?;
        }
        if self.world.habits.signs {
            repository.signed_on = self.signing(&repository)?.signed_on().cloned().collect();
        }
        repository.heed(&record);
        let spread = self.spread(&repository, &record, copy, servers, own);
        record.wanted = Some(spread.wanted);
        if afresh {
            record.look_anew();
        } else if in_depth {
            record.doubt();
        }
        // What had something is followed: its servers are to be empty, too.
        let had_something = self.world.habits.holds && !record.mirrors.is_empty();
        let is_followed = |state: &State| had_something || !state.refs.is_empty();
        let state = repository.state.clone().filter(is_followed).filter(|_| repository.obstacle.is_none());
        let mut subject = Subject {
            repository,
            state,
            places: spread.places,
            barred: spread.barred,
            wanted: BTreeMap::new(),
            seen: BTreeMap::new(),
            events: BTreeMap::new(),
            conversation: Vec::new(),
            requests: Vec::new(),
            fingerprint: String::new(),
            record,
            thread: Vec::new(),
            made_of: BTreeSet::new(),
            in_depth,
        };
        subject.made_of = rest::sources(&subject.repository);
        let Some(state) = subject.state.clone() else { return Ok(subject) };
        let copies = self.sign_copies(&subject, &state, copy, servers, own)?;
        let now = self.world.time();
        let talk = conversation::gather(
            &subject.repository.coordinates(),
            events,
            &subject.record.lost_now(now),
            now,
            MAX_EVENTS,
        );
        let mut known: BTreeMap<EventId, Event> =
            copies.iter().map(|event| (event.id, event.clone())).collect();
        for announcement in &subject.repository.announcements {
            known.insert(announcement.id(), announcement.event.clone());
        }
        known.insert(state.event.id, state.event.clone());
        subject.made_of = known.keys().copied().collect();
        subject.wanted = subject
            .places
            .iter()
            .map(|(server, place)| {
                let wanted = wanted(&subject.repository, &state, server, place, &copies, &talk.events);
                (server.clone(), wanted)
            })
            .collect();
        let talked = events.iter().filter(|event| talk.events.contains(&event.id));
        known.extend(talked.map(|event| (event.id, event.clone())));
        subject.fingerprint = fingerprint(&talk.events);
        subject.requests = talk.pull_requests;
        subject.thread = talk.thread;
        subject.conversation = talk.events;
        subject.events = known;
        Ok(subject)
    }

    /// Where a repository belongs.
    fn spread(
        &mut self,
        repository: &Repository,
        record: &RepositoryRecord,
        copy: &str,
        servers: &Servers,
        own: &[Event],
    ) -> Spread {
        let announced = own.iter().find(|event| {
            event.kind == Kind::GitRepoAnnouncement && event.tags.identifier().as_deref() == Some(copy)
        });
        let announced = announced.cloned().and_then(Announcement::read);
        let holds = |url: &ServerUrl| {
            let mirror = record.mirrors.get(url);
            mirror.is_some_and(|mirror| mirror.status != MirrorStatus::Blocked)
                || announced.as_ref().is_some_and(|announcement| announcement.lists(url))
        };
        let candidates = self.candidates(servers);
        let spread = spread(repository, &candidates, holds, self.policy, self.usual, (&bot(), copy));
        let held: BTreeSet<ServerUrl> = candidates.keys().filter(|url| holds(url)).cloned().collect();
        check::moves_what_is_lost_only(self.world, repository, &held, &spread);
        spread
    }

    /// What the bot says in its own namespace of a repository, signed where it is not said yet.
    fn sign_copies(
        &mut self,
        subject: &Subject,
        state: &State,
        copy: &str,
        servers: &Servers,
        own: &[Event],
    ) -> Result<Vec<Event>, Crash> {
        let announced = placement::announced_servers(&subject.places, &rest::grasps(servers));
        let mut copies = Vec::new();
        if !announced.is_empty() {
            let follows = subject.places.values().any(|place| place.placement == Placement::Lead);
            let lead = subject.repository.lead().filter(|_| follows);
            let announcement = namespace::announcement(&subject.repository, &bot(), copy, &announced, lead);
            let copied = lead.is_none().then(|| namespace::state(state, copy));
            for draft in announcement.into_iter().chain(copied) {
                let existing =
                    own.iter().find(|e| e.kind == draft.kind && e.tags.identifier().as_deref() == Some(copy));
                let event = match (draft.unless_said(existing), existing) {
                    (None, Some(existing)) => existing.clone(),
                    (Some(draft), _) => {
                        let event = sign(bot(), draft);
                        self.world.step()?;
                        self.disk.save(&event);
                        event
                    }
                    (None, None) => continue,
                };
                copies.push(event);
            }
        }
        Ok(copies)
    }
}

impl Subject {
    pub(super) fn note_served(&mut self, url: &ServerUrl, served: &BTreeSet<EventId>, now: u64) {
        let Some(wanted) = self.wanted.get(url) else { return };
        let record = self.record.mirrors.get(url);
        let mut seen = Seen {
            served: wanted.proofs().copied().filter(|id| served.contains(id)).collect(),
            fresh: true,
            refused: record.map(|record| record.refused.clone()).unwrap_or_default(),
            refs_differ: record::doubts(record, wanted),
            ..Seen::default()
        };
        let held = record.and_then(|record| record.conversation.as_ref());
        let now = Timestamp::from_secs(now);
        if held.is_some_and(|held| held.covers(&self.fingerprint, now)) && wanted.is_proved_by(&seen) {
            seen.lacks = Some(BTreeSet::new());
        }
        self.seen.insert(url.clone(), seen);
    }
}
