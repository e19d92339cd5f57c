//! Mirrors walked against simulated servers.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{EventId, Keys};
use proptest::prelude::*;

use super::super::{
    converge::{Answer, LOOKS, Outcome, Seen, Step, Wanted, next_step},
    conversation::PullRequest,
    placement::Place,
    simulated::{Faults, Server, walk},
};
use crate::model::{
    coordinate::Coordinate,
    placement::Placement,
    refs::{ObjectId, Refs},
};

fn id(n: u8) -> EventId {
    EventId::from_byte_array([n; 32])
}

fn refs(n: u8) -> Refs {
    let target = ObjectId::from_hex(format!("{n:02x}").repeat(20).as_bytes()).unwrap();
    Refs::from([("refs/heads/main".parse().unwrap(), target)])
}

/// Announcement 1 and state 2 govern; 3 and 4 are attached; 10 to 12 are the conversation, 11 a pull request.
fn wanted() -> Wanted {
    let owner = Keys::generate().public_key();
    let repository = Coordinate::new(owner, "d");
    Wanted {
        repository: repository.clone(),
        server: "wss://server.example".parse().unwrap(),
        place: Place { placement: Placement::Namespace, path: repository, takes_pushes: true, own: true },
        governing: vec![id(1), id(2)],
        state: Some(id(2)),
        refs: refs(7),
        attached: vec![id(3), id(4)],
        pull_requests: vec![PullRequest {
            id: id(11),
            tip: *refs(9).values().next().unwrap(),
            clone_urls: Vec::new(),
        }],
        conversation: vec![id(10), id(11), id(12)],
    }
}

fn looked() -> Seen {
    Seen { fresh: true, ..Seen::default() }
}

#[test]
fn announcement_and_state_go_before_the_git_data_and_the_rest_after_it() {
    let wanted = wanted();
    let mut seen = looked();
    assert_eq!(next_step(&wanted, &seen), Step::Send(vec![id(1), id(2)]));
    seen.answers.extend([(id(1), Answer::Purgatory), (id(2), Answer::Purgatory)]);
    seen.fresh = false;
    assert_eq!(next_step(&wanted, &seen), Step::Push);
    seen.pushed = true;
    assert_eq!(next_step(&wanted, &seen), Step::Look);
    seen.served.extend([id(1), id(2)]);
    seen.fresh = true;
    assert_eq!(next_step(&wanted, &seen), Step::Send(vec![id(3), id(4)]));
}

#[test]
fn a_state_taken_without_purgatory_needs_no_push() {
    let wanted = wanted();
    let mut server = Server { has_objects: true, ..Server::default() };
    let (outcome, _) = walk(&wanted, looked(), &mut server).unwrap();
    assert_eq!((outcome, server.pushes), (Outcome::InSync, 0));
    assert_eq!(server.refs, wanted.refs);
}

#[test]
fn a_mirror_in_sync_is_left_in_peace() {
    let wanted = wanted();
    let seen = Seen {
        served: [1, 2, 3, 4].map(id).into(),
        fresh: true,
        lacks: Some(BTreeSet::new()),
        ..Seen::default()
    };
    assert_eq!(next_step(&wanted, &seen), Step::Settled(Outcome::InSync));
}

#[test]
fn a_refusal_for_good_is_not_tried_again_and_ends_only_its_own_part() {
    let wanted = wanted();
    let refused = Seen { refused: BTreeMap::from([(id(1), "blocked: no".to_owned())]), ..looked() };
    assert_eq!(next_step(&wanted, &refused), Step::Settled(Outcome::Refused("blocked: no".to_owned())));

    // One reply that is refused for good is the only thing that stays away.
    let seen = Seen { refused: BTreeMap::from([(id(12), "invalid: no".to_owned())]), ..looked() };
    let mut server = Server::default();
    let (outcome, _) = walk(&wanted, seen, &mut server).unwrap();
    assert_eq!(outcome, Outcome::InSync);
    assert!(!server.sent.contains(&id(12)) && server.serves.contains(&id(10)));
}

#[test]
fn without_the_owners_announcement_a_server_is_not_bothered_with_the_conversation() {
    let wanted = wanted();
    let seen = Seen { refused: BTreeMap::from([(id(3), "invalid: not listed".to_owned())]), ..looked() };
    let mut server = Server::default();
    let (outcome, _) = walk(&wanted, seen, &mut server).unwrap();
    assert_eq!(outcome, Outcome::InSync);
    assert_eq!(server.sent, [id(1), id(2), id(4)]);
}

