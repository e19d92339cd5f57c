//! Everything outside the bot: the clock, servers and relays with what is wrong with them, and events on their way.

mod faults;
mod habits;
mod ledger;
mod requests;

use fastrand::Rng;
use grasp_mirror::model::server::ServerUrl;
use nostr::{event::Event, key::PublicKey, types::Timestamp};

use crate::{git::History, grasp::Grasp, owners::Project, relays::Relay};

pub use self::{
    faults::Faults,
    habits::Habits,
    ledger::{Ledger, OwnLists, Totals},
    requests::Trouble,
};

/// When the clock begins.
pub const START: u64 = 1_790_000_000;

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
}
