//! What a relay was last seen to have, so that the next comparison with it is between equals.
//!
//! Set reconciliation (NIP-77) costs one round and a few hundred bytes while both sides are the same. Compared with
//! what is *wanted*, a server that keeps one event more or less would answer at length every time.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, EventId, PublicKey, Timestamp};

/// For how long events of servers may arrive late and are noticed by the next cycle all the same, in seconds. What
/// comes later is found when the repository is read to the end.
const LATE_SECS: u64 = 6 * 3_600;

/// The events of some kinds that a relay has, by author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    authors: BTreeMap<PublicKey, BTreeMap<EventId, Timestamp>>,
}

impl Holdings {
    /// Whether it was seen what the relay has of `author`, or at least what it might have.
    #[must_use]
    pub fn know(&self, author: &PublicKey) -> bool {
        self.authors.contains_key(author)
    }

    /// From now on, exactly these are what the relay has of `author`, until something else is noted.
    pub fn replace(&mut self, author: PublicKey, events: BTreeMap<EventId, Timestamp>) {
        self.authors.insert(author, events);
    }

    /// What is compared for `authors`.
    #[must_use]
    pub fn items(&self, authors: &[PublicKey]) -> Vec<(EventId, Timestamp)> {
        let held = authors.iter().filter_map(|author| self.authors.get(author));
        held.flatten().map(|(id, at)| (*id, *at)).collect()
    }

    /// Whether the relay has it.
    #[must_use]
    pub fn has(&self, author: &PublicKey, id: &EventId) -> bool {
        self.authors.get(author).is_some_and(|held| held.contains_key(id))
    }

    /// The relay has these, too.
    pub fn add<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            self.authors.entry(event.pubkey).or_default().insert(event.id, event.created_at);
        }
    }

    /// Forgets everyone but `authors`.
    pub fn keep_only(&mut self, authors: &BTreeSet<PublicKey>) {
        self.authors.retain(|author, _| authors.contains(author));
    }

    /// The relay does not have these (any more).
    pub fn strike(&mut self, lacks: &BTreeSet<EventId>) {
        if !lacks.is_empty() {
            self.authors.values_mut().for_each(|held| held.retain(|id, _| !lacks.contains(id)));
        }
    }
}

/// Everything a server was seen to have of late, whoever wrote it about whatever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Everything before is known, save what comes late.
    read_at: Timestamp,
    held: BTreeMap<EventId, Timestamp>,
}

impl Recent {
    /// For a server whose conversations were read to the end in a run that began at `read_at`.
    #[must_use]
    pub fn after(read_at: Timestamp) -> Self {
        Self { read_at, held: BTreeMap::new() }
    }

    /// From when on the server is asked.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_secs(self.read_at.as_secs().saturating_sub(LATE_SECS))
    }

    /// What is compared.
    #[must_use]
    pub fn items(&self) -> Vec<(EventId, Timestamp)> {
        let since = self.since();
        self.held.iter().filter(|(_, at)| **at >= since).map(|(id, at)| (*id, *at)).collect()
    }

    /// The server has these, too.
    pub fn add(&mut self, events: impl IntoIterator<Item = (EventId, Timestamp)>) {
        self.held.extend(events);
    }

    /// The server does not have these (any more).
    pub fn strike(&mut self, lacks: &BTreeSet<EventId>) {
        self.held.retain(|id, _| !lacks.contains(id));
    }

    /// It was read to the end by a run that began at `now`.
    pub fn read(&mut self, now: Timestamp) {
        self.read_at = now;
        let since = self.since();
        self.held.retain(|_, at| *at >= since);
    }
}

#[cfg(test)]
mod tests {
    use nostr::prelude::Keys;

    use super::{super::testing::event, *};

    #[test]
    fn what_a_relay_was_seen_to_have_is_what_the_next_comparison_starts_from() {
        let (anna, ben) = (Keys::generate(), Keys::generate());
        let (old, new) = (event(&anna, 30_618, 10, &[&["d", "x"]]), event(&anna, 30_618, 20, &[&["d", "x"]]));
        let other = event(&ben, 30_617, 5, &[]);
        let mut holdings = Holdings::default();
        assert!(!holdings.know(&anna.public_key()));
        holdings.add([&old, &other]);
        assert!(holdings.know(&anna.public_key()) && holdings.has(&ben.public_key(), &other.id));
        holdings.strike(&BTreeSet::from([old.id]));
        holdings.add([&new]);
        assert_eq!(holdings.items(&[anna.public_key()]), [(new.id, new.created_at)]);
        // An author of whom nothing is left is still known: nothing is what the relay has.
        holdings.strike(&BTreeSet::from([other.id]));
        assert!(holdings.know(&ben.public_key()) && holdings.items(&[ben.public_key()]).is_empty());
    }

    #[test]
    fn what_is_recent_moves_on_with_each_read() {
        let keys = Keys::generate();
        let id = |at| event(&keys, 1_621, at, &[]).id;
        let day = 24 * 3_600;
        let mut recent = Recent::after(Timestamp::from_secs(day));
        let (old, late) = (id(day - LATE_SECS), id(day - 1));
        recent.add([(old, Timestamp::from_secs(day - LATE_SECS)), (late, Timestamp::from_secs(day - 1))]);
        assert_eq!(recent.items().len(), 2);
        recent.read(Timestamp::from_secs(day + 60));
        assert_eq!(recent.items(), [(late, Timestamp::from_secs(day - 1))]);
        // Not read for long, it is asked about all the time since.
        assert_eq!(recent.since(), Timestamp::from_secs(day + 60 - LATE_SECS));
    }
}
