#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nostr::{
    nips::nip46::{NostrConnectMessage, NostrConnectMethod},
    prelude::{FinalizeEvent, Keys, Kind},
};

use super::super::{
    placement::Place,
    testing::{catalogued, event, server},
};
use super::*;
use crate::model::{coordinate::Coordinate, placement::Placement};

fn on(names: &[&str]) -> BTreeSet<ServerUrl> {
    names.iter().map(|name| server(name)).collect()
}

fn announcing(owner: &Keys, at: u64, names: &[&str]) -> Repository {
    let clone =
        on(names).iter().map(|url| url.clone_url(&owner.public_key(), "d").to_string()).collect::<Vec<_>>();
    let relays = on(names).iter().map(ToString::to_string).collect::<Vec<_>>();
    let tag = |name: &str, values: &[String]| [&[name.to_owned()], values].concat();
    let (clone, relays) = (tag("clone", &clone), tag("relays", &relays));
    let (clone, relays): (Vec<&str>, Vec<&str>) =
        (clone.iter().map(String::as_str).collect(), relays.iter().map(String::as_str).collect());
    catalogued(owner, &[event(owner, 30617, at, &[&["d", "d"], &clone, &relays])])
}

fn secs(at: u64) -> Timestamp {
    Timestamp::from_secs(at)
}

#[test]
fn a_state_is_said_again_where_it_may_help() {
    let (state, own) = (EventId::from_byte_array([1; 32]), Keys::generate().public_key());
    let place = |own_path| Place {
        placement: Placement::Listed,
        path: Coordinate::new(own, "d"),
        takes_pushes: true,
        own: own_path,
    };
    let demanded = |status, differs: Option<EventId>, own_path| {
        let mirror = MirrorRecord { refs_differ: differs, ..MirrorRecord::sample(status) };
        let (places, mirrors) = ([(server("a"), place(own_path))].into(), [(server("a"), mirror)].into());
        !Signing::default().to_be_given_back(Some(state), &places, &mirrors, false, secs(9)).is_empty()
    };
    assert!(demanded(MirrorStatus::Failing, Some(state), false));
    assert!(!demanded(MirrorStatus::Failing, None, false), "it has it");
    assert!(!demanded(MirrorStatus::Failing, Some(EventId::from_byte_array([2; 32])), false), "an older one");
    assert!(!demanded(MirrorStatus::Failing, Some(state), true), "the bot's own path");
    assert!(
        !demanded(MirrorStatus::Refused, Some(state), false),
        "it would take none: a new one in every cycle"
    );
}

#[test]
fn for_a_server_that_brings_no_refs_a_state_is_said_again_once_an_hour() {
    let (state, owner) = (Some(EventId::from_byte_array([1; 32])), Keys::generate().public_key());
    let path = Coordinate::new(owner, "d");
    let place = Place { placement: Placement::Listed, path, takes_pushes: true, own: false };
    let lacks = MirrorRecord { refs_differ: state, ..MirrorRecord::sample(MirrorStatus::Failing) };
    let places = Places::from(["a", "b"].map(|name| (server(name), place.clone())));
    let mirrors = Mirrors::from(["a", "b"].map(|name| (server(name), lacks.clone())));
    let mut signing = Signing::default();
    signing.note_given_back(&on(&["a"]), secs(1_000));
    let at = |now, afresh| signing.to_be_given_back(state, &places, &mirrors, afresh, secs(now));
    assert_eq!(at(1_060, false), on(&["b"]), "one does not keep it from the other");
    assert_eq!(at(4_599, false), on(&["b"]));
    assert_eq!(at(4_600, false), on(&["a", "b"]));
    assert_eq!(at(1_300, true), on(&["a", "b"]), "when somebody asks");
    assert_eq!(at(999, false), on(&["a", "b"]), "the clock was ahead when that was noted");
}

