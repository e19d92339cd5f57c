//! A cycle of the bot, as `src/cycle` runs it: the decisions are the program's own, the hands are these.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement,
        coordinate::Coordinate,
        placement::Placement,
        policy::{Blocked, Policy},
        replace::dated_after,
        server::ServerUrl,
        state::State,
        status::MirrorStatus,
    },
    plan::{
        catalog::{self, Limits, Repository},
        converge::{Answer, Outcome, Seen, Step, Wanted, next_step},
        conversation::{self, PullRequest},
        namespace,
        placement::{self, Grasp, Place},
        record::{self, Ending, HeldConversation, RepositoryRecord},
        retry::{Backoff, Failure, Tried, retry_after_secs},
        spread::{Usual, spread},
        wanted::{fingerprint, wanted},
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
    types::Timestamp,
};

use crate::{
    check,
    disk::Disk,
    people::{key, sign},
    rest::{self, Kept, Server, Servers},
    walk::{OVERTAKEN, Walk},
    world::{Crash, Home, Trouble, World, tell},
};

pub(crate) const LIMITS: Limits = Limits { max_refs: 100, max_repos_per_author: 10 };
pub(crate) const MAX_EVENTS: usize = 100;

/// The bot's key.
#[must_use]
pub fn bot() -> PublicKey {
    key(0)
}

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

/// Whether the event may belong to a conversation: that is read, not compared.
fn is_talk(event: &Event) -> bool {
    let kind = event.kind;
    conversation::may_be_of_kind(kind.as_u16()) && kind != Kind::EventDeletion && !kind.is_replaceable()
}

type End = (Ending, Seen, Option<HeldConversation>);

/// The bot while it lives: what it knows beside its disk.
pub struct Bot<'a> {
    /// Around it.
    pub world: &'a mut World,
    /// What survives it.
    pub disk: &'a mut Disk,
    /// What it remembers as long as it lives.
    pub kept: &'a mut Kept,
    /// The operator's rules.
    pub policy: &'a Policy,
    /// How far to spread, and how many copies are wanted.
    pub usual: Usual,
    /// Mirrors that had their turn in this cycle, by server.
    pub turns: BTreeMap<ServerUrl, usize>,
}

