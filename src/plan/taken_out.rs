//! Servers that somebody took out of an announcement by hand: what the bot remembers of it beyond its own disk.
//!
//! It goes into an event of the bot's own (kind 30078), encrypted to itself, so that a new machine does not add again what
//! a person removed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{coordinate::Coordinate, server::ServerUrl};

/// The `d` of the event that holds them.
pub const TAKEN_OUT_IDENTIFIER: &str = "grasp-mirror/taken-out";

/// As much as is remembered, in bytes of JSON: it goes into one event, encrypted, and relays take 64 KiB.
const MAX_BYTES: usize = 40_000;

/// By repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TakenOut(BTreeMap<Coordinate, BTreeSet<ServerUrl>>);

impl TakenOut {
    /// The servers that were taken out of the announcements of `repository`.
    pub fn of(&self, repository: &Coordinate) -> impl Iterator<Item = &ServerUrl> {
        self.0.get(repository).into_iter().flatten()
    }

    /// Remembers `servers` of `repository`, and no others. What there is no room for is not remembered; whether there was.
    pub fn remember(&mut self, repository: &Coordinate, servers: &BTreeSet<ServerUrl>) -> bool {
        if servers.is_empty() {
            self.0.remove(repository);
            return true;
        }
        // Mostly nothing is new; the rest measures everything.
        if self.0.get(repository) == Some(servers) {
            return true;
        }
        let before = self.0.insert(repository.clone(), servers.clone());
        let fits = serde_json::to_string(&self).is_ok_and(|json| json.len() <= MAX_BYTES);
        if !fits {
            match before {
                Some(before) => self.0.insert(repository.clone(), before),
                None => self.0.remove(repository),
            };
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;

    use super::{super::testing::server, *};

    #[test]
    fn it_is_read_back_as_it_was_written_and_there_is_an_end_to_it() {
        let owner = Keys::generate().public_key();
        let repository = |number: usize| Coordinate::new(owner, format!("\"repository\" {number}"));
        let two = BTreeSet::from([server("a"), server("b")]);
        let mut all = TakenOut::default();
        assert!(all.remember(&repository(0), &two) && all.remember(&repository(1), &two));
        assert!(all.remember(&repository(1), &BTreeSet::new()), "put back");
        let read: TakenOut = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
        assert_eq!(read, all);
        assert_eq!(read.of(&repository(0)).cloned().collect::<BTreeSet<_>>(), two);
        assert_eq!(read.of(&repository(1)).count(), 0);
        let last = (2..).find(|number| !all.remember(&repository(*number), &two)).unwrap();
        assert!(last > 100, "{last}");
        assert_eq!(all.of(&repository(last)).count(), 0);
        // What is there already can become less.
        let one = BTreeSet::from([server("a")]);
        assert!(all.remember(&repository(0), &one) && all.of(&repository(0)).eq(&one));
    }
}