#[test]
fn what_a_person_takes_out_is_not_added_again() {
    let owner = Keys::generate();
    let mut signing = Signing::default();
    signing.look_at(&announcing(&owner, 10, &["a"]));
    signing.note_signed(owner.public_key(), &on(&["b", "c"]), secs(500));
    // Not published yet, or nobody serves it: nothing is concluded.
    signing.look_at(&announcing(&owner, 10, &["a"]));
    assert_eq!((signing.signed_on().count(), signing.removed().len()), (0, 0));
    signing.look_at(&announcing(&owner, 11, &["a", "b", "c"]));
    assert_eq!(signing.signed_on().cloned().collect::<BTreeSet<_>>(), on(&["b", "c"]));
    // Later somebody takes one out.
    signing.look_at(&announcing(&owner, 600, &["a", "c"]));
    assert_eq!((signing.signed_on().cloned().collect(), signing.removed().clone()), (on(&["c"]), on(&["b"])));
    let place = |own| Place {
        placement: Placement::Namespace,
        path: Coordinate::new(owner.public_key(), "d"),
        takes_pushes: true,
        own,
    };
    let places =
        Places::from([(server("a"), place(false)), (server("b"), place(true)), (server("e"), place(true))]);
    let mirrors = places.keys().map(|url| (url.clone(), mirror(MirrorStatus::InSync))).collect();
    assert_eq!(signing.to_be_listed(&places, &mirrors), on(&["e"]));
    let failing = places.keys().map(|url| (url.clone(), mirror(MirrorStatus::Failing))).collect();
    assert_eq!(signing.to_be_listed(&places, &failing), on(&[]), "nobody is sent where nothing is");
    // And puts it back by hand: it is theirs then.
    signing.look_at(&announcing(&owner, 700, &["a", "b", "c"]));
    assert_eq!((signing.signed_on().cloned().collect(), signing.removed().clone()), (on(&["c"]), on(&[])));
    // It survives being written down.
    let json = serde_json::to_string(&signing).unwrap();
    assert_eq!(serde_json::from_str::<Signing>(&json).unwrap(), signing);
}

#[test]
fn what_was_seen_to_be_listed_is_known_before_anything_newer_is_looked_at() {
    let owner = Keys::generate();
    let mut signing = Signing::default();
    signing.look_at(&announcing(&owner, 10, &["a"]));
    signing.note_signed(owner.public_key(), &on(&["b"]), secs(500));
    // The owner has not seen it, as far as is known.
    let mut unseen = signing.clone();
    assert!(!unseen.note_come(&announcing(&owner, 10, &["a"])));
    unseen.look_at(&announcing(&owner, 600, &["a"]));
    assert_eq!(unseen.removed(), &on(&[]));
    assert!(signing.note_come(&announcing(&owner, 11, &["a", "b"])));
    assert!(!signing.note_come(&announcing(&owner, 11, &["a", "b"])), "nothing is new");
    signing.look_at(&announcing(&owner, 600, &["a"]));
    assert_eq!(signing.removed(), &on(&["b"]));
}

#[test]
fn what_its_owner_listed_and_takes_out_is_not_added_either() {
    let owner = Keys::generate();
    let mut signing = Signing::default();
    signing.look_at(&announcing(&owner, 10, &["a", "b"]));
    assert_eq!(signing.removed(), &on(&[]));
    // Also in the same second.
    for at in [10, 20] {
        signing.look_at(&announcing(&owner, at, &["a"]));
        assert_eq!(signing.removed(), &on(&["b"]));
    }
    // An older version that turns up says nothing.
    signing.look_at(&announcing(&owner, 15, &["b"]));
    signing.look_at(&announcing(&owner, 20, &["a"]));
    assert_eq!(signing.removed(), &on(&["b"]));
    // On another machine it is known from elsewhere, until it is listed again.
    let mut elsewhere = Signing::default();
    elsewhere.take_out(on(&["b"]).iter());
    elsewhere.look_at(&announcing(&owner, 20, &["a"]));
    assert_eq!(elsewhere.removed(), &on(&["b"]));
    elsewhere.look_at(&announcing(&owner, 30, &["a", "b"]));
    assert_eq!(elsewhere.removed(), &on(&[]));
}

