//! A state that takes most of a repository away at once is held: people decide about it, or time does.
//!
//! Whoever has a maintainer's key can sign a state without branches, and so can a tool with a bug. Servers follow such
//! a state at once; the mirror does not, so that somebody may notice.

use grasp_mirror_commands::moment;
use nostr::prelude::{EventId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{coordinate::Coordinate, refs::Refs};

/// What is remembered of a state that takes most of a repository away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The state.
    pub state: EventId,
    /// When it was first seen, Unix seconds.
    pub since: u64,
    /// When it is followed if nobody says anything, Unix seconds.
    pub until: u64,
    /// How many branches and tags it removes.
    pub removed: usize,
    /// How many there are.
    pub of: usize,
    /// What became of it.
    pub stands: Stands,
}

/// What became of a state that takes most of a repository away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// Nobody has decided yet.
    Waiting,
    /// It is not to be followed.
    Rejected,
    /// It is being followed: it was approved, or its time is over.
    Followed,
}

/// What somebody said of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The state: a newer one is judged anew.
    pub state: EventId,
    /// Whether it is to be followed.
    pub approved: bool,
}

/// Judges `state` (which names `new`) by the refs that the local copy has, `old`. `None`: it is followed like any
/// other. `before` is what was remembered last time, `hold_secs` = 0 means that nothing is held.
///
/// A state is taken by its id, so one that comes while another one is held is judged anew, by the same refs.
#[must_use]
pub fn judge(
    old: &Refs,
    (state, new): (EventId, &Refs),
    before: Option<&Held>,
    verdict: Option<&Verdict>,
    hold_secs: u64,
    now: Timestamp,
) -> Option<Held> {
    let removed = old.keys().filter(|name| !new.contains_key(*name)).count();
    if removed * 2 <= old.len() {
        return None;
    }
    let now = now.as_secs();
    let since = before.filter(|held| held.state == state).map_or(now, |held| held.since);
    let until = since.saturating_add(hold_secs);
    let stands = stands(state, until, verdict, now);
    Some(Held { state, since, until, removed, of: old.len(), stands })
}

fn stands(state: EventId, until: u64, verdict: Option<&Verdict>, now: u64) -> Stands {
    match verdict.filter(|verdict| verdict.state == state) {
        Some(verdict) if verdict.approved => Stands::Followed,
        Some(_) => Stands::Rejected,
        None if now >= until => Stands::Followed,
        None => Stands::Waiting,
    }
}

impl Held {
    /// Why the mirrors of `repository` are not brought this state; `None` when they are.
    #[must_use]
    pub fn reason(&self, repository: &Coordinate) -> Option<String> {
        let (name, loss) = (sayable(&repository.identifier), self.loss());
        match self.stands {
            Stands::Waiting => {
                let until = moment(self.until);
                Some(format!(
                    "held until {until}: the new state {loss}; send: approve {name}, or reject {name}"
                ))
            }
            Stands::Rejected => Some(format!(
                "rejected: the new state {loss}; a newer one is judged anew, and approve {name} takes the no back"
            )),
            Stands::Followed => None,
        }
    }

    /// `removes 5 of 6 branches and tags`
    #[must_use]
    pub fn loss(&self) -> String {
        format!("removes {} of {} branches and tags", self.removed, self.of)
    }

    /// Whether it stands as it stood: nobody has decided otherwise, and its time is not over.
    #[must_use]
    pub fn rests(&self, verdict: Option<&Verdict>, now: Timestamp) -> bool {
        let now = stands(self.state, self.until, verdict, now.as_secs());
        now == self.stands && now != Stands::Followed
    }

    /// Whether somebody may still decide before time does.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.stands == Stands::Waiting
    }
}

