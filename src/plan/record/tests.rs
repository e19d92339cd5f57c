//! What is remembered after one walk and another.

#![allow(clippy::unwrap_used)]

use super::{
    super::{
        converge::{Answer, Outcome, Seen},
        placement::Place,
        testing::server,
    },
    *,
};
use crate::model::coordinate::Coordinate;

#[test]
fn whose_turn_did_not_come_is_tried_as_soon_as_it_does() {
    let now = Timestamp::from_secs(1_790_000_000);
    let id = EventId::from_byte_array([1; 32]);
    let seen = Seen { answers: [(id, Answer::Refused("invalid: no".to_owned()))].into(), ..Seen::default() };
    let failed = after(None, Placement::Listed, Ending::Failed("broke".to_owned()), &seen, &[], None, now);
    assert!(failed.retry_at.is_some());
    let waiting = Ending::Waiting("waits its turn".to_owned());
    let record = after(Some(&failed), Placement::Listed, waiting, &Seen::default(), &[], None, now);
    assert_eq!((record.status, record.retry_at, record.failures), (MirrorStatus::Pending, None, 0));
    assert!(record.waits_its_turn());
    assert!(record.refused.contains_key(&id), "what a server refuses for good is still known");
}

#[test]
fn a_server_that_lost_the_repository_is_not_believed_to_hold_the_conversation() {
    let now = Timestamp::from_secs(1_790_000_000);
    let held = HeldConversation { fingerprint: "f".to_owned(), seen_at: now.as_secs() };
    let good = Ending::Settled(Outcome::InSync);
    let mut record = after(None, Placement::Listed, good, &Seen::default(), &[], Some(held), now);
    assert!(record.still_holds("f", true, now) && !record.still_holds("other", true, now));
    assert!(!record.still_holds("f", false, now), "it was wiped");
    // The run that saw it ended after the branches.
    let waiting = Ending::Waiting("waits its turn".to_owned());
    let mut record = after(Some(&record), Placement::Listed, waiting, &Seen::default(), &[], None, now);
    assert!(!record.still_holds("f", true, now), "it has the branches again, and nothing else");
}

#[test]
fn a_reason_is_as_long_as_a_person_reads_and_no_longer() {
    let ending = Ending::Failed("source\n".repeat(10_000));
    let now = Timestamp::from_secs(1_790_000_000);
    let record = after(None, Placement::Listed, ending, &Seen::default(), &[], None, now);
    let reason = record.reason.unwrap_or_default();
    assert!(reason.starts_with("source source") && reason.chars().count() <= REASON_MAX, "{reason}");
}

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn id(n: u8) -> EventId {
    EventId::from_byte_array([n; 32])
}

#[test]
fn a_state_is_read_back_where_a_mirror_is_in_sync() {
    let [one, other] = ["one", "other"].map(server);
    let with = |ending, state| {
        let record = after(None, Placement::Listed, ending, &Seen::default(), &[], None, NOW);
        MirrorRecord { state: Some(id(state)), ..record }
    };
    let mut record = RepositoryRecord::default();
    assert_eq!(record.read_back_state(), None);
    record.mirrors.insert(one, with(Ending::Failed("broke".to_owned()), 2));
    assert_eq!(record.read_back_state(), None);
    record.mirrors.insert(other, with(Ending::Settled(Outcome::InSync), 1));
    assert_eq!(record.read_back_state(), Some(id(1)));
}

#[test]
fn refs_that_differ_are_known_until_the_server_is_looked_at_or_sent_something() {
    let waiting = || Ending::Waiting("waits its turn".to_owned());
    let differ = Seen { fresh: true, refs_differ: true, served: [id(2)].into(), ..Seen::default() };
    let known = ended(None, &differ, waiting());
    assert_eq!(known.refs_differ, Some(id(2)));
    assert_eq!(ended(Some(&known), &Seen::default(), waiting()).refs_differ, Some(id(2)));
    let something = [
        Seen { fresh: true, ..Seen::default() },
        Seen { pushed: true, ..Seen::default() },
        Seen { pushed_requests: [id(3)].into(), ..Seen::default() },
        Seen { answers: [(id(3), Answer::Taken)].into(), ..Seen::default() },
    ];
    for seen in something {
        assert_eq!(ended(Some(&known), &seen, waiting()).refs_differ, None, "{seen:?}");
    }
}

fn refused(n: u8, words: &str) -> Seen {
    Seen { fresh: true, answers: [(id(n), Answer::Refused(words.to_owned()))].into(), ..Seen::default() }
}

fn ended(before: Option<&MirrorRecord>, seen: &Seen, ending: Ending) -> MirrorRecord {
    after(before, Placement::Listed, ending, seen, &[id(1), id(2)], None, NOW)
}

