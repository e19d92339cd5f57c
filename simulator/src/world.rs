//! Everything outside the bot: the clock, servers and relays with what is wrong with them, and events on their way.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use grasp_mirror::{
    model::{
        announcement::Announcement, coordinate::Coordinate, refs::ObjectId, replace::wins, server::ServerUrl,
    },
    plan::settings::AUTHORS,
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
    types::Timestamp,
};

use crate::{
    git::History,
    grasp::{Change, Grasp, Said},
    hold::Decisions,
    owners::Project,
    people::key,
    relays::Relay,
};

/// When the clock begins.
pub const START: u64 = 1_790_000_000;

/// What is wrong with a server or relay.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Nobody reaches it.
    pub down: bool,
    /// Of a hundred requests, so many never arrive.
    pub loses_requests: u8,
    /// Of a hundred answers, so many are lost after the deed.
    pub loses_answers: u8,
    /// It says OK and keeps nothing.
    pub swallows: bool,
    /// It refuses every event, with these words.
    pub refuses: Option<&'static str>,
    /// It shows what it served earlier.
    pub stale: Option<BTreeMap<EventId, Event>>,
    /// It lists refs that are not there.
    pub foreign: bool,
    /// It shows only a part of what it has.
    pub hides: bool,
    /// It takes so many events more, and then wants to be left alone.
    pub takes: Option<u8>,
    /// For how long it then says it wants to be, in seconds.
    pub asks_secs: Option<u64>,
}

impl Faults {
    /// What is wrong, without the events that it shows.
    pub(crate) fn named(&self) -> String {
        let stale = if self.stale.is_some() { "stale, " } else { "" };
        format!("{stale}{:?}", Self { stale: None, ..self.clone() })
    }
}

/// A server, with what it does wrong.
#[derive(Clone, Debug)]
pub struct Host {
    /// What it would be without faults.
    pub grasp: Grasp,
    /// What is wrong.
    pub faults: Faults,
    /// The operator keeps the bot away from it.
    pub is_denied: bool,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection.
    Unreachable,
    /// The connection broke: perhaps the deed was done.
    Broken,
    /// Later, in so many seconds where it says so.
    RateLimited(Option<u64>),
}

/// The bot was killed.
#[derive(Clone, Copy, Debug)]
pub struct Crash;

/// Where an event is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A relay.
    Relay(usize),
    /// A server.
    Host(usize),
}

/// Where the owner's own clone URL leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// To everything.
    Good,
    /// To nothing.
    Gone,
    /// To something else.
    Lies,
}

/// What a schedule has beside the oldest ones: the seeds that found something then find it without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// The bot leaves repositories in peace about which nothing is new, and looks at each in depth once a day.
    pub rests: bool,
    /// The bot leaves servers alone that were down.
    pub leaves_alone: bool,
    /// Owners name themselves as leads, and take it back.
    pub leads: bool,
    /// Cycles end before everybody had their turn.
    pub hurries: bool,
    /// Fewer copies may be wanted than there are servers, and servers are away for days.
    pub spreads: bool,
    /// Something newer is signed, and heard of, in the middle of a walk.
    pub overtakes: bool,
    /// Relays do wrong what servers do, and have the bot's lists, its questions and its answers; its disk may be lost.
    pub relays: bool,
    /// States that take most of a repository away are held.
    pub holds: bool,
    /// Servers say for how long they want to be left alone.
    pub cools_down: bool,
    /// The bot may have an owner's key, and lists servers with it.
    pub signs: bool,
    /// The bot writes down what it hears and sees for whoever comes after it, and owners list servers, or take them out,
    /// in the middle of a walk.
    pub hands_on: bool,
}

impl Habits {
    /// Those of the seeds in [`KNOWN_RESTING`](crate::KNOWN_RESTING).
    #[must_use]
    pub fn resting() -> Self {
        Self { rests: true, leaves_alone: true, leads: true, hurries: true, ..Self::default() }
    }