/// A repository's name as one word of a message.
#[must_use]
pub fn sayable(identifier: &str) -> String {
    if identifier.contains(char::is_whitespace) { format!("\"{identifier}\"") } else { identifier.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::model::refs::ObjectId;

    const NOW: u64 = 1_790_000_000;
    const DAY: u64 = 86_400;

    fn refs(names: impl IntoIterator<Item = u8>) -> Refs {
        let named = |n: u8| (format!("refs/heads/{n}").parse().unwrap(), ObjectId::Sha1([n; 20]));
        names.into_iter().map(named).collect()
    }

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn held(stands: Stands, since: u64) -> Held {
        Held { state: id(1), since, until: since + DAY, removed: 3, of: 4, stands }
    }

    #[test]
    fn more_than_half_is_held_and_half_is_not() {
        let old = refs(0..4);
        let judged = |new: &Refs| judge(&old, (id(1), new), None, None, DAY, at(NOW));
        assert_eq!(judged(&refs(0..4)), None);
        assert_eq!(judged(&refs(0..2)), None, "half of them is left");
        assert_eq!(judged(&refs(0..1)), Some(held(Stands::Waiting, NOW)));
        assert_eq!(judged(&refs([])).map(|held| held.removed), Some(4));
        assert_eq!(judged(&refs(10..14)).map(|held| held.removed), Some(4), "new ones do not make up for it");
        assert_eq!(
            judge(&refs([]), (id(1), &refs([])), None, None, DAY, at(NOW)),
            None,
            "empty from the start"
        );
    }

    #[test]
    fn people_decide_and_else_time_does() {
        let (old, new) = (refs(0..4), refs(0..1));
        let before = held(Stands::Waiting, NOW);
        let stands = |verdict: Option<(u8, bool)>, hold, now| {
            let verdict = verdict.map(|(n, approved)| Verdict { state: id(n), approved });
            judge(&old, (id(1), &new), Some(&before), verdict.as_ref(), hold, at(now)).unwrap().stands
        };
        assert_eq!(stands(None, DAY, NOW + DAY - 1), Stands::Waiting);
        assert_eq!(stands(None, DAY, NOW + DAY), Stands::Followed, "its time is over");
        assert_eq!(stands(Some((1, true)), DAY, NOW + 1), Stands::Followed);
        assert_eq!(stands(Some((1, false)), DAY, NOW + 9 * DAY), Stands::Rejected, "however long it takes");
        assert_eq!(stands(Some((2, true)), DAY, NOW + 1), Stands::Waiting, "that was about another state");
        assert_eq!(stands(None, 0, NOW), Stands::Followed, "nothing is held");
    }

    #[test]
    fn nothing_is_to_be_done_before_somebody_decides_or_its_time_is_over() {
        let verdict = |n, approved| Some(Verdict { state: id(n), approved });
        for (held_as, verdict, now, rests) in [
            (Stands::Waiting, None, NOW + DAY - 1, true),
            (Stands::Waiting, None, NOW + DAY, false),
            (Stands::Waiting, verdict(1, true), NOW, false),
            (Stands::Waiting, verdict(1, false), NOW, false),
            (Stands::Waiting, verdict(2, true), NOW, true),
            (Stands::Rejected, verdict(1, false), NOW + 9 * DAY, true),
            (Stands::Rejected, verdict(1, true), NOW + 9 * DAY, false),
            (Stands::Followed, verdict(1, true), NOW, false),
        ] {
            let held = held(held_as, NOW);
            assert_eq!(held.rests(verdict.as_ref(), at(now)), rests, "{held_as:?} {verdict:?} {now}");
            assert_eq!(held.is_waiting(), held_as == Stands::Waiting);
        }
    }

    #[test]
    fn a_newer_state_has_its_own_time() {
        let before = held(Stands::Rejected, NOW);
        let rejected = Verdict { state: id(1), approved: false };
        let newer =
            |new: &Refs| judge(&refs(0..4), (id(2), new), Some(&before), Some(&rejected), DAY, at(NOW + DAY));
        assert_eq!(newer(&refs(0..3)), None);
        let again = newer(&refs([])).unwrap();
        assert_eq!((again.state, again.since, again.stands), (id(2), NOW + DAY, Stands::Waiting));
    }

    #[test]
    fn the_reason_says_what_would_do() {
        let owner = nostr::prelude::Keys::generate().public_key();
        let repository = Coordinate::new(owner, "my repo");
        insta::assert_snapshot!(
            held(Stands::Waiting, NOW).reason(&repository).unwrap(),
            @r#"held until 2026-09-22T14:13:20Z: the new state removes 3 of 4 branches and tags; send: approve "my repo", or reject "my repo""#
        );
        insta::assert_snapshot!(
            held(Stands::Rejected, NOW).reason(&repository).unwrap(),
            @r#"rejected: the new state removes 3 of 4 branches and tags; a newer one is judged anew, and approve "my repo" takes the no back"#
        );
        assert_eq!(held(Stands::Followed, NOW).reason(&repository), None);
    }

    proptest! {
        /// However often it is judged, and whatever was remembered: nothing is held for longer than it may be, nothing
        /// that removes half or less is, and nobody's no is forgotten while the state is the same.
        #[test]
        fn a_hold_ends(
            old in proptest::collection::btree_set(0_u8..12, 0..12),
            new in proptest::collection::btree_set(0_u8..12, 0..12),
            verdict in proptest::option::of((1_u8..3, any::<bool>())),
            hold in 0..3 * DAY,
            steps in proptest::collection::vec(0..DAY, 1..8),
        ) {
            let (old, new) = (refs(old), refs(new));
            let lost = old.keys().filter(|name| !new.contains_key(*name)).count();
            let verdict = verdict.map(|(n, approved)| Verdict { state: id(n), approved });
            let (mut now, mut before) = (NOW, None);
            for step in steps {
                now += step;
                let first = before.is_none();
                before = judge(&old, (id(1), &new), before.as_ref(), verdict.as_ref(), hold, at(now));
                prop_assert_eq!(before.is_some(), 2 * lost > old.len());
                let Some(held) = &before else { continue };
                prop_assert!(!first || held.since == now);
                let said = verdict.filter(|verdict| verdict.state == id(1)).map(|verdict| verdict.approved);
                let expected = match said {
                    Some(true) => Stands::Followed,
                    Some(false) => Stands::Rejected,
                    None if now >= held.since + hold => Stands::Followed,
                    None => Stands::Waiting,
                };
                prop_assert_eq!(held.stands, expected);
            }
        }
    }
}