#[test]
fn a_state_refused_for_want_of_its_announcement_is_sent_again() {
    let words = "invalid: no announcement exists for this repository";
    let no = |words: &str| Ending::Settled(Outcome::Refused(words.to_owned()));
    // Wiped between the two.
    let record = ended(None, &refused(2, words), no(words));
    assert_eq!((record.status, record.failures), (MirrorStatus::Failing, 1));
    assert!(record.refused.is_empty());
    let blocked = ended(None, &refused(1, "restricted: not you"), no("restricted: not you"));
    assert_eq!(blocked.status, MirrorStatus::Refused);
    assert!(blocked.refused.contains_key(&id(1)));
}

#[test]
fn what_takes_the_server_off_the_list_is_said_once_more() {
    let words = "invalid: Announcement must list service in both";
    let (in_sync, no) =
        (Ending::Settled(Outcome::InSync), Ending::Settled(Outcome::Refused(words.to_owned())));
    // Attached: the copy is good, and the announcement is due again.
    let first = ended(None, &refused(9, words), in_sync.clone());
    assert_eq!((first.status, first.refused.len(), first.unlisted.len()), (MirrorStatus::InSync, 0, 1));
    // Not looked at: still to be said again.
    let idle = ended(Some(&first), &Seen::default(), Ending::Down("down".to_owned()));
    assert!(idle.unlisted.contains(&id(9)));
    let second = ended(Some(&idle), &refused(9, words), in_sync);
    assert!(second.refuses_unlisted(&id(9)) && second.unlisted.is_empty());
    // A lead's, which governs: nothing is in sync without it.
    let first = ended(None, &refused(2, words), no.clone());
    assert_eq!((first.status, first.refuses_unlisted(&id(2))), (MirrorStatus::Failing, false));
    let second = ended(Some(&first), &refused(2, words), no.clone());
    assert_eq!((second.status, second.refuses_unlisted(&id(2))), (MirrorStatus::Refused, true));
    // What goes first is introduced by nothing.
    assert_eq!(ended(None, &refused(1, words), no).status, MirrorStatus::Refused);
}

#[test]
fn what_was_restricted_is_sent_again_once_the_server_has_taken_something() {
    let in_sync = || Ending::Settled(Outcome::InSync);
    let first = ended(None, &refused(9, "restricted: must reference an accepted event"), in_sync());
    assert!(first.refused.contains_key(&id(9)));
    let idle = ended(Some(&first), &Seen { fresh: true, ..Seen::default() }, in_sync());
    assert!(idle.refused.contains_key(&id(9)));
    let taken = Seen { fresh: true, answers: [(id(8), Answer::Taken)].into(), ..Seen::default() };
    assert!(ended(Some(&idle), &taken, in_sync()).refused.is_empty());
    let for_good = ended(None, &refused(9, "blocked: no"), in_sync());
    assert!(ended(Some(&for_good), &taken, in_sync()).refused.contains_key(&id(9)));
}

#[test]
fn an_owners_own_path_has_to_show_its_refs_once() {
    let owner = Coordinate::new(nostr::prelude::Keys::generate().public_key(), "d");
    let mut wanted = Wanted {
        repository: owner.clone(),
        server: "wss://server.example".parse().unwrap(),
        place: Place { placement: Placement::Listed, path: owner, takes_pushes: true, own: false },
        governing: vec![id(1), id(2)],
        state: Some(id(2)),
        refs: BTreeMap::new(),
        attached: Vec::new(),
        pull_requests: Vec::new(),
        conversation: Vec::new(),
    };
    assert!(doubts(None, &wanted));
    let differs = Seen { fresh: true, refs_differ: true, ..Seen::default() };
    let mut record = ended(None, &differs, Ending::Failed("no".to_owned()));
    assert!(doubts(Some(&record), &wanted), "also in the next run");
    assert_eq!(record.refs_differ, None, "nobody knows: it does not serve the state");
    let serves = Seen { served: [id(1), id(2)].into(), ..differs.clone() };
    assert_eq!(ended(None, &serves, Ending::Failed("no".to_owned())).refs_differ, Some(id(2)));
    let copy = MirrorRecord {
        placement: Placement::Namespace,
        ..ended(None, &Seen::default(), Ending::Settled(Outcome::InSync))
    };
    let moved = ended(Some(&copy), &differs, Ending::Failed("no".to_owned()));
    assert!(doubts(Some(&moved), &wanted), "as long as it has not come to that");
    // Not looked at: still to be shown.
    record = ended(Some(&record), &Seen::default(), Ending::Down("down".to_owned()));
    assert!(doubts(Some(&record), &wanted));
    record = ended(Some(&record), &Seen { fresh: true, ..Seen::default() }, Ending::Settled(Outcome::InSync));
    assert!(!doubts(Some(&record), &wanted));
    wanted.place.placement = Placement::Namespace;
    assert!(!doubts(None, &wanted), "the bot announces its copies where it brings them");
}
