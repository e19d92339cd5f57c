//! Servers listed with a maintainer's key: as `src/cycle/sign.rs` has them listed, with the program's own decisions
//! ([`grasp_mirror::plan::signing`], `permit`, `taken_out`).

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use grasp_mirror::{
    model::{coordinate::Coordinate, draft::Draft},
    plan::{
        catalog::{self, Repository},
        permit::Permitted,
        record::is_no,
        signing::Signing,
        taken_out::{TAKEN_OUT_IDENTIFIER, TakenOut},
        to_sign::{ToSign, to_sign},
    },
};
use nostr::{
    event::{Event, EventId, Kind, Tag},
    key::PublicKey,
};

use crate::{
    bot::{Bot, LIMITS, bot},
    check,
    grasp::Said,
    people::sign,
    world::{Crash, Trouble, tell},
};

/// Once read again, and then this often begun anew, as long as other clients sign meanwhile.
const ROUNDS: usize = 4;

/// What is to be signed for one repository.
struct Change {
    coordinate: Coordinate,
    to_sign: ToSign,
}

/// Whether the event is what the bot remembers of servers that people took out.
pub(crate) fn is_taken_out(event: &Event) -> bool {
    event.kind == Kind::ApplicationSpecificData
        && event.pubkey == bot()
        && event.tags.identifier().is_some_and(|name| name == TAKEN_OUT_IDENTIFIER)
}

/// What the owner would have signed.
fn signed(permitted: &Permitted) -> Event {
    let event = permitted.event().clone();
    let draft = Draft {
        kind: event.kind,
        tags: event.tags.iter().cloned().collect(),
        content: event.content,
        created_at: event.created_at,
    };
    sign(event.pubkey, draft)
}