    /// Those of the seeds in [`KNOWN_SPREADING`](crate::KNOWN_SPREADING).
    #[must_use]
    pub fn spreading() -> Self {
        Self { spreads: true, overtakes: true, ..Self::resting() }
    }

    /// Those of the seeds in [`KNOWN_RELAYING`](crate::KNOWN_RELAYING).
    #[must_use]
    pub fn relaying() -> Self {
        Self { relays: true, holds: true, cools_down: true, ..Self::spreading() }
    }

    /// Those of the seeds in [`KNOWN_SIGNING`](crate::KNOWN_SIGNING).
    #[must_use]
    pub fn signing() -> Self {
        Self { signs: true, ..Self::relaying() }
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { hands_on: true, ..Self::signing() }
    }
}

/// What the bot did, to be compared with what it may do.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Events sent in this cycle, with how often.
    pub sent: BTreeMap<(usize, EventId), u32>,
    /// Pushes of heads and tags in this cycle.
    pub pushed: BTreeMap<(usize, Coordinate), u32>,
    /// What servers said in this cycle that they serve.
    pub said_to_serve: BTreeSet<(usize, EventId)>,
    /// Mirrors that failed: for which state, how often in a row, and when last.
    pub failed: BTreeMap<(usize, Coordinate), (Option<EventId>, u32, u64)>,
    /// Servers that were down: how often in a row, and when last.
    pub tries: BTreeMap<usize, (u32, u64)>,
    /// What was refused for good, since when the bot was last told to look anew.
    pub refused: BTreeSet<(usize, EventId)>,
    /// When each server last answered.
    pub answered: BTreeMap<usize, u64>,
    /// The same, when the bot last lived long enough to write it down.
    pub noted: BTreeMap<usize, u64>,
    /// The families of which something newer was heard in this cycle.
    pub overtaken: BTreeSet<String>,
    /// Events sent to relays since the cycle before.
    pub told_relays: u32,
    /// The bot's lists, as they should be known to it.
    pub own: OwnLists,
    /// States that are held, and what people said of them.
    pub decisions: Decisions,
    /// When the bot last had a server listed that an owner's announcement did not list, and whether it has seen that.
    pub listings: BTreeMap<(Coordinate, usize), (u64, bool)>,
    /// What it signed with an owner's key.
    pub signed_for_owners: BTreeSet<EventId>,
    /// Until when the bot's record of a mirror says that its server wants to be left alone.
    pub told: BTreeMap<(usize, Coordinate), u64>,
    /// Until when servers want to be left alone, by their own words, and for which repository that was said.
    pub cools: BTreeMap<usize, u64>,
}

/// What the bot has heard and said of its own lists since it last lost its disk.
#[derive(Clone, Debug, Default)]
pub struct OwnLists {
    /// Whom it follows: the newest list that it signed or was shown.
    pub authors: Option<Event>,
    /// Lists signed since the cycle before.
    pub signed: u32,
    /// How often this process looked for its lists.
    pub looks: u32,
}

impl OwnLists {
    /// The bot signed this, or was shown it.
    pub(crate) fn learn(&mut self, event: &Event) {
        if event.kind == AUTHORS && self.authors.as_ref().is_none_or(|known| wins(event, known)) {
            self.authors = Some(event.clone());
        }
    }
}

/// What happened in all schedules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Requests of the bot, and writes to its disk.
    pub steps: u64,
    /// Cycles begun.
    pub cycles: u64,
    /// Times the bot was killed.
    pub crashes: u64,
    /// Events sent.
    pub sends: u64,
    /// Pushes.
    pub pushes: u64,
    /// Commands that came in, counting each delivery.
    pub commands: u64,
    /// Repositories that were left in peace in a cycle.
    pub rests: u64,
    /// Walks that ended because something newer was signed.
    pub overtakes: u64,
    /// Copies that moved to another server.
    pub moves: u64,
    /// Times the bot lost its disk.
    pub losses: u64,
    /// States that were held, at first.
    pub holds: u64,
    /// Walks that ended since their server wants to be left alone for so long.
    pub cool_downs: u64,
    /// Times something was signed with an owner's key.
    pub listings: u64,
}

