//! One repository's part of a cycle, as `src/cycle/repository.rs` walks it.

use std::collections::BTreeMap;

use grasp_mirror::{
    model::{
        coordinate::Coordinate, draft::Draft, placement::Placement, replace::dated_after, server::ServerUrl,
        status::MirrorStatus,
    },
    plan::{
        converge::{Answer, Outcome, Seen, Step, Wanted, next_step},
        record::{self, Ending, HeldConversation, MirrorRecord, RepositoryRecord},
        retry::{Backoff, Failure, Tried},
        wanted::fingerprint,
    },
};
use nostr::{
    event::{EventId, Kind},
    types::Timestamp,
};

use super::{Bot, Subject, bot};
use crate::{
    check,
    people::sign,
    rest::{self, Servers},
    walk::{OVERTAKEN, Walk},
    world::{Crash, Ledger, tell},
};

type End = (Ending, Seen, Option<HeldConversation>);

/// What a record says for the next walk. It counts from when it is written.
struct Recorded {
    refused: Vec<(usize, EventId)>,
    failed: BTreeMap<(usize, Coordinate), (Option<EventId>, u32, u64)>,
    told: BTreeMap<(usize, Coordinate), u64>,
}

impl Recorded {
    fn of(ledger: &Ledger) -> Self {
        Self { refused: Vec::new(), failed: ledger.failed.clone(), told: ledger.told.clone() }
    }

    /// The mirror called `name` ended so, which makes `record` of it.
    fn note(
        &mut self,
        name: (usize, Coordinate),
        (ending, seen, _): &End,
        record: &MirrorRecord,
        state: Option<EventId>,
        now: u64,
    ) {
        let for_good = seen.answers.iter().filter(|(id, answer)| {
            let words = matches!(answer, Answer::Refused(words) if record::is_for_good(words));
            words && record.refused.contains_key(*id)
        });
        self.refused.extend(for_good.map(|(id, _)| (name.0, *id)));
        match ending.told_secs() {
            Some(secs) => self.told.insert(name.clone(), now + secs),
            // What came since has taken its place in the record.
            None => self.told.remove(&name),
        };
        // What failed with its server begins anew with it.
        if record.failures > 0 && record.failure != Some(Failure::ServerDown) {
            let (of, count, last) = self.failed.entry(name).or_insert((state, 0, 0));
            *count = if *of == state { *count + 1 } else { 1 };
            (*of, *last) = (state, now);
        } else {
            self.failed.remove(&name);
        }
    }

    fn write(self, ledger: &mut Ledger) {
        ledger.refused.extend(self.refused);
        (ledger.failed, ledger.told) = (self.failed, self.told);
    }
}

