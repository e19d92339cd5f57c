#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nostr::prelude::Keys;

use super::{
    super::{
        hold::{Held, Stands},
        placement::Place,
        record::HeldConversation,
        testing::event,
    },
    *,
};

const NOW: u64 = 1_790_000_000;

fn terms() -> Terms {
    Terms { now: Timestamp::from_secs(NOW), patient: true, max_repo_bytes: 1 << 30 }
}

/// A repository in sync on one server, and what the server has.
fn at_rest() -> (Known, ServerUrl, Holdings, EventId) {
    let keys = Keys::generate();
    let server: ServerUrl = "wss://a.example".parse().unwrap();
    let (announcement, state) =
        (event(&keys, 30_617, 1, &[&["d", "x"]]), event(&keys, 30_618, 2, &[&["d", "x"]]));
    let coordinate = Coordinate::new(keys.public_key(), "x");
    let place =
        Place { placement: Placement::Listed, path: coordinate.clone(), takes_pushes: true, own: false };
    let mirror = MirrorRecord {
        since: NOW - 1_000,
        read_back_at: Some(NOW - 1_000),
        conversation: Some(HeldConversation { fingerprint: "f".to_owned(), seen_at: NOW - 1_000 }),
        ..MirrorRecord::sample(MirrorStatus::InSync)
    };
    let governing = [&announcement, &state].map(|event| (event.pubkey, event.id)).to_vec();
    let mut holdings = Holdings::default();
    holdings.add([&announcement, &state]);
    let known = Known {
        state: Some(state.id),
        made_of: [announcement.id, state.id].into(),
        coordinates: vec![coordinate],
        thread: [(EventId::from_byte_array([0; 32]), Timestamp::from_secs(3))].into(),
        relays: Box::default(),
        fingerprint: "f".to_owned(),
        places: [(server.clone(), place)].into(),
        proofs: [(server.clone(), Proofs { governing: governing.into(), attached: Box::default() })].into(),
        obstacle: None,
        record: RepositoryRecord {
            mirrors: [(server.clone(), mirror)].into(),
            local: Some(state.id),
            ..RepositoryRecord::default()
        },
        notes: Vec::new(),
    };
    (known, server, holdings, state.id)
}

#[test]
fn what_every_server_serves_rests_and_is_noted_as_seen() {
    let (mut known, server, holdings, _) = at_rest();
    let before = known.record.clone();
    let endings = endings(&known, terms(), |_| Look::Has(&holdings)).unwrap();
    assert!(endings.is_empty(), "it stands as it stood");
    assert!(!known.rest(&endings, Timestamp::from_secs(NOW)), "nothing worth writing");
    assert_eq!(known.record, before);
    known.record.confirm(&[(server.clone(), NOW)].into());
    assert_eq!(known.record.mirrors[&server].read_back_at, Some(NOW));
    assert_eq!(before.mirrors[&server].read_back_at, Some(NOW - 1_000), "a copy is a copy");
}

#[test]
fn anything_else_is_walked() {
    let (known, server, holdings, state) = at_rest();
    let rests = |known: &Known, look: Look<'_>| endings(known, terms(), |_| look).is_some();
    assert!(rests(&known, Look::Has(&holdings)));
    assert!(!rests(&known, Look::NotSeen));
    let mut wiped = holdings.clone();
    wiped.strike(&BTreeSet::from([state]));
    assert!(!rests(&known, Look::Has(&wiped)));

    let changed = |change: &dyn Fn(&mut Known)| {
        let mut known = known.clone();
        change(&mut known);
        rests(&known, Look::Has(&holdings))
    };
    assert!(!changed(&|known| known.record.local = None), "no whole local copy");
    assert!(!changed(&|known| known.fingerprint = "g".to_owned()), "somebody said something");
    assert!(!changed(&|known| known.record.mirrors.clear()), "a new server");
    assert!(!changed(&|known| known.record.lose(&[state], Timestamp::from_secs(NOW - 24 * 3_600))));
    let unseen = |known: &mut Known| known.record.mirrors.get_mut(&server).unwrap().conversation = None;
    assert!(!changed(&unseen), "nobody saw what it has of the conversation");
    let silent = |known: &mut Known| {
        unseen(known);
        known.thread.clear();
    };
    assert!(changed(&silent), "a conversation of nothing is held by everyone");
    let failing = |retry_at: u64| {
        let server = server.clone();
        move |known: &mut Known| {
            let mirror = known.record.mirrors.get_mut(&server).unwrap();
            (mirror.status, mirror.retry_at) = (MirrorStatus::Failing, Some(retry_at));
        }
    };
    assert!(!changed(&failing(NOW - 1)), "its next try has come");
    assert!(changed(&failing(NOW + 1)), "not its turn");
    let pushed_early = |retry_at: u64| {
        let server = server.clone();
        move |known: &mut Known| {
            let mirror = known.record.mirrors.get_mut(&server).unwrap();
            (mirror.look_again, mirror.retry_at) = (Some(state), Some(retry_at));
        }
    };
    assert!(!changed(&pushed_early(NOW)), "its refs are compared once more");
    assert!(changed(&pushed_early(NOW + 1)), "in a moment");
}

