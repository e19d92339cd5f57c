//! Which events were heard already, so that none is asked for or opened again.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
};

use nostr::prelude::EventId;

/// Events remembered for sure; up to twice as many are. Eight bytes of each id are kept.
const REMEMBERED: usize = 250_000;

/// Events heard lately, from whichever relay. The oldest are forgotten first.
#[derive(Debug, Default)]
pub struct Known {
    generations: Mutex<[HashSet<u64>; 2]>,
}

fn start_of(id: &EventId) -> u64 {
    id.as_bytes().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl Known {
    /// Remembers `id`; whether it is new.
    pub fn insert(&self, id: &EventId) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [now, before] = &mut *generations;
        if before.contains(&start_of(id)) || !now.insert(start_of(id)) {
            return false;
        }
        if now.len() >= REMEMBERED {
            *before = mem::take(now);
        }
        true
    }

    /// Forgets all: what was not understood when it was heard is to be heard again.
    pub fn forget(&self) {
        *self.generations.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// Whether it is remembered.
    #[must_use]
    pub fn contains(&self, id: &EventId) -> bool {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().any(|generation| generation.contains(&start_of(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EventId::from_byte_array(bytes)
    }

    #[test]
    fn the_latest_are_remembered_and_no_more_than_twice_as_many() {
        let known = Known::default();
        for number in 0..(3 * REMEMBERED as u64) {
            assert!(known.insert(&id(number)));
            assert!(!known.insert(&id(number)));
        }
        assert!(known.contains(&id(2 * REMEMBERED as u64)) && !known.contains(&id(0)));
        let held: usize = known.generations.lock().unwrap().iter().map(HashSet::len).sum();
        assert!(held <= 2 * REMEMBERED, "{held}");
    }
}
