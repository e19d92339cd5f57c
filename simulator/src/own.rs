//! The bot's own lists, which are its settings, on its relays: as `src/bot/own.rs` looks after them, with the program's own
//! decisions ([`grasp_mirror::plan::settings`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use grasp_mirror::{
    model::{draft::Draft, policy::Said, replace::dated_after},
    plan::settings::{AUTHORS, LISTS, Lists, Seeds, Settings, Settled, TOLD_IDENTIFIER, Told},
};
use nostr::{
    event::{Event, EventId, Kind, Tag},
    key::PublicKey,
};

use crate::{
    bot::{Bot, bot},
    check,
    disk::Disk,
    inbox::Order,
    people::{key, sign},
    signing::is_taken_out,
    world::{Crash, World, tell},
};

/// How a list names somebody: the keys in here are none that could sign, and lists with such are not understood.
pub(crate) fn listed(person: u8) -> PublicKey {
    static KEYS: LazyLock<BTreeMap<u8, PublicKey>> = LazyLock::new(|| {
        let key = |person: u8, salt: u8| {
            let mut bytes = [salt; 32];
            bytes[0] = person;
            PublicKey::from_byte_array(bytes)
        };
        let could_sign =
            |person| (0..=u8::MAX).map(move |salt| key(person, salt)).find(|key| key.xonly().is_ok());
        [1, 2].into_iter().filter_map(|person| Some((person, could_sign(person)?))).collect()
    });
    KEYS[&person]
}

/// Who is listed by this key.
pub(crate) fn person(listed: &PublicKey) -> PublicKey {
    key(listed.as_bytes()[0])
}

/// Whether the event is one of the bot's settings.
pub(crate) fn is_own(event: &Event) -> bool {
    event.pubkey == bot() && (LISTS.contains(&event.kind) || is_told(event) || is_taken_out(event))
}

fn is_told(event: &Event) -> bool {
    event.kind == Kind::ApplicationSpecificData
        && event.tags.identifier().is_some_and(|name| name == TOLD_IDENTIFIER)
}

/// The operator's configuration: it names both owners.
fn seeds() -> Seeds {
    Seeds { authors: BTreeSet::from([listed(1), listed(2)]), ..Seeds::default() }
}

fn told_draft(world: &World, told: &Told) -> Draft {
    let content = serde_json::to_string(told).unwrap();
    let tags = vec![Tag::identifier(TOLD_IDENTIFIER)];
    Draft { kind: Kind::ApplicationSpecificData, tags, content, created_at: world.time() }
}

/// What is stored of the bot's settings.
struct Word {
    lists: Lists,
    told_event: Option<Event>,
    told: Option<Told>,
    settled: Settled,
}

impl Word {
    fn of(disk: &Disk) -> Self {
        let own: Vec<Event> = disk.events.values().filter(|event| is_own(event)).cloned().collect();
        let told_event = own.iter().find(|event| is_told(event)).cloned();
        let told: Option<Told> =
            told_event.as_ref().and_then(|event| serde_json::from_str(&event.content).ok());
        let lists = Lists::newest(own);
        let settled = lists.settle(told.as_ref(), Said::default(), &seeds());
        Self { lists, told_event, told, settled }
    }

    fn is_blank(&self) -> bool {
        self.lists.events().next().is_none() || self.told_event.is_none()
    }

    fn drafts(&self, world: &World, settings: &Settings, told: &Told) -> Vec<Draft> {
        let mut drafts = self.lists.drafts(settings, world.time());
        if self.told.as_ref() != Some(told) {
            drafts.extend(told_draft(world, told).unless_said(self.told_event.as_ref()));
        }
        drafts
    }
}