#[test]
fn what_is_held_rests_until_its_time_is_over() {
    let (mut known, server, holdings, state) = at_rest();
    known.obstacle = Some(Ending::Blocked("held".to_owned()));
    let mut rests = |stands, until| {
        let held = Held { state, since: NOW - 10, until, removed: 2, of: 2, stands };
        known.record.held = Some(held);
        endings(&known, terms(), |_| Look::Has(&holdings))
    };
    let blocked = [(server, Ending::Blocked("held".to_owned()))].into();
    assert_eq!(rests(Stands::Waiting, NOW + 1), Some(blocked));
    assert_eq!(rests(Stands::Waiting, NOW), None);
    assert!(rests(Stands::Rejected, NOW).is_some(), "no stays no");
    assert_eq!(rests(Stands::Followed, NOW + 1), None);
}

#[test]
fn a_server_that_went_down_is_written_down_once() {
    let (mut known, server, holdings, _) = at_rest();
    let down = |known: &mut Known, now: u64| {
        let terms = Terms { now: Timestamp::from_secs(now), ..terms() };
        let endings = endings(known, terms, |_| Look::Down("gone")).unwrap();
        known.rest(&endings, Timestamp::from_secs(now))
    };
    assert!(down(&mut known, NOW));
    assert_eq!(known.record.mirrors[&server].status, MirrorStatus::Unreachable);
    assert!(!down(&mut known, NOW + 7_200));
    assert_eq!(known.record.mirrors[&server].failures, 1);

    // While it is not asked, it stands as it stood.
    let before = known.record.clone();
    let terms = Terms { now: Timestamp::from_secs(NOW + 14_400), ..terms() };
    let endings = endings(&known, terms, |_| Look::LeftAlone("gone")).unwrap();
    assert!(!known.rest(&endings, terms.now));
    assert_eq!(known.record, before);
    // When it is up, it is walked at once, whatever had been planned.
    known.record.mirrors.get_mut(&server).unwrap().retry_at = Some(NOW + 99_999);
    assert_eq!(super::endings(&known, terms, |_| Look::Has(&holdings)), None);
}

#[test]
fn each_is_looked_at_in_depth_once_a_day_and_never_all_at_once() {
    let owner = Keys::generate().public_key();
    let mut checked: BTreeMap<Coordinate, Option<u64>> =
        (0..300).map(|n| (Coordinate::new(owner, n.to_string()), Some(NOW))).collect();
    let interval = 600;
    let (mut most, mut looks) = (0, 0);
    for cycle in 1..=(3 * 144) {
        let now = NOW + cycle * interval;
        let due = due_in_depth(checked.iter().map(|(c, at)| (c, *at)), Timestamp::from_secs(now), interval);
        most = most.max(due.len());
        looks += due.len();
        for coordinate in due {
            checked.insert(coordinate, Some(now));
        }
        assert!(checked.values().all(|at| at.unwrap() + 36 * 3_600 + interval >= now));
    }
    assert_eq!(most, 3);
    assert!((2 * 300..=4 * 300).contains(&looks), "{looks}");
    // However few there are, one cycle looks at one.
    let one = [(Coordinate::new(owner, "x"), None)];
    assert_eq!(due_in_depth(one.iter().map(|(c, at)| (c, *at)), Timestamp::from_secs(NOW), 1).len(), 1);
}