impl Bot<'_> {
    /// What is remembered of the servers listed because of the bot, by what the maintainers say now.
    pub(crate) fn signing(&mut self, repository: &Repository) -> Result<Signing, Crash> {
        check::note_listings(self.world, self.disk);
        self.note_come(repository)?;
        let mut signing = self.disk.signing(&repository.coordinate);
        signing.take_out(self.taken_out().of(&repository.coordinate));
        signing.look_at(repository);
        Ok(signing)
    }

    /// Writes down which servers asked for are listed now.
    fn note_come(&mut self, repository: &Repository) -> Result<(), Crash> {
        let mut signing = self.disk.signing(&repository.coordinate);
        if self.world.habits.hands_on && signing.note_come(repository) {
            self.world.step()?;
            self.disk.write_signing(&repository.coordinate, &signing);
        }
        Ok(())
    }

    /// Takes up what an earlier process left behind, before anything newer is heard.
    pub(crate) fn take_up(&mut self) -> Result<(), Crash> {
        if !self.world.habits.hands_on || self.kept.has_taken_up {
            return Ok(());
        }
        self.kept.cooling = self.disk.cooling.clone();
        for repository in self.catalogued() {
            self.note_come(&repository)?;
        }
        self.kept.has_taken_up = true;
        Ok(())
    }

    /// Writes down which servers want to be left alone.
    pub(crate) fn note_cool_downs(&mut self) -> Result<(), Crash> {
        if self.world.habits.hands_on && self.disk.cooling != self.kept.cooling {
            self.world.step()?;
            self.disk.cooling = self.kept.cooling.clone();
        }
        Ok(())
    }

    /// Every repository that is to be mirrored, from everything stored.
    fn catalogued(&self) -> Vec<Repository> {
        let events: Vec<Event> = self.disk.events.values().cloned().collect();
        catalog::build(&events, &self.disk.watched, &bot(), LIMITS).repositories
    }

    fn taken_out(&self) -> TakenOut {
        let event = self.disk.events.values().find(|event| is_taken_out(event));
        event.and_then(|event| serde_json::from_str(&event.content).ok()).unwrap_or_default()
    }

    fn remember_taken_out(&mut self, all: &TakenOut) -> Result<(), Crash> {
        let existing = self.disk.events.values().find(|event| is_taken_out(event)).cloned();
        let content = serde_json::to_string(all).unwrap();
        let tags = vec![Tag::identifier(TAKEN_OUT_IDENTIFIER)];
        let created_at = self.world.time();
        let draft = Draft { kind: Kind::ApplicationSpecificData, tags, content, created_at };
        let Some(draft) = draft.unless_said(existing.as_ref()) else { return Ok(()) };
        self.sign_own(vec![draft])?;
        Ok(())
    }

    /// Has servers listed that hold a copy. Whether anything was signed.
    pub(crate) fn list_servers(&mut self, afresh: bool) -> Result<bool, Crash> {
        let Some(signer) = self.world.signer else { return Ok(false) };
        if self.disk.paused || !self.kept.knows_its_lists {
            return Ok(false);
        }
        let keys = BTreeSet::from([signer]);
        // From the same events and mirrors the same nothing follows.
        let ground = self.ground();
        if !afresh && self.kept.nothing_to_list == Some(ground) {
            return Ok(false);
        }
        let mut done: BTreeSet<EventId> = BTreeSet::new();
        let mut is_read = false;
        for _ in 0..ROUNDS {
            let mut changes = self.changes(&keys, afresh)?;
            // What nobody serves yet is not sent twice.
            changes.retain(|change| !change.to_sign.events.iter().all(|event| done.contains(&event.id())));
            if changes.is_empty() {
                break;
            }
            if is_read {
                for change in changes {
                    self.sign_change(&change.coordinate, &change.to_sign, &mut done)?;
                }
            }
            self.read_again()?;
            is_read = true;
        }
        self.note_cool_downs()?;
        self.kept.nothing_to_list = done.is_empty().then_some(ground);
        Ok(!done.is_empty())
    }

    /// A number for what the bot knows of events and mirrors.
    fn ground(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.disk.events.keys().for_each(|id| id.hash(&mut hasher));
        for (coordinate, known) in &self.kept.repositories {
            coordinate.hash(&mut hasher);
            for (server, mirror) in &known.record.mirrors {
                (server, mirror.status.as_str(), mirror.refs_differ).hash(&mut hasher);
            }
            for (server, place) in known.places.iter() {
                (server, place.own, &place.path).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn sign_change(
        &mut self,
        coordinate: &Coordinate,
        change: &ToSign,
        done: &mut BTreeSet<EventId>,
    ) -> Result<(), Crash> {
        let now = self.world.time();
        let mut signing = self.disk.signing(coordinate);
        // Before anybody else can see it: whoever takes it out later does so knowingly.
        signing.note_signed(change.by, &change.servers, now);
        signing.note_given_back(&change.given_back, now);
        self.world.step()?;
        self.disk.write_signing(coordinate, &signing);
        let events: Vec<Event> = change.events.iter().map(signed).collect();
        self.world.totals.listings += 1;
        for event in &events {
            tell!(
                self.world,
                "signed for a maintainer: kind {} {} {:?}",
                event.kind.as_u16(),
                event.id,
                change.servers
            );
            check::only_adds_servers(
                self.world,
                self.disk,
                coordinate,
                event,
                &change.servers,
                change.first_shown_to.as_ref(),
            );
            done.insert(event.id);
        }
        if let Some(server) = &change.first_shown_to {
            let at = self.world.host(server);
            for event in &events {
                self.world.step()?;
                match self.offer(at, event) {
                    Ok(Said::Taken | Said::Purgatory) => {}
                    Ok(Said::Refused(words)) if is_no(&words) => {
                        signing.decline(server, &words, now);
                        self.world.step()?;
                        self.disk.write_signing(coordinate, &signing);
                        return Ok(());
                    }
                    _ => return Ok(()),
                }
            }
        }
        for event in &events {
            for relay in 0..self.world.relays.len() {
                self.world.step()?;
                let _ = self.world.tell_relay(relay, event);
            }
            for server in
                change.listed.iter().filter(|server| change.first_shown_to.as_ref() != Some(*server))
            {
                let at = self.world.host(server);
                if self.policy.admits_server(server).is_ok()
                    && !self.world.ledger.sent.contains_key(&(at, event.id))
                {
                    self.world.step()?;
                    let _ = self.offer(at, event);
                }
            }
        }
        Ok(())
    }

    /// Sends something to a server, unless that wants to be left alone.
    fn offer(&mut self, at: usize, event: &Event) -> Result<Said, Trouble> {
        if self.kept.cooling.get(&at).is_some_and(|until| *until > self.world.now) {
            return Err(Trouble::RateLimited(None));
        }
        let said = self.world.send(at, event);
        if let Err(Trouble::RateLimited(Some(secs))) = said {
            let until = self.kept.cooling.entry(at).or_default();
            *until = (*until).max(self.world.now + secs);
        }
        said
    }

    /// What is to be signed, from what is known now.
    fn changes(&mut self, keys: &BTreeSet<PublicKey>, afresh: bool) -> Result<Vec<Change>, Crash> {
        let repositories = self.catalogued();
        let known_out = self.taken_out();
        let mut out = known_out.clone();
        let mut changes = Vec::new();
        for mut repository in repositories {
            let coordinate = repository.coordinate.clone();
            let Some(kept) = self.kept.repositories.get(&coordinate) else { continue };
            let (places, mut record) = (&kept.places.clone(), kept.record.clone());
            if self.world.habits.holds {
                self.hold_back(&mut repository, &mut record)?;
            }
            let signing = self.signing(&repository)?;
            let known = self.disk.signing(&coordinate);
            out.remember(&coordinate, signing.removed());
            let now = self.world.time();
            let next = to_sign(&repository, &signing, keys, places, &record.mirrors, afresh, now);
            if let Some(to_sign) = next.unwrap_or_default() {
                changes.push(Change { coordinate: coordinate.clone(), to_sign });
            }
            if signing != known {
                self.world.step()?;
                self.disk.write_signing(&coordinate, &signing);
            }
        }
        if out != known_out {
            self.remember_taken_out(&out)?;
        }
        Ok(changes)
    }

    /// Brings the newest announcements and states to the disk, wherever they may be.
    fn read_again(&mut self) -> Result<(), Crash> {
        let is_signed = |event: &Event| {
            matches!(event.kind, Kind::GitRepoAnnouncement | Kind::RepoState) && event.pubkey != bot()
        };
        for relay in 0..self.world.relays.len() {
            self.world.step()?;
            let (events, _) = self.world.read_relay(relay, is_signed);
            events.iter().for_each(|event| self.disk.save(event));
        }
        for at in 0..self.world.hosts.len() {
            if !self.world.hosts[at].is_denied && !self.world.hosts[at].faults.down {
                self.world.step()?;
                let events = self.world.read(at).unwrap_or_default();
                events.iter().filter(|event| is_signed(event)).for_each(|event| self.disk.save(event));
            }
        }
        Ok(())
    }
}
