//! A cycle of the bot, as `src/cycle` runs it: the decisions are the program's own, the hands are these.

mod mirror;
mod sources;
mod subject;

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{announcement::Announcement, coordinate::Coordinate, policy::Policy, server::ServerUrl},
    plan::{
        catalog::{self, Limits, Repository},
        conversation, namespace,
        placement::Grasp,
        retry::retry_after_secs,
        spread::Usual,
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
};

pub(crate) use self::subject::Subject;
use crate::{
    check,
    disk::Disk,
    people::key,
    rest::{Endings, Kept, Server, Servers},
    world::{Crash, Trouble, World, tell},
};

pub(crate) const LIMITS: Limits = Limits { max_refs: 100, max_repos_per_author: 10 };
pub(crate) const MAX_EVENTS: usize = 100;

/// The bot's key.
#[must_use]
pub fn bot() -> PublicKey {
    key(0)
}

/// Whether the event may belong to a conversation: that is read, not compared.
fn is_talk(event: &Event) -> bool {
    let kind = event.kind;
    conversation::may_be_of_kind(kind.as_u16()) && kind != Kind::EventDeletion && !kind.is_replaceable()
}

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

/// Repositories that rest, and how their mirrors end.
type Resting = Vec<(Coordinate, Endings)>;

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
        let catalogued = if self.world.habits.hands_on { catalog.repositories.clone() } else { Vec::new() };
        let (mut subjects, resting) =
            self.work_out(catalog.repositories, &events, &servers, (patient, afresh))?;
        self.ask_what_is_served(&mut subjects, &mut servers)?;
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

    /// The repositories for which there is something to do, and those that rest, with how their mirrors end.
    fn work_out(
        &mut self,
        repositories: Vec<Repository>,
        events: &[Event],
        servers: &Servers,
        (patient, afresh): (bool, bool),
    ) -> Result<(Vec<Subject>, Resting), Crash> {
        let own: Vec<Event> = events.iter().filter(|event| event.pubkey == bot()).cloned().collect();
        let announced: Vec<Announcement> = own.iter().cloned().filter_map(Announcement::read).collect();
        let copies = namespace::identifiers(&repositories, &announced);
        let (mut subjects, mut resting) = (Vec::new(), Resting::new());
        let mut in_depth = BTreeSet::new();
        if self.world.habits.rests {
            self.keep_what_is_as_before(&repositories, &copies, &own, servers);
            in_depth = self.due_in_depth(&repositories);
        }
        for repository in repositories {
            let coordinate = &repository.coordinate;
            let deep = in_depth.contains(coordinate);
            let known = self.kept.repositories.get(coordinate);
            let decided = known.is_some_and(|known| self.is_decided(coordinate, &known.record));
            let rests = self.world.habits.rests && !afresh && !deep && !decided;
            if let Some(endings) = rests.then(|| self.rests(coordinate, events, servers, patient)).flatten() {
                resting.push((coordinate.clone(), endings));
                continue;
            }
            let copy = copies.get(coordinate).cloned().unwrap_or_default();
            subjects.push(self.subject(repository, &copy, servers, events, &own, (afresh, deep))?);
        }
        Ok((subjects, resting))
    }

    /// Asks each server which of the announcements and states that it is to have it serves.
    fn ask_what_is_served(&mut self, subjects: &mut [Subject], servers: &mut Servers) -> Result<(), Crash> {
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
                    for subject in &mut *subjects {
                        subject.note_served(url, &served, self.world.now);
                    }
                }
                Err(_) => {
                    servers.entry(url.clone()).and_modify(|server| server.is_down = true);
                }
            }
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
}