#[test]
fn an_archive_gets_events_and_no_push() {
    let mut wanted = wanted();
    wanted.place.takes_pushes = false;
    let mut server = Server::default();
    let (outcome, _) = walk(&wanted, looked(), &mut server).unwrap();
    assert!(matches!(outcome, Outcome::Pending(_)));
    assert_eq!(server.pushes, 0);
    assert_eq!(server.sent, [id(1), id(2)]);
}

#[test]
fn what_was_taken_is_looked_for_some_times_and_then_left_pending() {
    let wanted = wanted();
    let mut seen = Seen { served: [1, 2].map(id).into(), ..Seen::default() };
    seen.answers.extend([3, 4].map(|n| (id(n), Answer::Taken)));
    assert_eq!(next_step(&wanted, &seen), Step::Look);
    seen.fresh = true;
    for looks in 0..LOOKS {
        seen.looks = looks;
        assert_eq!(next_step(&wanted, &seen), Step::Look);
    }
    seen.looks = LOOKS;
    assert!(matches!(next_step(&wanted, &seen), Step::Settled(Outcome::Pending(_))));
}

#[test]
fn an_archive_gets_no_pull_requests_commits() {
    let mut wanted = wanted();
    let mut seen = Seen { lacks: Some([id(11)].into()), ..looked() };
    seen.served.extend([1, 2, 3, 4].map(id));
    seen.answers.insert(id(11), Answer::Purgatory);
    assert_eq!(next_step(&wanted, &seen), Step::PushRequests(wanted.pull_requests.clone()));
    wanted.place.takes_pushes = false;
    assert_eq!(next_step(&wanted, &seen), Step::Settled(Outcome::InSync));
}

prop_compose! {
    fn servers()(
        serves in proptest::collection::btree_set(prop::sample::select(vec![1, 2, 3, 4, 10, 11, 12]), 0..7),
        has_objects: bool,
        old_refs in prop::option::of(1..9_u8),
        refuses in prop::option::of((prop::sample::select(vec![1, 2, 3, 4, 10, 12]), prop::bool::ANY)),
        swallows in prop::bool::weighted(0.2),
        slow_looks in 0..LOOKS + 3,
    ) -> Server {
        Server {
            serves: serves.iter().copied().map(id).collect(),
            refs: old_refs.map(refs).unwrap_or_default(),
            // A server that serves the state has its git data (GRASP-01).
            has_objects: has_objects || serves.contains(&2),
            faults: Faults {
                refuses: refuses.map(|(n, good)| {
                    (id(n), if good { "blocked: no" } else { "error: later" }.to_owned())
                }),
                swallows,
                slow_looks,
            },
            ..Server::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Whatever the server holds and does: the walk ends, asks no more than it must, and calls a mirror in
    /// sync only when the server serves the state.
    #[test]
    fn a_walk_ends_and_never_calls_unread_things_in_sync(mut server in servers(), looked_first: bool) {
        let wanted = wanted();
        let mut seen = Seen::default();
        if looked_first {
            seen.served = wanted.proofs().copied().filter(|id| server.serves.contains(id)).collect();
            seen.fresh = true;
        }
        let before = server.clone();
        let (outcome, seen) = walk(&wanted, seen, &mut server).expect("the walk ends");
        if outcome == Outcome::InSync {
            prop_assert!(server.serves.contains(&id(2)));
            prop_assert!(wanted.governing.iter().all(|id| seen.served.contains(id)));
            let is_refused = |id| match seen.answers.get(id) {
                Some(answer) => matches!(answer, Answer::Refused(_)),
                None => seen.refused.contains_key(id),
            };
            prop_assert!(wanted.attached.iter().all(|id| seen.served.contains(id) || is_refused(id)));
        }
        prop_assert!(server.pushes <= 1);
        let mut once = server.sent.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), server.sent.len(), "nothing is sent twice");
        if looked_first {
            prop_assert!(server.sent.iter().all(|id| !before.serves.contains(id)), "nothing it serves is sent");
        }
        // A server that does nothing wrong ends in sync.
        if server.faults.refuses.is_none() && !server.faults.swallows && server.faults.slow_looks < 3 {
            prop_assert_eq!(outcome, Outcome::InSync);
            prop_assert!([10, 11, 12].map(id).iter().all(|id| server.serves.contains(id)));
        }
    }
}
