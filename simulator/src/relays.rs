//! Ordinary relays: what they have, what is wrong with them, and how they are asked. People publish there, and the bot
//! keeps its own lists and answers there.
//!
//! A server is asked in the same way for what its owner and others signed, so that is here, too.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::model::replace::wins;
use nostr::event::{Event, EventId};

use crate::{
    grasp::Said,
    world::{Faults, Host, Target, Trouble, World, tell},
};

/// An ordinary relay.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// What it has.
    pub events: BTreeMap<EventId, Event>,
    /// What is wrong.
    pub faults: Faults,
}

/// In what a relay or server differs from a set of events.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Of the set, what it does not have.
    pub lacks: BTreeSet<EventId>,
    /// What it has beside the set.
    pub extra: Vec<EventId>,
    /// What it says it has.
    pub shown: BTreeSet<EventId>,
}

/// Whether one takes the place of the other.
pub(crate) fn same_address(one: &Event, other: &Event) -> bool {
    one.kind == other.kind
        && one.pubkey == other.pubkey
        && (one.kind.is_replaceable()
            || one.kind.is_addressable() && one.tags.identifier() == other.tags.identifier())
}

impl Relay {
    /// Takes an event as relays do: of each address the newest.
    pub fn take(&mut self, event: &Event) {
        let held = self.events.values().find(|held| held.id != event.id && same_address(held, event));
        match held.map(|held| (held.id, wins(event, held))) {
            Some((_, false)) => return,
            Some((older, true)) => {
                self.events.remove(&older);
            }
            None => {}
        }
        self.events.insert(event.id, event.clone());
    }
}

impl World {
    /// Something else becomes of a relay, by habit also what may become of a server.
    pub(crate) fn relay_goes_wrong(&mut self) {
        let relay = self.rng.usize(..self.relays.len());
        if self.chance(12) {
            tell!(self, "relay {relay} is wiped");
            self.relays[relay].events.clear();
            return;
        }
        let faults = match self.rng.u8(..12) {
            0 | 1 => Faults { down: true, ..Faults::default() },
            2 => Faults { loses_answers: 50, ..Faults::default() },
            3 => Faults { hides: true, ..Faults::default() },
            4 => Faults { swallows: true, ..Faults::default() },
            5 => Faults { refuses: Some("blocked: not on our list"), ..Faults::default() },
            6 => Faults { stale: Some(self.relays[relay].events.clone()), ..Faults::default() },
            7 => Faults { takes: Some(self.rng.u8(..6)), ..Faults::default() },
            8 => Faults { loses_answers: 20, loses_requests: 20, hides: true, ..Faults::default() },
            _ => Faults::default(),
        };
        tell!(self, "relay {relay}: {}", faults.named());
        self.relays[relay].faults = faults;
    }

    /// Somebody's event arrives at a relay. Whether it did: what is rate-limited comes again.
    pub(crate) fn reaches_relay(&mut self, at: usize, event: &Event) -> bool {
        if !self.habits.relays {
            self.relays[at].events.insert(event.id, event.clone());
            return true;
        }
        match &mut self.relays[at].faults {
            Faults { takes: Some(0), .. } => return false,
            Faults { takes: Some(takes), .. } => *takes -= 1,
            Faults { swallows: true, .. } | Faults { refuses: Some(_), .. } => return true,
            _ => {}
        }
        self.relays[at].take(event);
        true
    }