impl Bot<'_> {
    /// One cycle. `patient` says that failing mirrors wait for their next try, `afresh` that nothing is believed.
    ///
    /// # Errors
    ///
    /// [`Crash`].
    pub fn cycle(&mut self, patient: bool, afresh: bool) -> Result<(), Crash> {
        if self.disk.paused {
            return Ok(());
        }
        self.world.totals.cycles += 1;
        self.turns.clear();
        self.world.ledger.sent.clear();
        self.world.ledger.pushed.clear();
        self.world.ledger.said_to_serve.clear();
        self.world.ledger.overtaken.clear();
        // What a bot heard that was killed before it wrote that down is lost.
        self.world.ledger.answered = self.world.ledger.noted.clone();
        if afresh {
            self.world.ledger.refused.clear();
            self.world.ledger.failed.clear();
            // Who asks for it ends what servers said before.
            self.world.ledger.cools.clear();
            self.world.ledger.told.clear();
        }
        tell!(self.world, "cycle, patient: {patient}, afresh: {afresh}");
        self.take_up()?;
        let mut servers = self.look(afresh)?;
        if self.world.habits.spreads {
            self.note_down(&mut servers)?;
        }
        let events: Vec<Event> = self.disk.events.values().cloned().collect();
        let catalog = catalog::build(&events, &self.disk.watched, &bot(), LIMITS);
        let own: Vec<Event> = events.iter().filter(|event| event.pubkey == bot()).cloned().collect();
        let announced: Vec<Announcement> = own.iter().cloned().filter_map(Announcement::read).collect();
        let copies = namespace::identifiers(&catalog.repositories, &announced);
        let catalogued = if self.world.habits.hands_on { catalog.repositories.clone() } else { Vec::new() };
        let (mut subjects, mut resting) = (Vec::new(), Vec::new());
        let mut in_depth = BTreeSet::new();
        if self.world.habits.rests {
            self.keep_what_is_as_before(&catalog.repositories, &copies, &own, &servers);
            in_depth = self.due_in_depth(&catalog.repositories);
        }
        for repository in catalog.repositories {
            let coordinate = &repository.coordinate;
            let deep = in_depth.contains(coordinate);
            let known = self.kept.repositories.get(coordinate);
            let decided = known.is_some_and(|known| self.is_decided(coordinate, &known.record));
            let rests = self.world.habits.rests && !afresh && !deep && !decided;
            if let Some(endings) = rests.then(|| self.rests(coordinate, &events, &servers, patient)).flatten()
            {
                resting.push((coordinate.clone(), endings));
                continue;
            }
            let copy = copies.get(coordinate).cloned().unwrap_or_default();
            let mut subject = self.subject(repository, &copy, &servers, &events, &own, (afresh, deep))?;
            subject.in_depth = deep;
            subjects.push(subject);
        }
        let up = |(url, server): (&ServerUrl, &Server)| (!server.is_down).then(|| url.clone());
        for url in &servers.iter().filter_map(up).collect::<Vec<_>>() {
            self.world.step()?;
            let at = self.world.host(url);
            let ids: Vec<EventId> = subjects
                .iter()
                .filter_map(|subject| subject.wanted.get(url))
                .flat_map(|wanted| wanted.proofs().copied())
                .collect();
            match self.world.serves(at, &ids) {
                Ok(served) => {
                    for subject in &mut subjects {
                        subject.note_served(url, &served, self.world.now);
                    }
                }
                Err(_) => {
                    servers.entry(url.clone()).and_modify(|server| server.is_down = true);
                }
            }
        }
        if self.world.habits.leaves_alone {
            self.note_tries(&servers, afresh)?;
        }
        for (coordinate, _) in &resting {
            let held = self.kept.repositories.get(coordinate).and_then(|known| known.record.held.clone());
            check::decisions_are_minded(self.world, coordinate, held.as_ref());
        }
        for (coordinate, endings) in resting {
            self.rest(&coordinate, &endings)?;
        }
        for subject in subjects {
            let (coordinate, known) = (subject.repository.coordinate.clone(), subject.known());
            let record = self.mirror(subject, &servers, patient, afresh)?;
            self.keep(coordinate, known, record);
        }
        if self.world.habits.hands_on {
            self.listen(&catalogued, &events);
        }
        Ok(())
    }

    /// Asks servers who they are, and everybody for events.
    fn look(&mut self, afresh: bool) -> Result<Servers, Crash> {
        let mut servers = BTreeMap::new();
        for at in 0..self.world.hosts.len() {
            let url = self.world.hosts[at].grasp.url.clone();
            if self.policy.admits_server(&url).is_err() {
                continue;
            }
            let now = self.world.time();
            let left_alone = !afresh && self.disk.tries.get(&url).is_some_and(|tries| tries.waits(now));
            let (mut is_up, mut told_secs) = (false, None);
            if !left_alone {
                if !afresh {
                    check::server_has_waited(self.world, at);
                }
                self.world.step()?;
                let asked = self.world.ask(at);
                is_up = asked.is_ok();
                if let Err(Trouble::RateLimited(secs)) = asked {
                    told_secs = secs.and_then(|secs| retry_after_secs(&secs.to_string(), now));
                }
            }
            if is_up {
                self.disk.met.insert(at);
            }
            let grasp = if self.disk.met.contains(&at) { Grasp::Full } else { Grasp::Unknown };
            servers.insert(
                url,
                Server { grasp, is_down: !is_up, told_secs, left_alone, is_lost: false, is_compared: false },
            );
        }
        let compares = self.world.habits.relays;
        if compares {
            self.discover(&mut servers)?;
        }
        for at in 0..self.world.relays.len() {
            self.world.step()?;
            let (events, _) = self.world.read_relay(at, is_talk);
            self.save(&events);
        }
        for at in 0..self.world.hosts.len() {
            let url = self.world.hosts[at].grasp.url.clone();
            let Some(server) = servers.get_mut(&url).filter(|server| !server.is_down) else { continue };
            self.world.step()?;
            let events = self.world.read(at).unwrap_or_default();
            self.save(&events);
            if self.world.habits.rests && !compares {
                server.is_compared = self.compare(&url)?;
            }
        }
        Ok(servers)
    }

    /// Takes in what was read. What is compared comes in by that alone, and messages come to the inbox.
    fn save(&mut self, events: &[Event]) {
        let all = !self.world.habits.relays;
        for event in events.iter().filter(|event| all || is_talk(event)) {
            self.disk.save(event);
        }
    }

    fn subject(
        &mut self,
        mut repository: Repository,
        copy: &str,
        servers: &Servers,
        events: &[Event],
        own: &[Event],
        (afresh, in_depth): (bool, bool),
    ) -> Result<Subject, Crash> {
        let usable = rest::grasps(servers);
        let mut record = self.disk.record(&repository.coordinate);
        if self.world.habits.holds {
            self.hold_back(&mut repository, &mut record)?;
        }
        if self.world.habits.signs {
            repository.signed_on = self.signing(&repository)?.signed_on().cloned().collect();
        }
        repository.heed(&record);
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
        let spread = spread(&repository, &candidates, holds, self.policy, self.usual, (&bot(), copy));
        let held: BTreeSet<ServerUrl> = candidates.keys().filter(|url| holds(url)).cloned().collect();
        check::moves_what_is_lost_only(self.world, &repository, &held, &spread);
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
        let announced = placement::announced_servers(&subject.places, &usable);
        let mut copies = Vec::new();
        if !announced.is_empty() {
            let follows = subject.places.values().any(|place| place.placement == Placement::Lead);
            let lead = subject.repository.lead().filter(|_| follows);
            let announcement = namespace::announcement(&subject.repository, &bot(), copy, &announced, lead);
            let copied = lead.is_none().then(|| namespace::state(&state, copy));
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

    /// Walks all mirrors of one repository and remembers how they ended.
    fn mirror(
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
        let now = self.world.time();
        let state = subject.repository.state.as_ref().map(|state| state.event.id);
        let (mut mirrors, mut refused) = (BTreeMap::new(), Vec::new());
        let mut failed = self.world.ledger.failed.clone();
        let mut told = self.world.ledger.told.clone();
        for (server, place) in &subject.places {
            let before = subject.record.mirrors.get(server);
            let governing =
                subject.wanted.get(server).map(|wanted| wanted.governing.as_slice()).unwrap_or_default();
            match endings.get(server) {
                Some((ending, seen, held)) => {
                    let mut record = record::after(
                        before,
                        place.placement,
                        ending.clone(),
                        seen,
                        governing,
                        held.clone(),
                        now,
                    );
                    let tried = Tried { repository: Some(&coordinate), server, state };
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
                    let for_good = seen.answers.iter().filter(|(id, answer)| {
                        let words = matches!(answer, Answer::Refused(words) if record::is_for_good(words));
                        words && record.refused.contains_key(*id)
                    });
                    refused.extend(for_good.map(|(id, _)| (at, *id)));
                    if record.status == MirrorStatus::InSync {
                        let wanted = subject.wanted.get(server);
                        let governing = wanted.map(|wanted| wanted.governing.as_slice());
                        check::was_read_back(self.world, at, &coordinate, governing);
                    }
                    let name = (at, coordinate.clone());
                    match ending.told_secs() {
                        Some(secs) => told.insert(name.clone(), now.as_secs() + secs),
                        // What came since has taken its place in the record.
                        None => told.remove(&name),
                    };
                    // What failed with its server begins anew with it.
                    if record.failures > 0 && record.failure != Some(Failure::ServerDown) {
                        let (of, count, last) = failed.entry(name).or_insert((state, 0, 0));
                        *count = if *of == state { *count + 1 } else { 1 };
                        (*of, *last) = (state, now.as_secs());
                    } else {
                        failed.remove(&name);
                    }
                    mirrors.insert(server.clone(), record);
                }
                None => {
                    if let Some(before) = before.filter(|_| !subject.wanted.is_empty()) {
                        mirrors.insert(server.clone(), before.clone());
                    }
                }
            }
        }
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
            failed.remove(&(at, coordinate.clone()));
            told.remove(&(at, coordinate.clone()));
            self.world.ledger.refused.retain(|(host, _)| *host != at);
        }
        subject.record.mirrors = mirrors.into();
        subject.note_depth(now.as_secs());
        self.note_cool_downs()?;
        self.world.step()?;
        self.disk.write_record(&coordinate, &subject.record);
        self.world.ledger.refused.extend(refused);
        self.world.ledger.failed = failed;
        self.world.ledger.told = told;
        Ok(subject.record)
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
            self.world.step()?;
            let refs = subject.state.as_ref().map(|state| state.refs.clone()).unwrap_or_default();
            let names = refs.keys().map(ToString::to_string).collect();
            let followed = &mut self.world.ledger.decisions.followed;
            followed.insert(subject.repository.coordinate.clone(), names);
            self.disk.copies.entry(subject.repository.coordinate.clone()).or_default().refs = refs;
            subject.record.local = state;
        }
        if lacking.is_empty() {
            return Ok(endings);
        }
        let (talk, requests) = self.prepare_conversation(subject, git.is_ok())?;
        for (url, seen) in lacking {
            let wanted = Wanted {
                conversation: talk.clone(),
                pull_requests: requests.clone(),
                ..subject.wanted[&url].clone()
            };
            let (ending, seen) =
                self.walk(subject, wanted.clone(), Seen { lacks: None, ..seen }, &git, afresh)?;
            let holds = match &seen.lacks {
                Some(lacks) => lacks.iter().all(|id| seen.refused.contains_key(id)),
                None => wanted.conversation.is_empty() || !wanted.takes_conversation(&seen),
            };
            let complete = ending == Ending::Settled(Outcome::InSync) && holds;
            let held = HeldConversation { fingerprint: fingerprint(&talk), seen_at: now.as_secs() };
            endings.insert(url, (ending, seen, complete.then_some(held)));
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

    /// Brings here what the state names.
    fn bring(&mut self, subject: &mut Subject) -> Result<Result<(), Ending>, Crash> {
        let Some(state) = subject.state.clone() else {
            return Ok(Err(Ending::Failed("nobody has signed a state".to_owned())));
        };
        let needed = self.world.history.closure(state.refs.values().copied());
        self.fetch(subject, &needed)?;
        let coordinate = &subject.repository.coordinate;
        let held = self.disk.copies.get(coordinate).map(|copy| &copy.objects);
        if needed.is_empty() || held.is_some_and(|held| needed.is_subset(held)) {
            return Ok(Ok(()));
        }
        Ok(Err(Ending::Hindered(Failure::SourceGone, "no clone URL serves what was signed".to_owned())))
    }

    fn fetch(
        &mut self,
        subject: &Subject,
        needed: &BTreeSet<grasp_mirror::model::refs::ObjectId>,
    ) -> Result<(), Crash> {
        let coordinate = subject.repository.coordinate.clone();
        let missing = |disk: &Disk| {
            let held = disk.copies.get(&coordinate).map(|copy| &copy.objects);
            held.is_none_or(|held| !needed.is_subset(held))
        };
        if !missing(self.disk) {
            return Ok(());
        }
        let home = self.world.projects.iter().position(|project| project.coordinate() == coordinate);
        let mut sources: Vec<Option<(usize, Coordinate)>> = vec![None];
        for (url, seen) in &subject.seen {
            let Some(wanted) = subject.wanted.get(url) else { continue };
            if wanted.state.as_ref().is_some_and(|state| seen.served.contains(state)) {
                sources.push(Some((self.world.host(url), wanted.place.path.clone())));
            }
        }
        for source in sources {
            self.world.step()?;
            let brought = match source {
                Some((at, path)) => self.world.clone_from(at, &path),
                None => match home.map(|home| self.world.homes[home]) {
                    Some(Home::Good) => needed.clone(),
                    _ => BTreeSet::new(),
                },
            };
            // A pack comes in whole or not at all.
            if needed.is_subset(&brought) {
                self.world.step()?;
                self.disk.copies.entry(coordinate.clone()).or_default().objects.extend(needed);
                break;
            }
        }
        Ok(())
    }

    fn prepare_conversation(
        &mut self,
        subject: &mut Subject,
        local: bool,
    ) -> Result<(Vec<EventId>, Vec<PullRequest>), Crash> {
        let now = self.world.time();
        let mut here = Vec::new();
        if local {
            for request in subject.requests.clone() {
                let needed = self.world.history.closure([request.tip]);
                self.fetch(subject, &needed)?;
                let copy = self.disk.copies.get(&subject.repository.coordinate);
                if copy.is_some_and(|copy| needed.is_subset(&copy.objects)) {
                    here.push(request);
                }
            }
        }
        let missing: Vec<EventId> = subject
            .requests
            .iter()
            .map(|request| request.id)
            .filter(|id| here.iter().all(|r| r.id != *id))
            .collect();
        let mut talk = subject.conversation.clone();
        if !missing.is_empty() {
            let loaded: Vec<Event> = talk.iter().filter_map(|id| subject.events.get(id)).cloned().collect();
            let without = missing.iter().copied().collect();
            let roots = subject.repository.coordinates();
            talk = conversation::gather(&roots, &loaded, &without, now, usize::MAX).events;
        }
        if local {
            subject.record.lose(&missing, now);
        }
        Ok((talk, here))
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
        let renewed = grasp_mirror::model::draft::Draft {
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

impl Subject {
    fn note_served(&mut self, url: &ServerUrl, served: &BTreeSet<EventId>, now: u64) {
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
