//! Which repositories an event is about, by what is known of them.

use std::collections::HashMap;

use nostr::prelude::{Event, EventId};

use super::{conversation, rest::Known};
use crate::model::coordinate::Coordinate;

/// What events may point at, and whose it is: maintainers of one repository who all announce it have its conversation in
/// common.
#[derive(Debug, Default)]
pub struct Targets(HashMap<String, Vec<Coordinate>>);

impl Targets {
    /// Of these repositories.
    #[must_use]
    pub fn of<'a>(repositories: impl Iterator<Item = (&'a Coordinate, &'a Known)>) -> Self {
        let mut all: HashMap<String, Vec<Coordinate>> = HashMap::new();
        for (coordinate, known) in repositories {
            let names = known.coordinates.iter().map(ToString::to_string);
            for target in names.chain(known.thread.keys().map(EventId::to_hex)) {
                all.entry(target).or_default().push(coordinate.clone());
            }
        }
        Self(all)
    }

    /// The repositories that `event` is about; some perhaps more than once.
    pub fn hit<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Coordinate> {
        let counts = conversation::may_be_of_kind(event.kind.as_u16());
        let targets = conversation::points_at(event).filter(move |_| counts);
        targets.filter_map(|target| self.0.get(target)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nostr::prelude::{Keys, Timestamp};

    use super::{super::testing::event, *};

    #[test]
    fn what_is_said_of_a_repository_concerns_everyone_who_announces_it() {
        let (anna, ben) = (Keys::generate(), Keys::generate());
        let [of_anna, of_ben] = [&anna, &ben].map(|keys| Coordinate::new(keys.public_key(), "d"));
        let issue = event(&ben, 1621, 1, &[&["a", &of_anna.to_string()]]);
        let known = Known {
            coordinates: vec![of_anna.clone(), of_ben.clone()],
            thread: [(issue.id, Timestamp::from_secs(1))].into(),
            ..Known::default()
        };
        let both = [(&of_anna, &known), (&of_ben, &known)];
        let targets = Targets::of(both.into_iter());
        let expected = BTreeSet::from([&of_anna, &of_ben]);
        let comment = event(&anna, 1111, 2, &[&["e", &issue.id.to_hex()]]);
        for said in [&issue, &comment] {
            assert_eq!(targets.hit(said).collect::<BTreeSet<_>>(), expected);
        }
        let letter = event(&anna, 1059, 2, &[&["e", &issue.id.to_hex()]]);
        assert_eq!(targets.hit(&letter).count(), 0);
    }
}