    fn relay_arrives(&mut self, at: usize) -> Result<(), Trouble> {
        let faults = &self.relays[at].faults;
        let lost = faults.loses_requests;
        if faults.down {
            return Err(Trouble::Unreachable);
        }
        if faults.takes == Some(0) {
            return Err(Trouble::RateLimited(None));
        }
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(()) }
    }

    /// What a relay shows of what it has, or has had, and is asked for.
    fn relay_shows(&mut self, at: usize, is_asked: impl Fn(&Event) -> bool) -> Vec<Event> {
        let Relay { events, faults } = &self.relays[at];
        let all = faults.stale.as_ref().unwrap_or(events).values().filter(|event| is_asked(event));
        all.filter(|_| !faults.hides || self.rng.bool()).cloned().collect()
    }

    /// What a server shows of what it serves, or has served, and is asked for.
    fn host_shows(&mut self, at: usize, is_asked: impl Fn(&Event) -> bool) -> Result<Vec<Event>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let mut shown: Vec<Event> = match &faults.stale {
            Some(earlier) => earlier.values().filter(|event| is_asked(event)).cloned().collect(),
            None => grasp.served().filter(|event| is_asked(event)).cloned().collect(),
        };
        shown.retain(|_| !faults.hides || self.rng.bool());
        self.returns(at, shown)
    }

    /// Everything a relay has that is asked for.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; with what arrived before.
    pub fn read_relay(
        &mut self,
        at: usize,
        is_asked: impl Fn(&Event) -> bool,
    ) -> (Vec<Event>, Result<(), Trouble>) {
        if self.habits.relays {
            if let Err(trouble) = self.relay_arrives(at) {
                return (Vec::new(), Err(trouble));
            }
            let shown = self.relay_shows(at, is_asked);
            return self.broken_off(self.relays[at].faults.loses_answers, shown);
        }
        let Relay { events, faults } = &self.relays[at];
        if faults.down {
            return (Vec::new(), Err(Trouble::Unreachable));
        }
        let (hides, breaks) = (faults.hides, faults.loses_answers);
        let all: Vec<Event> = events.values().cloned().collect();
        let breaks = self.chance(breaks);
        let shown = all.into_iter().filter(|_| !(hides || breaks) || self.rng.bool()).collect();
        (shown, if breaks { Err(Trouble::Broken) } else { Ok(()) })
    }

    fn broken_off(&mut self, percent: u8, shown: Vec<Event>) -> (Vec<Event>, Result<(), Trouble>) {
        if !self.chance(percent) {
            return (shown, Ok(()));
        }
        (shown.into_iter().filter(|_| self.rng.bool()).collect(), Err(Trouble::Broken))
    }

    /// In what do you differ from `items`, of what `is_asked` for? (NIP-77)
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn compare(
        &mut self,
        with: Target,
        items: &BTreeSet<EventId>,
        is_asked: impl Fn(&Event) -> bool,
    ) -> Result<Compared, Trouble> {
        let shown = match with {
            Target::Relay(at) => {
                self.relay_arrives(at)?;
                let shown = self.relay_shows(at, is_asked);
                let lost = self.relays[at].faults.loses_answers;
                if self.chance(lost) {
                    return Err(Trouble::Broken);
                }
                shown
            }
            Target::Host(at) => self.host_shows(at, is_asked)?,
        };
        let shown: BTreeSet<EventId> = shown.iter().map(|event| event.id).collect();
        if let Target::Host(at) = with {
            self.ledger.said_to_serve.extend(shown.iter().map(|id| (at, *id)));
        }
        Ok(Compared {
            lacks: items.difference(&shown).copied().collect(),
            extra: shown.difference(items).copied().collect(),
            shown,
        })
    }

    /// Send the events called `ids`.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; with what arrived before.
    pub fn fetch(&mut self, from: Target, ids: &BTreeSet<EventId>) -> (Vec<Event>, Result<(), Trouble>) {
        let is_asked = |event: &Event| ids.contains(&event.id);
        let (shown, breaks) = match from {
            Target::Relay(at) => match self.relay_arrives(at) {
                Ok(()) => (self.relay_shows(at, is_asked), self.relays[at].faults.loses_answers),
                Err(trouble) => return (Vec::new(), Err(trouble)),
            },
            Target::Host(at) => match self.host_shows(at, is_asked) {
                Ok(shown) => (shown, self.hosts[at].faults.loses_answers),
                Err(trouble) => return (Vec::new(), Err(trouble)),
            },
        };
        self.broken_off(breaks, shown)
    }

    /// Take this event.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn tell_relay(&mut self, at: usize, event: &Event) -> Result<Said, Trouble> {
        self.relay_arrives(at)?;
        self.ledger.told_relays += 1;
        let refuses = self.relays[at].faults.refuses;
        let said = match refuses {
            Some(words) => Said::Refused(words.to_owned()),
            None => {
                self.reaches_relay(at, event);
                Said::Taken
            }
        };
        let lost = self.relays[at].faults.loses_answers;
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(said) }
    }
}