impl Totals {
    /// Counts what happened elsewhere, too.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.cycles += other.cycles;
        self.crashes += other.crashes;
        self.sends += other.sends;
        self.pushes += other.pushes;
        self.commands += other.commands;
        self.rests += other.rests;
        self.overtakes += other.overtakes;
        self.moves += other.moves;
        self.losses += other.losses;
        self.holds += other.holds;
        self.cool_downs += other.cool_downs;
        self.listings += other.listings;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { steps, cycles, crashes, sends, pushes, commands, rests, overtakes, moves, .. } = self;
        let Self { losses, holds, cool_downs, listings, .. } = self;
        write!(
            f,
            "{steps} steps in {cycles} cycles, {crashes} kills, {losses} disks lost, {sends} events sent, {pushes} pushes, {commands} commands delivered, {rests} rests, {overtakes} walks overtaken, {moves} copies moved, {holds} states held, {cool_downs} cool-downs, {listings} listings signed"
        )
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Unix time.
    pub now: u64,
    /// What decides.
    pub rng: Rng,
    /// All commits.
    pub history: History,
    /// GRASP servers.
    pub hosts: Vec<Host>,
    /// Relays.
    pub relays: Vec<Relay>,
    /// Repositories with their owners.
    pub projects: Vec<Project>,
    /// Where the projects' own clone URLs lead.
    pub homes: Vec<Home>,
    /// Events on their way.
    pub mail: Vec<(u64, Target, Event)>,
    /// Steps until the bot is killed.
    pub crash_in: Option<u32>,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// What this schedule has.
    pub habits: Habits,
    /// The owner whose key the bot has.
    pub signer: Option<PublicKey>,
    /// How many mirrors of each server have their turn in this cycle; `None`: all.
    pub turns: Option<usize>,
    /// A server lost git data and went on serving its events.
    pub loses_git: bool,
    /// Says what happens.
    pub loud: bool,
    /// What the bot did.
    pub ledger: Ledger,
    /// The first promise that was broken.
    pub broken: Option<String>,
    /// For the figures.
    pub totals: Totals,
}

fn is_empty_state(event: &Event) -> bool {
    event.kind == Kind::RepoState && event.tags.iter().all(|tag| !tag.kind().starts_with("refs/"))
}

/// Says what happens, when somebody listens.
macro_rules! tell {
    ($world:expr, $($words:tt)*) => {
        if $world.loud {
            println!("{:>7} {}", $world.now - $crate::world::START, format_args!($($words)*));
        }
    };
}
pub(crate) use tell;

