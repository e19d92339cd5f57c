//! Commands, as `src/bot/journal.rs` obeys them: each is written down before it acts, and its answer before it is sent.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::plan::journal::{ATTEMPTS, Admission, Entry, Letter, Stage, admit};
use nostr::{
    event::{Event, EventId},
    types::RelayUrl,
};

use crate::{
    bot::{Bot, bot},
    people::{event, key},
    world::{Crash, World, tell},
};

/// What somebody may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `watch` this person.
    Watch(u8),
    /// `unwatch` this person.
    Unwatch(u8),
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
    /// `resync`.
    Resync,
}

/// Commands on their way, and what came of them.
#[derive(Debug, Default)]
pub struct Post {
    /// When each arrives; the same one may do so more than once.
    pub arriving: Vec<(u64, Event, Order)>,
    /// All that were ever said.
    said: BTreeMap<EventId, Order>,
    /// How often each was carried out.
    pub carried_out: BTreeMap<EventId, u32>,
    /// The answers that reached the person: one at most.
    pub answers: BTreeMap<EventId, BTreeSet<EventId>>,
    /// Those that were delivered while they were young enough, to a bot that was alive.
    pub heard: BTreeSet<EventId>,
}

impl Post {
    /// Somebody says `order`; it may be delivered late, and more than once.
    pub fn say(&mut self, world: &mut World, order: Order) {
        let salt = format!("{order:?} {}", world.rng.u64(..));
        let asked = if world.chance(5) { world.now.saturating_sub(90_000) } else { world.now };
        let message = event(key(50), 4, nostr::types::Timestamp::from_secs(asked), &salt, Vec::new());
        tell!(world, "somebody says {order:?}: {}", message.id);
        self.said.insert(message.id, order);
        for _ in 0..world.rng.usize(1..4) {
            let delay = if world.chance(10) { world.rng.u64(..100_000) } else { world.rng.u64(..600) };
            self.arriving.push((world.now + delay, message.clone(), order));
        }
    }
}

impl Bot<'_> {
    /// Goes on with what was not finished when the bot was killed. Whether everything is to be looked at anew.
    ///
    /// # Errors
    ///
    /// [`Crash`].
    pub fn resume_journal(&mut self, post: &mut Post) -> Result<bool, Crash> {
        let mut afresh = false;
        for id in self.disk.journal.keys().copied().collect::<Vec<_>>() {
            let Some(entry) = self.disk.entry(&id) else { continue };
            self.deliver(&entry, post)?;
            if entry.stage != Stage::Answered {
                afresh |= self.work_off(id, post)?;
            }
        }
        Ok(afresh)
    }

    /// Hears what has arrived by now. Whether everything is to be looked at anew.
    ///
    /// # Errors
    ///
    /// [`Crash`].
    pub fn hear(&mut self, post: &mut Post) -> Result<bool, Crash> {
        let now = self.world.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut post.arriving).into_iter().partition(|(at, _, _)| *at <= now);
        post.arriving = later;
        let mut afresh = false;
        let mut due = due.into_iter();
        while let Some((_, message, order)) = due.next() {
            self.world.totals.commands += 1;
            match self.receive(&message, post) {
                Ok(asked) => afresh |= asked,
                Err(crash) => {
                    // Relays still have it, and the rest.
                    post.arriving.push((now, message, order));
                    post.arriving.extend(due);
                    return Err(crash);
                }
            }
        }
        Ok(afresh)
    }

    fn receive(&mut self, message: &Event, post: &mut Post) -> Result<bool, Crash> {
        let known = self.disk.journal.contains_key(&message.id);
        let admission = admit(known, message.created_at, self.world.time());
        tell!(self.world, "the bot hears {}: {admission:?}", message.id);
        match admission {
            Admission::Run => {}
            Admission::TooNew => {
                self.world.step()?;
                self.disk.write_entry(&Entry::answered_elsewhere(message.id, message.created_at));
                return Ok(false);
            }
            Admission::Known | Admission::TooOld => return Ok(false),
        }
        let relay = RelayUrl::parse("wss://relay0.example").unwrap();
        let mut entry = Entry::received(message.id, message.created_at, message.clone(), relay);
        entry.begin();
        self.world.step()?;
        self.disk.write_entry(&entry);
        post.heard.insert(message.id);
        self.carry_out(entry, post)
    }

    fn work_off(&mut self, id: EventId, post: &mut Post) -> Result<bool, Crash> {
        let Some(mut entry) = self.disk.entry(&id) else { return Ok(false) };
        entry.begin();
        self.world.step()?;
        self.disk.write_entry(&entry);
        self.carry_out(entry, post)
    }

    fn carry_out(&mut self, mut entry: Entry, post: &mut Post) -> Result<bool, Crash> {
        let order = post.said[&entry.id];
        let mut afresh = false;
        if entry.attempts <= ATTEMPTS {
            self.world.step()?;
            if self.disk.entry(&entry.id).is_some_and(|entry| entry.stage == Stage::Answered) {
                self.world.break_promise(|| format!("{order:?} is carried out after its answer was written"));
            }
            *post.carried_out.entry(entry.id).or_default() += 1;
            tell!(self.world, "carries out {order:?}");
            match order {
                Order::Watch(owner) => {
                    self.disk.watched.authors.insert(key(owner));
                }
                Order::Unwatch(owner) => {
                    self.disk.watched.authors.remove(&key(owner));
                }
                Order::Pause => self.disk.paused = true,
                Order::Resume => self.disk.paused = false,
                Order::Resync => afresh = true,
            }
        }
        self.world.step()?;
        let salt = self.world.rng.u64(..).to_string();
        let answer = event(bot(), 4, self.world.time(), &salt, Vec::new());
        let letter = Letter { event: answer, to: key(50), written_at: self.world.now, only_on: None };
        entry.answer([letter], Stage::Answered);
        self.disk.write_entry(&entry);
        self.deliver(&entry, post)?;
        Ok(afresh)
    }

    fn deliver(&mut self, entry: &Entry, post: &mut Post) -> Result<(), Crash> {
        let mut entry = entry.clone();
        for letter in entry.letters.clone() {
            self.world.step()?;
            let answers = post.answers.entry(entry.id).or_default();
            answers.insert(letter.event.id);
            if answers.len() > 1 {
                self.world.break_promise(|| format!("{} was answered twice", entry.id));
            }
            self.world.step()?;
            entry.sent(&letter);
            self.disk.write_entry(&entry);
        }
        Ok(())
    }

    /// Drops what nobody can ask for again.
    pub fn forget(&mut self) {
        let now = self.world.time();
        let gone: Vec<EventId> = self
            .disk
            .journal
            .keys()
            .copied()
            .filter(|id| self.disk.entry(id).is_some_and(|entry| entry.is_forgotten(now)))
            .collect();
        for id in gone {
            self.disk.journal.remove(&id);
        }
    }
}