impl Bot<'_> {
    /// Walks all mirrors of one repository and remembers how they ended.
    pub(super) fn mirror(
        &mut self,
        mut subject: Subject,
        servers: &Servers,
        patient: bool,
        afresh: bool,
    ) -> Result<RepositoryRecord, Crash> {
        self.begin_to_follow(&mut subject)?;
        let coordinate = subject.repository.coordinate.clone();
        let endings: BTreeMap<ServerUrl, End> = match &subject.repository.obstacle {
            Some(obstacle) => {
                let ending = rest::in_the_way(obstacle);
                subject
                    .places
                    .keys()
                    .map(|url| (url.clone(), (ending.clone(), Seen::default(), None)))
                    .collect()
            }
            None if subject.wanted.is_empty() => {
                // A repository that was emptied is forgotten, with what servers refused of it.
                self.world.ledger.refused.clear();
                self.world.ledger.failed.clear();
                self.world.ledger.told.clear();
                BTreeMap::new()
            }
            None => self.walk_mirrors(&mut subject, servers, patient, afresh)?,
        };
        let mut recorded = Recorded::of(&self.world.ledger);
        let mut mirrors = self.records_after(&subject, &endings, &mut recorded);
        let now = self.world.time();
        for (server, (place, rule)) in subject.barred.iter().filter(|_| !subject.wanted.is_empty()) {
            let before = subject.record.mirrors.get(server);
            let (ending, nothing) = (Ending::Blocked(rule.to_string()), Seen::default());
            let held = before.and_then(|before| before.conversation.clone());
            let record = record::after(before, place.placement, ending, &nothing, &[], held, now);
            mirrors.insert(server.clone(), record);
        }
        for server in subject.record.mirrors.keys().filter(|server| !mirrors.contains_key(*server)) {
            // It has its copy no more, and what is remembered of it goes.
            let at = self.world.host(server);
            recorded.failed.remove(&(at, coordinate.clone()));
            recorded.told.remove(&(at, coordinate.clone()));
            self.world.ledger.refused.retain(|(host, _)| *host != at);
        }
        subject.record.mirrors = mirrors.into();
        subject.note_depth(now.as_secs());
        self.note_cool_downs()?;
        self.world.step()?;
        self.disk.write_record(&coordinate, &subject.record);
        recorded.write(&mut self.world.ledger);
        Ok(subject.record)
    }

    /// What is remembered of each mirror from now on. One whose turn it was not stands as it stood.
    fn records_after(
        &mut self,
        subject: &Subject,
        endings: &BTreeMap<ServerUrl, End>,
        recorded: &mut Recorded,
    ) -> BTreeMap<ServerUrl, MirrorRecord> {
        let (now, coordinate) = (self.world.time(), &subject.repository.coordinate);
        let state = subject.repository.state.as_ref().map(|state| state.event.id);
        let mut mirrors = BTreeMap::new();
        for (server, place) in &subject.places {
            let before = subject.record.mirrors.get(server);
            let Some(end @ (ending, seen, held)) = endings.get(server) else {
                let stands = before.filter(|_| !subject.wanted.is_empty());
                mirrors.extend(stands.map(|before| (server.clone(), before.clone())));
                continue;
            };
            let wanted = subject.wanted.get(server);
            let governing = wanted.map(|wanted| wanted.governing.as_slice());
            let mut record = record::after(
                before,
                place.placement,
                ending.clone(),
                seen,
                governing.unwrap_or_default(),
                held.clone(),
                now,
            );
            let tried = Tried { repository: Some(coordinate), server, state };
            Backoff::default().schedule(&mut record, before, &tried, ending.told_secs(), now);
            record.wait_for_server(self.disk.tries.get(server).and_then(|tries| tries.retry_at));
            let at = self.world.host(server);
            tell!(
                self.world,
                "{} on server {at}: {:?} {:?}, {} failures",
                coordinate.identifier,
                record.status,
                record.reason,
                record.failures
            );
            if record.status == MirrorStatus::InSync {
                check::was_read_back(self.world, at, coordinate, governing);
            }
            recorded.note((at, coordinate.clone()), end, &record, state, now.as_secs());
            mirrors.insert(server.clone(), record);
        }
        mirrors
    }

    fn walk_mirrors(
        &mut self,
        subject: &mut Subject,
        servers: &Servers,
        patient: bool,
        afresh: bool,
    ) -> Result<BTreeMap<ServerUrl, End>, Crash> {
        let now = self.world.time();
        if afresh || subject.in_depth {
            self.compare_refs(subject)?;
            self.renew_state(subject)?;
        }
        let git = if self.world.is_overtaken(&subject.repository.coordinate.identifier) {
            Err(Ending::Waiting(OVERTAKEN.to_owned()))
        } else {
            self.bring(subject)?
        };
        let state = subject.repository.state.as_ref().map(|state| state.event.id);
        let mut endings: BTreeMap<ServerUrl, End> = BTreeMap::new();
        let mut lacking = Vec::new();
        for url in subject.wanted.keys().cloned().collect::<Vec<_>>() {
            let before = subject.record.mirrors.get(&url);
            let cools_down = self.world.habits.cools_down && !afresh;
            if before.is_some_and(|record| {
                patient && record.waits(state, now) || cools_down && record.cools_down(now)
            }) {
                continue;
            }
            let waited_for_server = before.is_some_and(|record| record.failure == Some(Failure::ServerDown));
            let Some(seen) = subject.seen.get(&url).cloned() else {
                if waited_for_server && servers.get(&url).is_some_and(|server| server.left_alone) {
                    continue;
                }
                let ending = Ending::Down("the server is down".to_owned());
                endings.insert(url, (ending, Seen::default(), None));
                continue;
            };
            if patient {
                check::has_waited(self.world, &url, &subject.repository.coordinate, state);
            }
            if !self.is_its_turn(&subject.wanted[&url], &seen) {
                let ending = Ending::Waiting("waits its turn".to_owned());
                endings.insert(url, (ending, Seen::default(), None));
                continue;
            }
            let asked = seen.lacks.is_none();
            let wanted = Wanted { conversation: Vec::new(), ..subject.wanted[&url].clone() };
            let (ending, seen) = self.walk(subject, wanted, seen, &git, afresh)?;
            if asked && ending == Ending::Settled(Outcome::InSync) {
                lacking.push((url, seen));
                continue;
            }
            let held = subject.record.mirrors.get(&url).and_then(|record| record.conversation.clone());
            endings.insert(url, (ending, seen, held.filter(|_| !asked)));
        }
        if git.is_ok() {
            self.move_refs(subject, state)?;
        }
        if !lacking.is_empty() {
            endings.extend(self.converse(subject, lacking, &git, afresh, now)?);
        }
        Ok(endings)
    }

    /// Makes the local refs those of the state.
    fn move_refs(&mut self, subject: &mut Subject, state: Option<EventId>) -> Result<(), Crash> {
        self.world.step()?;
        let refs = subject.state.as_ref().map(|state| state.refs.clone()).unwrap_or_default();
        let names = refs.keys().map(ToString::to_string).collect();
        let followed = &mut self.world.ledger.decisions.followed;
        followed.insert(subject.repository.coordinate.clone(), names);
        self.disk.copies.entry(subject.repository.coordinate.clone()).or_default().refs = refs;
        subject.record.local = state;
        Ok(())
    }

    /// The conversation, for servers that have the branches and were seen so.
    fn converse(
        &mut self,
        subject: &mut Subject,
        servers: Vec<(ServerUrl, Seen)>,
        git: &Result<(), Ending>,
        afresh: bool,
        now: Timestamp,
    ) -> Result<Vec<(ServerUrl, End)>, Crash> {
        let mut endings = Vec::new();
        let talk = self.prepare_conversation(subject, git.is_ok())?;
        for (url, seen) in servers {
            let wanted = Wanted {
                conversation: talk.events.clone(),
                pull_requests: talk.requests.clone(),
                ..subject.wanted[&url].clone()
            };
            let (ending, seen) =
                self.walk(subject, wanted.clone(), Seen { lacks: None, ..seen }, git, afresh)?;
            let holds = match &seen.lacks {
                Some(lacks) => lacks.iter().all(|id| seen.refused.contains_key(id)),
                None => wanted.conversation.is_empty() || !wanted.takes_conversation(&seen),
            };
            let complete = ending == Ending::Settled(Outcome::InSync) && holds;
            let held = HeldConversation { fingerprint: fingerprint(&talk.events), seen_at: now.as_secs() };
            endings.push((url, (ending, seen, complete.then_some(held))));
        }
        Ok(endings)
    }

    /// Whether there is time left in this cycle for a mirror that has something to do.
    fn is_its_turn(&mut self, wanted: &Wanted, seen: &Seen) -> bool {
        if matches!(next_step(wanted, seen), Step::Settled(_)) {
            return true;
        }
        let Some(most) = self.world.turns else { return true };
        let taken = self.turns.entry(wanted.server.clone()).or_default();
        *taken += 1;
        *taken <= most
    }

    fn walk(
        &mut self,
        subject: &Subject,
        wanted: Wanted,
        seen: Seen,
        git: &Result<(), Ending>,
        insists: bool,
    ) -> Result<(Ending, Seen), Crash> {
        let at = self.world.host(&wanted.server);
        let of = subject.repository.state.as_ref().map(|state| state.event.id);
        let mut walk = Walk {
            world: self.world,
            disk: self.disk,
            at,
            wanted,
            seen,
            events: &subject.events,
            git: git.clone(),
            refusal: None,
            of,
            insists,
            cooling: &mut self.kept.cooling,
            concerns: self.kept.listening.as_ref().map(|listening| &listening.concerns),
        };
        let ending = walk.run()?;
        Ok((ending, walk.seen))
    }

    /// Notes which servers serve the state and list other refs all the same.
    fn compare_refs(&mut self, subject: &mut Subject) -> Result<(), Crash> {
        for (url, wanted) in &subject.wanted {
            let served = |seen: &&mut Seen| wanted.state.is_some_and(|state| seen.served.contains(&state));
            let Some(seen) = subject.seen.get_mut(url).filter(served) else { continue };
            self.world.step()?;
            let at = self.world.host(url);
            if let Ok(Some(listed)) = self.world.list(at, &wanted.place.path) {
                let listed: BTreeMap<String, _> =
                    listed.into_iter().filter(|(name, _)| !name.starts_with("refs/nostr/")).collect();
                let signed: BTreeMap<String, _> =
                    wanted.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect();
                seen.refs_differ = listed != signed;
            }
        }
        Ok(())
    }

    /// Signs the state of the copy anew where a server lost the copy's git data.
    fn renew_state(&mut self, subject: &mut Subject) -> Result<(), Crash> {
        let is_copy = |wanted: &Wanted| wanted.place.placement == Placement::Namespace;
        let lost = subject.wanted.values().find(|wanted| {
            is_copy(wanted) && subject.seen.get(&wanted.server).is_some_and(|seen| seen.refs_differ)
        });
        let old = lost.and_then(|wanted| wanted.state).and_then(|id| subject.events.get(&id)).cloned();
        let Some(old) = old else { return Ok(()) };
        let renewed = Draft {
            kind: Kind::RepoState,
            tags: old.tags.iter().cloned().collect(),
            content: old.content.clone(),
            created_at: dated_after(Some(&old), self.world.time()),
        };
        let renewed = sign(bot(), renewed);
        self.world.step()?;
        self.disk.save(&renewed);
        for wanted in subject.wanted.values_mut().filter(|wanted| is_copy(wanted)) {
            for id in wanted.governing.iter_mut().chain(&mut wanted.state).filter(|id| **id == old.id) {
                *id = renewed.id;
            }
            if let Some(seen) = subject.seen.get_mut(&wanted.server) {
                seen.refs_differ = false;
            }
        }
        subject.events.insert(renewed.id, renewed);
        Ok(())
    }
}
