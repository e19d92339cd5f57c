//! What goes wrong with servers, relays and clone URLs, and when.

use std::collections::BTreeMap;

use grasp_mirror::model::coordinate::Coordinate;
use nostr::event::{Event, EventId};

use super::{Home, World, tell};

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

impl World {
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
}