#[test]
fn a_server_that_refuses_the_copy_is_shown_a_listing_until_it_says_no_to_that() {
    let owner = Keys::generate();
    let mut signing = Signing::default();
    let place = |own| Place {
        placement: Placement::Namespace,
        path: Coordinate::new(owner.public_key(), "d"),
        takes_pushes: true,
        own,
    };
    let places: Places = [("a", false), ("b", true), ("c", true), ("e", true)]
        .map(|(name, own)| (server(name), place(own)))
        .into();
    let repository = announcing(&owner, 10, &["a"]);
    let mut mirrors: Mirrors =
        places.keys().map(|url| (url.clone(), mirror(MirrorStatus::Refused))).collect();
    mirrors.insert(server("c"), mirror(MirrorStatus::InSync));
    let shown = |signing: &Signing, at| signing.to_be_shown(&repository, &places, &mirrors, false, secs(at));
    assert_eq!(shown(&signing, 100), Some(server("b")));
    signing.note_signed(owner.public_key(), &on(&["b"]), secs(100));
    signing.decline(&server("b"), "blocked: not\u{7} you", secs(100));
    assert_eq!(shown(&signing, 101), Some(server("e")));
    signing.take_out(on(&["e"]).iter());
    assert_eq!(shown(&signing, 101), None, "taken out by hand");
    assert_eq!(shown(&signing, 100 + 40 * 24 * 3_600), Some(server("b")));
    assert_eq!(
        signing.to_be_shown(&repository, &places, &mirrors, true, secs(500)),
        Some(server("b")),
        "somebody wants it anew"
    );
    assert_eq!(
        signing.to_be_shown(&repository, &places, &mirrors, true, secs(200)),
        None,
        "and not twice in a run"
    );
    signing.show(&mut mirrors);
    let reason = mirrors[&server("b")].reason.clone().unwrap();
    assert!(reason.ends_with("that lists it: blocked: not you"), "{reason}");
    // Listed by hand later, it is the owner's.
    signing.look_at(&announcing(&owner, 500, &["a", "b"]));
    assert_eq!(signing.signed_on().count(), 0);
}

#[test]
fn another_client_that_signed_at_the_same_time_took_nothing_out() {
    let owner = Keys::generate();
    let mut signing = Signing::default();
    signing.note_signed(owner.public_key(), &on(&["b"]), secs(500));
    signing.look_at(&announcing(&owner, 11, &["a", "b"]));
    signing.look_at(&announcing(&owner, 500, &["a"]));
    assert_eq!((signing.signed_on().count(), signing.removed().len()), (0, 0));
}

#[test]
fn the_owners_announcement_is_signed_before_a_co_maintainers() {
    let [owner, helper, stranger] = [(); 3].map(|()| Keys::generate());
    let hex = |keys: &Keys| keys.public_key().to_hex();
    let all = [
        event(&owner, 30617, 1, &[&["d", "d"], &["maintainers", &hex(&helper), &hex(&stranger)]]),
        event(&helper, 30617, 1, &[&["d", "d"], &["maintainers", &hex(&owner)]]),
        event(&stranger, 30617, 1, &[&["d", "d"]]),
    ];
    let repository = catalogued(&owner, &all);
    let by = |keys: &[&Keys]| {
        let keys = keys.iter().map(|keys| keys.public_key()).collect();
        signable(&repository, &keys).map(Announcement::author)
    };
    assert_eq!(by(&[&helper, &owner]), Some(owner.public_key()));
    assert_eq!(by(&[&helper]), Some(helper.public_key()));
    // Invited only.
    assert_eq!(by(&[&stranger]), None);
}

fn mirror(status: MirrorStatus) -> MirrorRecord {
    MirrorRecord { placement: Placement::Namespace, read_back_at: Some(2), ..MirrorRecord::sample(status) }
}

