//! Commands, as `src/bot/journal.rs` obeys them: each is written down before it acts, and its answer before it is sent.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::plan::journal::{ATTEMPTS, Admission, Entry, Letter, Stage, admit};
use nostr::{
    event::{Event, EventId, Kind},
    types::RelayUrl,
};

use crate::{
    bot::{Bot, bot},
    grasp::Said,
    people::{event, key, tag},
    world::{Crash, Target, Trouble, World, tell},
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
    /// `approve` what is held for this project.
    Approve(usize),
    /// `reject` it.
    Reject(usize),
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
    /// Of them, those that were delivered before the bot lost its disk.
    pub before_loss: BTreeSet<EventId>,
    /// Those whose answers no relay took for a day.
    pub given_up: BTreeSet<EventId>,
    /// The questions of which relays have just shown that they are answered.
    shown: BTreeSet<EventId>,
}

/// The number of the relay with this address.
fn number_of(relay: &RelayUrl) -> usize {
    relay.as_str().chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn relay_url(number: usize) -> RelayUrl {
    RelayUrl::parse(&format!("wss://relay{number}.example")).unwrap()
}

/// The question whose answer this copy for the bot itself is.
fn copy_of(event: &Event) -> Option<EventId> {
    let tag = event.tags.iter().find(|tag| tag.kind() == "copy" && event.pubkey == bot())?;
    EventId::from_hex(tag.content()?).ok()
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
            if world.habits.relays {
                let relay = Target::Relay(world.rng.usize(..world.relays.len()));
                world.mail.push((world.now + delay, relay, message.clone()));
            } else {
                self.arriving.push((world.now + delay, message.clone(), order));
            }
        }
    }

    /// The bot lost its disk: what it answered and nobody shows, it may answer again.
    pub(crate) fn forgotten(&mut self) {
        self.before_loss.append(&mut self.heard.clone());
    }

    /// How many answers a question that was heard may have in the end.
    pub(crate) fn answers_of(&self, id: &EventId) -> (usize, bool) {
        let answers = self.answers.get(id).map_or(0, BTreeSet::len);
        let is_well = match (self.before_loss.contains(id), self.given_up.contains(id)) {
            (true, _) => true,
            (false, true) => answers <= 1,
            (false, false) => answers == 1,
        };
        (answers, is_well)
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
        if self.world.habits.relays {
            return self.hear_relays(post);
        }
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

    /// Reads what relays have for the bot. What it answered on a machine that is gone comes first.
    fn hear_relays(&mut self, post: &mut Post) -> Result<bool, Crash> {
        for id in self.kept.undelivered.iter().copied().collect::<Vec<_>>() {
            if let Some(entry) = self.disk.entry(&id) {
                self.deliver(&entry, post)?;
            }
        }
        let mut messages: BTreeMap<EventId, Event> = BTreeMap::new();
        for relay in 0..self.world.relays.len() {
            self.world.step()?;
            let heard = &self.kept.heard;
            let is_new =
                |event: &Event| event.kind == Kind::EncryptedDirectMessage && !heard.contains(&event.id);
            let (direct, _) = self.world.read_relay(relay, is_new);
            messages.extend(direct.into_iter().map(|event| (event.id, event)));
        }
        post.shown = messages.values().filter_map(copy_of).collect();
        for copy in messages.values() {
            let Some(id) = copy_of(copy).filter(|id| !self.disk.journal.contains_key(id)) else { continue };
            self.kept.heard.insert(copy.id);
            let entry = Entry::answered_elsewhere(id, copy.created_at);
            if !entry.is_forgotten(self.world.time()) {
                self.world.step()?;
                self.disk.write_entry(&entry);
            }
        }
        let mut questions: Vec<Event> =
            messages.into_values().filter(|message| message.pubkey == key(50)).collect();
        questions.sort_by_key(|question| (question.created_at, question.id));
        let mut afresh = false;
        for question in questions {
            self.world.totals.commands += 1;
            afresh |= self.receive(&question, post)?;
            self.kept.heard.insert(question.id);
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
        if post.shown.contains(&message.id) {
            self.world.break_promise(|| format!("{} is run, and a relay shows its answer", message.id));
        }
        let relay = relay_url(0);
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
                Order::Approve(project) => self.decide(project, true)?,
                Order::Reject(project) => self.decide(project, false)?,
                Order::Watch(_) | Order::Unwatch(_) | Order::Pause | Order::Resume
                    if self.world.habits.relays =>
                {
                    self.change_own(order)?;
                }
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
        let mut letters = Vec::new();
        if self.world.habits.relays {
            let tags = vec![tag(&["copy", &entry.id.to_hex()])];
            let copy = event(bot(), 4, self.world.time(), &salt, tags);
            let relays = (0..self.world.relays.len()).map(relay_url);
            let written_at = self.world.now;
            letters.extend(relays.map(|relay| Letter {
                event: copy.clone(),
                to: bot(),
                written_at,
                only_on: Some(relay),
            }));
        }
        letters.push(letter);
        entry.answer(letters, Stage::Answered);
        self.disk.write_entry(&entry);
        self.deliver(&entry, post)?;
        Ok(afresh)
    }

    fn deliver(&mut self, entry: &Entry, post: &mut Post) -> Result<(), Crash> {
        let mut entry = entry.clone();
        for letter in entry.letters.clone() {
            self.world.step()?;
            if self.world.habits.relays && !self.is_delivered(entry.id, &letter, post) {
                continue;
            }
            let answers = post.answers.entry(entry.id).or_default();
            if !self.world.habits.relays {
                answers.insert(letter.event.id);
            }
            if answers.len() > 1 && !post.before_loss.contains(&entry.id) {
                self.world.break_promise(|| format!("{} was answered twice", entry.id));
            }
            self.world.step()?;
            entry.sent(&letter);
            self.disk.write_entry(&entry);
        }
        if entry.letters.is_empty() {
            self.kept.undelivered.remove(&entry.id);
        } else {
            self.kept.undelivered.insert(entry.id);
        }
        Ok(())
    }

    /// Tries to deliver a letter. Whether that is done with.
    fn is_delivered(&mut self, question: EventId, letter: &Letter, post: &mut Post) -> bool {
        if letter.is_too_late(self.world.time()) {
            if letter.only_on.is_none() {
                post.given_up.insert(question);
            }
            return true;
        }
        if let Some(relay) = &letter.only_on {
            // It will not take a copy later either, and others may have.
            return self.world.tell_relay(number_of(relay), &letter.event).is_ok();
        }
        let mut is_taken = false;
        for relay in 0..self.world.relays.len() {
            match self.world.tell_relay(relay, &letter.event) {
                Ok(said) => is_taken |= said == Said::Taken,
                // Perhaps it has it.
                Err(Trouble::Broken) => {}
                Err(_) => continue,
            }
            post.answers.entry(question).or_default().insert(letter.event.id);
        }
        is_taken
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