impl Bot<'_> {
    /// Does what the stored lists say, or, while there are none, the configuration.
    fn obey_own_word(&mut self) {
        let settings = Word::of(self.disk).settled.settings;
        self.disk.watched.authors = settings.watched.authors.iter().map(person).collect();
        self.disk.paused = settings.paused;
        check::obeys_the_newest_list(self.world, &self.disk.watched.authors);
    }

    /// Reads the bot's lists from its relays, signs those that are missing, and sends all to where they are missing.
    pub(crate) fn look_after_own(&mut self) -> Result<(), Crash> {
        self.world.ledger.own.looks += 1;
        let mut served: BTreeMap<usize, BTreeSet<EventId>> = BTreeMap::new();
        let mut is_news = !self.kept.knows_its_lists;
        for relay in 0..self.world.relays.len() {
            self.world.step()?;
            let (own, end) = self.world.read_relay(relay, is_own);
            for event in &own {
                is_news |= self.disk.lacks(event);
                self.disk.save(event);
                self.world.ledger.own.learn(event);
            }
            if end.is_ok() {
                served.insert(relay, own.iter().map(|event| event.id).collect());
            }
        }
        if is_news {
            self.settle_lists(served.len())?;
        }
        let own: Vec<Event> = self.disk.events.values().filter(|event| is_own(event)).cloned().collect();
        for (relay, has) in served {
            for event in own.iter().filter(|event| !has.contains(&event.id)) {
                self.world.step()?;
                if self.world.tell_relay(relay, event).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Signs the lists that are missing, when enough relays were read, and does what they say.
    fn settle_lists(&mut self, readable: usize) -> Result<(), Crash> {
        let word = Word::of(self.disk);
        let is_first = self.world.ledger.own.looks == 1;
        let all = self.world.relays.len();
        let least = if word.is_blank() && !self.kept.has_looked { all } else { 1 };
        if readable >= least {
            let drafts = word.drafts(self.world, &word.settled.settings, &word.settled.told);
            if word.is_blank() && !drafts.is_empty() {
                check::first_lists_wait(self.world, is_first, readable);
            }
            self.sign_own(drafts)?;
            self.kept.knows_its_lists = true;
        }
        self.kept.has_looked = true;
        self.obey_own_word();
        Ok(())
    }

    pub(crate) fn sign_own(&mut self, drafts: Vec<Draft>) -> Result<Vec<Event>, Crash> {
        let mut signed = Vec::new();
        for draft in drafts {
            let event = sign(bot(), draft);
            self.world.step()?;
            tell!(self.world, "the bot signs kind {} {}", event.kind.as_u16(), event.id);
            self.disk.save(&event);
            self.world.ledger.own.signed += 1;
            self.world.ledger.own.learn(&event);
            signed.push(event);
        }
        Ok(signed)
    }

    /// Changes what the bot is to do, as it was told; `false` when it is not known what the lists say.
    pub(crate) fn change_own(&mut self, order: Order) -> Result<bool, Crash> {
        let word = Word::of(self.disk);
        if word.is_blank() && !self.kept.knows_its_lists {
            return Ok(false);
        }
        let mut settings = word.settled.settings.clone();
        match order {
            Order::Watch(owner) => settings.watched.authors.insert(listed(owner)),
            Order::Unwatch(owner) => settings.watched.authors.remove(&listed(owner)),
            Order::Pause => !std::mem::replace(&mut settings.paused, true),
            Order::Resume => std::mem::replace(&mut settings.paused, false),
            _ => false,
        };
        let told = Told { paused: settings.paused, ..word.settled.told.clone() };
        let signed = self.sign_own(word.drafts(self.world, &settings, &told))?;
        self.obey_own_word();
        check::does_what_it_was_told(self.world, order, &self.disk.watched.authors, self.disk.paused);
        for relay in 0..self.world.relays.len() {
            for event in &signed {
                self.world.step()?;
                if self.world.tell_relay(relay, event).is_err() {
                    break;
                }
            }
        }
        Ok(true)
    }
}

impl World {
    /// Somebody who has the bot's key signs another list of whom it follows, with a client that knows `before`, and
    /// publishes it on these relays.
    pub(crate) fn sign_list_elsewhere(
        &mut self,
        authors: &BTreeSet<PublicKey>,
        before: Option<&Event>,
        relays: &[usize],
    ) {
        let tags = authors.iter().map(|author| Tag::custom("p", [author.to_hex()])).collect();
        let created_at = dated_after(before, self.time());
        let list = sign(bot(), Draft { kind: AUTHORS, tags, content: String::new(), created_at });
        tell!(self, "another client signs {} on {relays:?}: {} authors", list.id, authors.len());
        for relay in relays {
            if !self.relays[*relay].faults.down {
                self.reaches_relay(*relay, &list);
            }
        }
    }

    /// The newest list of whom the bot follows that any relay has.
    pub(crate) fn newest_list(&self) -> Option<Event> {
        let all = self.relays.iter().flat_map(|relay| relay.events.values());
        let lists = all.filter(|event| event.kind == AUTHORS && event.pubkey == bot());
        lists.max_by_key(|event| (event.created_at, std::cmp::Reverse(event.id))).cloned()
    }

    /// Somebody does that now and then.
    pub(crate) fn another_client_acts(&mut self) {
        let before = self.newest_list();
        let authors = [1, 2].into_iter().filter(|_| self.chance(70)).map(listed).collect();
        let relays: Vec<usize> = (0..self.relays.len()).filter(|_| self.chance(60)).collect();
        self.sign_list_elsewhere(&authors, before.as_ref(), &relays);
    }
}
