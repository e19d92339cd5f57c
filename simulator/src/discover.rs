//! What the bot learns of announcements, states and deletions: as `src/cycle/discovery.rs` and `compare.rs` do it, with the
//! program's own memory of what each relay and server was seen to have ([`grasp_mirror::plan::holdings`]).

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{model::announcement::Announcement, plan::holdings::Holdings};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
};

use crate::{
    bot::{Bot, bot},
    check,
    disk::Disk,
    rest::Servers,
    world::{Crash, Target, tell},
};

/// Rounds of new authors.
const ROUNDS: usize = 5;

/// What is compared of an author.
const KINDS: [Kind; 3] = [Kind::GitRepoAnnouncement, Kind::RepoState, Kind::EventDeletion];

/// Whether the event is compared when `authors` are asked about.
pub(crate) fn is_compared(event: &Event, authors: &BTreeSet<PublicKey>) -> bool {
    KINDS.contains(&event.kind) && authors.contains(&event.pubkey)
}

/// Whom the stored announcements of `authors` name.
pub(crate) fn named(disk: &Disk, authors: &BTreeSet<PublicKey>) -> BTreeSet<PublicKey> {
    let stored =
        disk.events.values().filter(|event| event.pubkey != bot() && authors.contains(&event.pubkey));
    let announcements = stored.cloned().filter_map(Announcement::read).filter(|found| !found.private);
    announcements.flat_map(|found| found.roles.listed.into_iter().chain(found.roles.leads)).collect()
}

/// Whom the bot asks about at least.
pub(crate) fn first_authors(disk: &Disk) -> BTreeSet<PublicKey> {
    disk.watched.authors.iter().copied().chain([bot()]).collect()
}

impl Bot<'_> {
    /// Brings what watched authors and their co-maintainers signed to the disk, and sees what everybody has of it.
    pub(crate) fn discover(&mut self, servers: &mut Servers) -> Result<(), Crash> {
        let mut authors = first_authors(self.disk);
        let relays = (0..self.world.relays.len()).map(Target::Relay);
        let up = servers.iter().filter(|(_, server)| !server.is_down);
        let hosts = up.map(|(url, _)| Target::Host(self.world.host(url)));
        let sources: Vec<Target> = relays.chain(hosts).collect();
        let mut asked: BTreeMap<Target, BTreeSet<PublicKey>> = BTreeMap::new();
        let mut failed = BTreeSet::new();
        for _ in 0..ROUNDS {
            for source in &sources {
                let before = asked.entry(*source).or_default();
                let new: BTreeSet<PublicKey> = authors.difference(before).copied().collect();
                before.extend(&new);
                if !new.is_empty() && !self.see(*source, &new)? {
                    failed.insert(*source);
                }
            }
            let more = named(self.disk, &authors);
            if more.is_subset(&authors) {
                break;
            }
            authors.extend(more);
        }
        self.kept.holdings.retain(|source, _| sources.contains(source));
        self.kept.holdings.values_mut().for_each(|holdings| holdings.keep_only(&authors));
        for (url, server) in servers.iter_mut().filter(|(_, server)| !server.is_down) {
            let at = self.world.host(url);
            let source = Target::Host(at);
            // One that broke off gets a second chance; then it is down.
            server.is_compared = !failed.contains(&source) || self.see(source, &authors)?;
            if !server.is_compared {
                server.is_down = true;
                let noted = self.world.ledger.noted.get(&at).copied();
                match noted {
                    Some(noted) => self.world.ledger.answered.insert(at, noted),
                    None => self.world.ledger.answered.remove(&at),
                };
            }
        }
        Ok(())
    }

    /// Sees what `source` has of `authors`; its holdings say it afterwards. Whether it was seen to the end.
    fn see(&mut self, source: Target, authors: &BTreeSet<PublicKey>) -> Result<bool, Crash> {
        let mut holdings = self.kept.holdings.remove(&source).unwrap_or_default();
        let done = self.see_into(source, authors, &mut holdings);
        self.kept.holdings.insert(source, holdings);
        done
    }

    fn see_into(
        &mut self,
        source: Target,
        authors: &BTreeSet<PublicKey>,
        holdings: &mut Holdings,
    ) -> Result<bool, Crash> {
        for author in authors.iter().filter(|author| !holdings.know(author)).copied().collect::<Vec<_>>() {
            let stored = self.disk.events.values().filter(|event| event.pubkey == author);
            let stored = stored.filter(|event| is_compared(event, authors));
            holdings.replace(author, stored.map(|event| (event.id, event.created_at)).collect());
        }
        let list: Vec<PublicKey> = authors.iter().copied().collect();
        let items: BTreeSet<EventId> = holdings.items(&list).into_iter().map(|(id, _)| id).collect();
        self.world.step()?;
        let compared = self.world.compare(source, &items, |event| is_compared(event, authors));
        let Ok(compared) = compared else { return Ok(false) };
        holdings.strike(&compared.lacks);
        let (known, new): (BTreeSet<EventId>, BTreeSet<EventId>) =
            compared.extra.iter().partition(|id| self.disk.events.contains_key(*id));
        holdings.add(known.iter().filter_map(|id| self.disk.events.get(id)));
        let mut done = true;
        let mut brought = Vec::new();
        if !new.is_empty() {
            self.world.step()?;
            let (fetched, end) = self.world.fetch(source, &new);
            tell!(self.world, "  {source:?} brings {} of {} new ones: {end:?}", fetched.len(), new.len());
            holdings.add(&fetched);
            (brought, done) = (fetched, end.is_ok());
        }
        for event in &brought {
            self.disk.save(event);
        }
        let held: BTreeSet<EventId> = holdings.items(&list).into_iter().map(|(id, _)| id).collect();
        check::holds_what_was_shown(self.world, source, &held, &compared.shown);
        check::was_taken_in(self.world, self.disk, &brought);
        Ok(done)
    }
}