#[test]
fn who_waits_for_a_person_is_told_apart_from_who_waits_for_the_signer() {
    let by = Keys::generate().public_key();
    let request = |stands| Request {
        events: BTreeSet::from([EventId::from_byte_array([1; 32])]),
        by,
        servers: on(&["a", "b", "r"]),
        since: 77,
        stands,
    };
    let mut signing = Signing::default();
    let mut mirrors = Mirrors::from([
        (server("a"), mirror(MirrorStatus::InSync)),
        (server("b"), mirror(MirrorStatus::Failing)),
        (server("c"), mirror(MirrorStatus::InSync)),
        (
            server("r"),
            MirrorRecord { reason: Some("blocked: no".to_owned()), ..mirror(MirrorStatus::Refused) },
        ),
    ]);
    let before = mirrors.clone();
    signing.show(&mut mirrors);
    assert_eq!(mirrors, before);
    for (stands, says) in [
        (Stands::WaitingForYou, "waiting for you"),
        (Stands::WaitingForYouAt("https://h.example/x?token=s3cr3t".to_owned()), "https://h.example/x"),
        (Stands::Unreachable("silent for 10 s".to_owned()), "unreachable: silent for 10 s"),
        (Stands::Refused("no\u{7}".to_owned(), 5), "said no: no"),
        (Stands::TooLarge("70000 bytes".to_owned(), 5), "too large for the remote signer of"),
    ] {
        signing.request = Some(request(stands));
        mirrors.clone_from(&before);
        signing.show(&mut mirrors);
        let shown = &mirrors[&server("a")];
        let reason = shown.reason.clone().unwrap();
        assert_eq!((shown.status, shown.since), (MirrorStatus::AwaitingSignature, 77));
        assert!(reason.contains(says) && !reason.contains("s3cr3t"), "{reason}");
        assert_eq!(mirrors[&server("b")].status, MirrorStatus::Failing);
        // No copy is there, so it is not shown as one.
        let refused = &mirrors[&server("r")];
        let why = refused.reason.clone().unwrap();
        assert_eq!(refused.status, MirrorStatus::Refused);
        assert!(why.starts_with("blocked: no; to be listed") && why.contains(says), "{why}");
        assert_eq!(mirrors[&server("c")], before[&server("c")]);
    }
    let no = request(Stands::Refused(String::new(), 100));
    assert!(!no.is_due(secs(101)) && no.is_due(secs(100 + 24 * 3_600)));
    let large = request(Stands::TooLarge(String::new(), 100));
    assert!(!large.is_due(secs(101)) && large.is_due(secs(100 + 24 * 3_600)));
}

/// Both messages, as they are encrypted: what is let through fits in, and what is not would not by much.
#[test]
fn what_a_remote_signer_cannot_be_asked_is_known_before() {
    let owner = Keys::generate();
    for (odd, most) in [("x", 64_000), ("\"", 16_000), ("ü", 32_000), ("\u{1}", 9_000)] {
        let of = |count: usize| {
            let content = odd.repeat(count);
            let mut event = UnsignedEvent::new(owner.public_key(), secs(1), Kind::RepoState, [], content);
            event.ensure_id();
            event
        };
        let messages = |event: UnsignedEvent| {
            let id = "0".repeat(32);
            let request = NostrConnectMessage::Request {
                id: id.clone(),
                method: NostrConnectMethod::SignEvent,
                params: vec![event.as_json()],
            };
            let signed = event.finalize(&owner).unwrap().as_json();
            let answer =
                NostrConnectMessage::Response { id, result: Some(signed), error: Some(String::new()) };
            request.as_json().len().max(answer.as_json().len())
        };
        let first = (1..).step_by(100).find(|count| too_large(&of(*count)).is_some()).unwrap();
        assert!(messages(of(first - 100)) <= MESSAGE_MAX, "{odd:?} {first}");
        assert!(messages(of(first)) > MESSAGE_MAX - 1_000, "{odd:?} {first}");
        assert!(first > most, "{odd:?} {first}");
    }
}