impl World {
    /// Unix time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_secs(self.now)
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// Notes a broken promise.
    pub fn break_promise(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let what = what();
            tell!(self, "!!! {what}");
            self.broken = Some(what);
        }
    }

    /// One step of the bot: time passes, others act, and it may be the bot's last.
    ///
    /// # Errors
    ///
    /// [`Crash`] when the bot is killed now.
    pub fn step(&mut self) -> Result<(), Crash> {
        self.totals.steps += 1;
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crash_in = None;
                self.totals.crashes += 1;
                tell!(self, "the bot is killed");
                return Err(Crash);
            }
            *left -= 1;
        }
        if !self.calm {
            self.now += u64::from(self.rng.u8(..3));
            if self.chance(2) {
                self.something_goes_wrong();
            }
            self.deliver();
        }
        Ok(())
    }

    /// Lets time pass.
    pub fn wait(&mut self, secs: u64) {
        self.now += secs;
        self.deliver();
        let now = self.time();
        for host in &mut self.hosts {
            host.grasp.expire(now);
        }
    }

    /// Delivers what has arrived by now, in any order.
    pub fn deliver(&mut self) {
        let now = self.now;
        if self.mail.iter().all(|(at, _, _)| *at > now) {
            return;
        }
        let (mut due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|(at, _, _)| *at <= now);
        self.mail = rest;
        self.rng.shuffle(&mut due);
        for (_, target, event) in due {
            match target {
                Target::Relay(relay) => {
                    let is_up = !self.relays[relay].faults.down;
                    if !is_up || !self.reaches_relay(relay, &event) {
                        self.mail.push((now + 600, target, event));
                    }
                }
                Target::Host(host) => {
                    let time = self.time();
                    if !self.hosts[host].faults.down {
                        self.hosts[host].grasp.send(&event, &self.history, time);
                    }
                }
            }
        }
    }

    /// A fault comes or goes.
    pub fn something_goes_wrong(&mut self) {
        if self.chance(25) {
            if self.habits.relays {
                self.relay_goes_wrong();
                return;
            }
            let relay = self.rng.usize(..self.relays.len());
            let faults = match self.rng.u8(..4) {
                0 => Faults { down: true, ..Faults::default() },
                1 => Faults { loses_answers: 50, ..Faults::default() },
                2 => Faults { hides: true, ..Faults::default() },
                _ => Faults::default(),
            };
            tell!(self, "relay {relay}: {}", faults.named());
            self.relays[relay].faults = faults;
            return;
        }
        if self.chance(12) && !self.homes.is_empty() {
            let home = self.rng.usize(..self.homes.len());
            self.homes[home] = [Home::Good, Home::Gone, Home::Lies][self.rng.usize(..3)];
            tell!(self, "the clone URL of project {home} is {:?}", self.homes[home]);
            return;
        }
        let at = self.rng.usize(..self.hosts.len());
        if self.chance(8) {
            tell!(self, "server {at} is wiped");
            self.hosts[at].grasp.wipe();
            return;
        }
        if self.chance(3) {
            let paths: Vec<Coordinate> =
                self.hosts[at].grasp.repositories().map(|(path, _)| path.clone()).collect();
            if !paths.is_empty() {
                let path = &paths[self.rng.usize(..paths.len())];
                tell!(self, "server {at} loses the git data of {path}");
                self.hosts[at].grasp.lose_git_data(path);
                self.loses_git = true;
            }
            return;
        }
        let stale = || Some(self.hosts[at].grasp.served().map(|event| (event.id, event.clone())).collect());
        let faults = match self.rng.u8(..14) {
            0 | 1 => Faults { down: true, ..Faults::default() },
            2 => Faults { loses_requests: 30, ..Faults::default() },
            3 => Faults { loses_answers: 30, ..Faults::default() },
            4 => Faults { swallows: true, ..Faults::default() },
            5 => Faults { refuses: Some("error: try again later"), ..Faults::default() },
            6 => Faults { stale: stale(), ..Faults::default() },
            7 => Faults { foreign: true, ..Faults::default() },
            8 => Faults { hides: true, ..Faults::default() },
            9 => Faults { takes: Some(self.rng.u8(..6)), asks_secs: self.cool_down(), ..Faults::default() },
            10 => Faults { loses_answers: 20, loses_requests: 20, hides: true, ..Faults::default() },
            _ => Faults::default(),
        };
        tell!(self, "server {at}: {}", faults.named());
        self.hosts[at].faults = faults;
    }

    /// How long a server says that it wants to be left alone, if it says so.
    fn cool_down(&mut self) -> Option<u64> {
        (self.habits.cools_down && self.chance(60)).then(|| self.rng.u64(1..200) * 60)
    }

    /// From now on nothing goes wrong, and everything that was said arrives.
    pub fn calm_down(&mut self) {
        tell!(self, "--- calm ---");
        self.calm = true;
        self.crash_in = None;
        self.homes.fill(Home::Good);
        for host in &mut self.hosts {
            host.faults = Faults::default();
        }
        for relay in &mut self.relays {
            relay.faults = Faults::default();
        }
        for (at, _, _) in &mut self.mail {
            *at = self.now;
        }
        self.deliver();
    }

    /// Whether something newer was signed for `family` since the cycle began, and the bot has heard of it.
    #[must_use]
    pub fn is_overtaken(&self, family: &str) -> bool {
        self.ledger.overtaken.contains(family)
    }

    /// The server with this address.
    #[must_use]
    pub fn host(&self, url: &ServerUrl) -> usize {
        self.hosts.iter().position(|host| host.grasp.url == *url).unwrap()
    }

    /// The bot makes a request: does it arrive?
    pub(crate) fn arrives(&mut self, at: usize) -> Result<(), Trouble> {
        if self.hosts[at].is_denied {
            self.break_promise(|| format!("server {at} is denied by the policy, and was asked"));
        }
        let faults = &self.hosts[at].faults;
        let lost = faults.loses_requests;
        if faults.down {
            return Err(Trouble::Unreachable);
        }
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(()) }
    }

    /// Does its answer?
    pub(crate) fn returns<T>(&mut self, at: usize, answer: T) -> Result<T, Trouble> {
        let lost = self.hosts[at].faults.loses_answers;
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(answer) }
    }

    /// A server that has had enough: what it says, and until when it is to be left alone because of that.
    fn is_limited(&mut self, at: usize) -> Trouble {
        let secs = self.hosts[at].faults.asks_secs;
        if let Some(secs) = secs {
            let until = self.ledger.cools.entry(at).or_default();
            *until = (*until).max(self.now + secs);
        }
        Trouble::RateLimited(secs)
    }

    /// Who are you?
    ///
    /// # Errors
    ///
    /// [`Trouble`], as in every request.
    pub fn ask(&mut self, at: usize) -> Result<(), Trouble> {
        self.arrives(at)?;
        let Faults { takes, asks_secs, .. } = self.hosts[at].faults;
        if self.habits.cools_down && takes == Some(0) && asks_secs.is_some() && self.chance(20) {
            return Err(self.is_limited(at));
        }
        self.returns(at, ())?;
        self.ledger.answered.insert(at, self.now);
        Ok(())
    }

    /// Everything a server serves.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn read(&mut self, at: usize) -> Result<Vec<Event>, Trouble> {
        self.arrives(at)?;
        let hides = self.hosts[at].faults.hides;
        let all: Vec<Event> = self.hosts[at].grasp.served().cloned().collect();
        let shown = all.into_iter().filter(|_| !hides || self.rng.bool()).collect();
        self.returns(at, shown)
    }

    /// Which of `ids` do you serve?
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn serves(&mut self, at: usize, ids: &[EventId]) -> Result<BTreeSet<EventId>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let serves = |id: &&EventId| match &faults.stale {
            Some(earlier) => earlier.contains_key(*id),
            None => grasp.serves(id),
        };
        let served: BTreeSet<EventId> = ids.iter().filter(serves).copied().collect();
        let served = self.returns(at, served)?;
        self.ledger.said_to_serve.extend(served.iter().map(|id| (at, *id)));
        Ok(served)
    }

    /// What do you have?
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn holdings(&mut self, at: usize) -> Result<BTreeSet<EventId>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let hides = faults.hides;
        let all: Vec<EventId> = match &faults.stale {
            Some(earlier) => earlier.keys().copied().collect(),
            None => grasp.served().map(|event| event.id).collect(),
        };
        let shown: BTreeSet<EventId> = all.into_iter().filter(|_| !hides || self.rng.bool()).collect();
        let shown = self.returns(at, shown)?;
        self.ledger.said_to_serve.extend(shown.iter().map(|id| (at, *id)));
        Ok(shown)
    }

    /// Nothing that the bot does takes away what can be cloned from a server, but for a state that says so, and an owner
    /// who takes the server off the list; a copy that begins to follow a lead may meet an older one of those there.
    fn keeps_serving(&mut self, at: usize, mut before: BTreeSet<Coordinate>, event: Option<&Event>) {
        let grasp = &self.hosts[at].grasp;
        let after = grasp.cloneable();
        let delisting = event.cloned().and_then(Announcement::read).filter(|found| !found.lists(&grasp.url));
        if let Some(delisting) = delisting.filter(|delisting| delisting.author() != key(0)) {
            before.remove(&delisting.coordinate);
        }
        let what = if event.is_some() { "an event" } else { "a push" };
        let is_emptied = |path: &&Coordinate| {
            grasp
                .served()
                .filter(|event| is_empty_state(event))
                .any(|event| event.tags.identifier().as_deref() == Some(path.identifier.as_str()))
        };
        if let Some(gone) = before.difference(&after).find(|path| !is_emptied(path)) {
            self.break_promise(|| format!("{what}: server {at} does not serve {gone} any more"));
        }
    }

    /// Take this event.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn send(&mut self, at: usize, event: &Event) -> Result<Said, Trouble> {
        self.arrives(at)?;
        self.totals.sends += 1;
        let count = self.ledger.sent.entry((at, event.id)).or_default();
        *count += 1;
        let count = *count;
        if count > 1 {
            self.break_promise(|| format!("{} was sent to server {at} {count} times in one cycle", event.id));
        }
        if self.ledger.refused.contains(&(at, event.id)) {
            self.break_promise(|| {
                format!("{} was refused for good by server {at}, and is sent again", event.id)
            });
        }
        let now = self.time();
        let served = self.hosts[at].grasp.cloneable();
        let Host { grasp, faults, .. } = &mut self.hosts[at];
        let said = match faults {
            Faults { takes: Some(0), .. } => return Err(self.is_limited(at)),
            Faults { refuses: Some(words), .. } => Said::Refused((*words).to_owned()),
            Faults { swallows: true, .. } => {
                if event.kind.is_addressable() {
                    Said::Purgatory
                } else {
                    Said::Taken
                }
            }
            _ => grasp.send(event, &self.history, now),
        };
        if let Some(takes) = &mut self.hosts[at].faults.takes {
            *takes -= 1;
        }
        if event.kind != Kind::EventDeletion && !is_empty_state(event) {
            self.keeps_serving(at, served, Some(event));
        }
        self.returns(at, said)
    }

    /// Which refs do you list there?
    ///
    /// # Errors
    ///
    /// [`Trouble`]; `None` is "no such repository".
    pub fn list(
        &mut self,
        at: usize,
        path: &Coordinate,
    ) -> Result<Option<BTreeMap<String, ObjectId>>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let mut refs = grasp.refs(path).cloned();
        if let Some(refs) = refs.as_mut().filter(|_| faults.foreign) {
            refs.insert("refs/heads/foreign".to_owned(), ObjectId::from_bytes_or_panic(&[0xee; 20]));
        }
        self.returns(at, refs)
    }

    /// Take this push.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; inside, the server's own no.
    pub fn push(
        &mut self,
        at: usize,
        path: &Coordinate,
        changes: &[Change],
        sent: &BTreeSet<ObjectId>,
    ) -> Result<Result<(), String>, Trouble> {
        self.arrives(at)?;
        self.totals.pushes += 1;
        if changes.iter().any(|(name, _)| !name.starts_with("refs/nostr/")) {
            let count = self.ledger.pushed.entry((at, path.clone())).or_default();
            *count += 1;
            if *count > 2 {
                self.break_promise(|| {
                    format!("{path} was pushed to server {at} more than twice in one cycle")
                });
            }
        }
        let now = self.time();
        let served = self.hosts[at].grasp.cloneable();
        if self.habits.cools_down && self.hosts[at].faults.takes == Some(0) {
            return Err(self.is_limited(at));
        }
        let Host { grasp, faults, .. } = &mut self.hosts[at];
        let done = if faults.swallows { Ok(()) } else { grasp.push(path, changes, sent, &self.history, now) };
        if changes.iter().any(|(_, new)| new.is_some()) {
            self.keeps_serving(at, served, None);
        }
        self.returns(at, done)
    }

    /// What a clone from a server brings.
    pub fn clone_from(&mut self, at: usize, path: &Coordinate) -> BTreeSet<ObjectId> {
        if self.arrives(at).is_err() {
            return BTreeSet::new();
        }
        self.hosts[at].grasp.objects(path).cloned().unwrap_or_default()
    }
}
