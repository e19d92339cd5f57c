//! Tries to get past the door.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nostr::prelude::{EventBuilder, FinalizeEvent, Keys, Tags};
use proptest::prelude::*;

use super::super::{
    signing::{amended, said_again},
    testing::{catalogued, event, server},
};
use super::*;

const AT: u64 = 1_000;

/// A repository whose announcement has these tags after `d`, and a state.
fn repository(keys: &Keys, tags: Vec<Tag>, content: &str) -> Repository {
    let announcement = EventBuilder::new(Kind::GitRepoAnnouncement, content)
        .tag(Tag::identifier("d"))
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(AT))
        .finalize(keys)
        .unwrap();
    let state = event(keys, 30618, AT, &[&["d", "d"], &["refs/heads/main", &"a".repeat(40)], &["x", "y"]]);
    catalogued(keys, &[announcement, state])
}

fn tag(values: &[&str]) -> Tag {
    Tag::parse(values.iter().copied()).unwrap()
}

fn next(repository: &Repository, servers: &BTreeSet<ServerUrl>) -> UnsignedEvent {
    amended(repository.announcement().unwrap(), servers).unwrap()
}

fn with_tags(event: &UnsignedEvent, change: impl FnOnce(&mut Vec<Tag>)) -> UnsignedEvent {
    let mut tags = event.tags.as_slice().to_vec();
    change(&mut tags);
    UnsignedEvent { tags: Tags::from_list(tags), ..event.clone() }
}

#[test]
fn what_adds_servers_and_nothing_else_is_signed() {
    let owner = Keys::generate();
    let servers = BTreeSet::from([server("a"), server("b")]);
    let known = repository(&owner, vec![tag(&["name", "x"]), tag(&["relays", "wss://a.example"])], "");
    let good = next(&known, &servers);
    let permitted = permit(good.clone(), &known, &Purpose::List(&servers)).unwrap();
    let signed = permitted.event().clone().finalize(&owner).unwrap();
    assert!(permitted.is_signed_as(&signed));
    let other = UnsignedEvent { id: None, content: "x".to_owned(), ..good.clone() }.finalize(&owner).unwrap();
    assert!(!permitted.is_signed_as(&other));

    // An id that is not its own would have a signer sign something else than was looked at.
    let lying = UnsignedEvent { id: Some(other.id), ..good.clone() };
    assert_eq!(permit(lying, &known, &Purpose::List(&servers)).unwrap().id(), permitted.id());

    // Fewer servers than allowed are fine, others are not.
    let only_b = BTreeSet::from([server("b")]);
    assert!(permit(next(&known, &only_b), &known, &Purpose::List(&servers)).is_ok());
    assert_eq!(permit(good, &known, &Purpose::List(&only_b)), Err(Forbidden::Changes));
}

#[test]
fn nobody_gets_past_the_door() {
    let (owner, stranger) = (Keys::generate(), Keys::generate());
    let servers = BTreeSet::from([server("a"), server("b")]);
    let tags = vec![
        tag(&["name", "x"]),
        tag(&["clone", "https://elsewhere.example/x.git"]),
        tag(&["maintainers", &stranger.public_key().to_hex()]),
        tag(&["relays", "wss://elsewhere.example"]),
        tag(&["relays", "wss://second.example"]),
    ];
    let known = repository(&owner, tags, "about");
    let list = Purpose::List(&servers);
    let good = next(&known, &servers);
    assert!(permit(good.clone(), &known, &list).is_ok());
    let foreign = server("a").clone_url(&stranger.public_key(), "d").to_string();
    let other_name = server("a").clone_url(&owner.public_key(), "e").to_string();
    let nothing = amended(known.announcement().unwrap(), &BTreeSet::new());
    assert_eq!(nothing, None);

    let changed = |change: fn(&mut UnsignedEvent)| {
        let mut event = good.clone();
        change(&mut event);
        event
    };
    for (forbidden, event) in [
        (Forbidden::Kind(Kind::TextNote), changed(|event| event.kind = Kind::TextNote)),
        (Forbidden::Kind(Kind::EventDeletion), changed(|event| event.kind = Kind::EventDeletion)),
        (Forbidden::Kind(Kind::RepoState), changed(|event| event.kind = Kind::RepoState)),
        (Forbidden::Kind(Kind::Metadata), changed(|event| event.kind = Kind::Metadata)),
        (Forbidden::Changes, changed(|event| event.content = "other".to_owned())),
        (Forbidden::Date, changed(|event| event.created_at = Timestamp::from_secs(AT))),
        (Forbidden::Date, changed(|event| event.created_at = Timestamp::from_secs(AT + 2))),
        (Forbidden::Date, changed(|event| event.created_at = Timestamp::from_secs(0))),
        (
            Forbidden::NoMaintainer(stranger.public_key()),
            UnsignedEvent { pubkey: stranger.public_key(), ..good.clone() },
        ),
        (
            Forbidden::NothingNew,
            with_tags(&good, |tags| *tags = known.announcement().unwrap().event.tags.as_slice().to_vec()),
        ),
        (Forbidden::Changes, with_tags(&good, |tags| tags.push(tag(&["deleted"])))),
        (
            Forbidden::Changes,
            with_tags(&good, |tags| tags.push(tag(&["clone", "https://evil.example/x.git"]))),
        ),
        (
            Forbidden::Changes,
            with_tags(&good, |tags| tags.push(tag(&["m", &stranger.public_key().to_hex()]))),
        ),
        (Forbidden::Changes, with_tags(&good, |tags| tags.truncate(2))),
        (Forbidden::Changes, with_tags(&good, |tags| tags.swap(0, 1))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[0] = tag(&["d", "other"]))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[1].push("more"))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[2].push("https://evil.example/x.git"))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[2].push(foreign.clone()))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[2].push(other_name.clone()))),
        // Said twice.
        (Forbidden::Changes, with_tags(&good, |tags| tags[4].push("wss://a.example"))),
        // The second tag of the name is not ours to write in.
        (Forbidden::Changes, with_tags(&good, |tags| tags[5].push("wss://a.example"))),
        (Forbidden::Changes, with_tags(&good, |tags| tags[3].push("wss://a.example"))),
    ] {
        assert_eq!(permit(event.clone(), &known, &list), Err(forbidden), "{event:?}");
    }

    // Invited is not confirmed, and who is not known has nothing to replace.
    let invited = UnsignedEvent { pubkey: stranger.public_key(), ..good.clone() };
    assert!(matches!(permit(invited, &known, &list), Err(Forbidden::NoMaintainer(_))));
    let mut private = known.clone();
    private.announcements[0].private = true;
    assert_eq!(permit(good.clone(), &private, &list), Err(Forbidden::Private));
    let mut nobody = known.clone();
    nobody.authority = None;
    assert!(matches!(permit(good, &nobody, &list), Err(Forbidden::NoMaintainer(_))));
}

#[test]
fn a_state_is_only_said_again() {
    let owner = Keys::generate();
    let known = repository(&owner, Vec::new(), "");
    let state = &known.state.as_ref().unwrap().event;
    let again = said_again(&known, owner.public_key()).unwrap();
    assert_eq!((again.created_at.as_secs(), &again.tags), (AT + 1, &state.tags));
    assert!(permit(again.clone(), &known, &Purpose::GiveBack).is_ok());
    let on = BTreeSet::from([server("a")]);
    assert_eq!(permit(again.clone(), &known, &Purpose::List(&on)), Err(Forbidden::Kind(Kind::RepoState)));
    let listing = next(&known, &on);
    assert_eq!(permit(listing, &known, &Purpose::GiveBack), Err(Forbidden::Kind(Kind::GitRepoAnnouncement)));
    let moved = with_tags(&again, |tags| tags[1] = tag(&["refs/heads/main", &"b".repeat(40)]));
    assert_eq!(permit(moved, &known, &Purpose::GiveBack), Err(Forbidden::Changes));
    let fewer = with_tags(&again, |tags| tags.truncate(1));
    assert_eq!(permit(fewer, &known, &Purpose::GiveBack), Err(Forbidden::Changes));
    let other = with_tags(&again, |tags| tags[0] = tag(&["d", "e"]));
    assert_eq!(permit(other, &known, &Purpose::GiveBack), Err(Forbidden::Changes));
    let late = UnsignedEvent { created_at: Timestamp::from_secs(AT + 2), ..again };
    assert_eq!(permit(late, &known, &Purpose::GiveBack), Err(Forbidden::Date));
}

fn any_tag() -> impl Strategy<Value = Tag> {
    let name = prop_oneof![
        Just("clone".to_owned()),
        Just("relays".to_owned()),
        Just("t".to_owned()),
        Just("maintainers".to_owned()),
        "[a-z-]{1,12}",
    ];
    let value = prop_oneof![
        "\\PC{0,20}",
        Just("wss://a.example".to_owned()),
        Just("wss://A.example/".to_owned()),
        Just("https://h.example/x.git".to_owned()),
    ];
    (name, proptest::collection::vec(value, 0..4)).prop_map(|(name, values)| Tag::custom(name, values))
}

/// Whether `event` adds to the `old` tags nothing but some of what `whole` adds, each once, and in the same places.
fn is_part(old: &[Tag], whole: &UnsignedEvent, event: &UnsignedEvent) -> bool {
    let added = |old: Option<&Tag>, tag: &Tag| -> Option<BTreeSet<String>> {
        let said = old.map_or(1, |old| old.as_slice().len());
        let is_longer = old.is_none_or(|old| tag.as_slice().starts_with(old.as_slice()));
        let more = is_longer.then(|| tag.as_slice()[said..].to_vec())?;
        let each: BTreeSet<String> = more.iter().cloned().collect();
        (each.len() == more.len()).then_some(each)
    };
    let (kept, new) = event.tags.as_slice().split_at(old.len().min(event.tags.len()));
    let (there, more) = whole.tags.as_slice().split_at(old.len());
    let is_kept = kept.len() == old.len()
        && kept.iter().zip(old).zip(there).all(|((tag, old), whole)| {
            added(Some(old), tag).is_some_and(|some| some.is_subset(&added(Some(old), whole).unwrap()))
        });
    let mut names = BTreeSet::new();
    is_kept
        && new.iter().all(|tag| {
            let whole = more.iter().find(|whole| whole.kind() == tag.kind());
            let some = added(None, tag);
            names.insert(tag.kind().to_owned())
                && whole.zip(some).is_some_and(|(whole, some)| some.is_subset(&added(None, whole).unwrap()))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever tags there are: all stay, in place and order, and only addresses that are missing come.
    #[test]
    fn every_tag_is_kept_in_place(tags in proptest::collection::vec(any_tag(), 0..12), content in "\\PC{0,20}", on in proptest::collection::btree_set("[a-e]", 1..5)) {
        let owner = Keys::generate();
        let servers: BTreeSet<ServerUrl> = on.iter().map(|name| server(name)).collect();
        prop_assume!(!tags.iter().any(|tag| matches!(tag.kind(), "d" | "private")));
        let known = repository(&owner, tags, &content);
        let before = known.announcement().unwrap();
        let after = next(&known, &servers);
        prop_assert!(permit(after.clone(), &known, &Purpose::List(&servers)).is_ok());
        prop_assert_eq!(&after.content, &before.event.content);
        prop_assert_eq!(after.created_at.as_secs(), AT + 1);
        let (old, new) = (before.event.tags.as_slice(), after.tags.as_slice());
        for (old, new) in old.iter().zip(new) {
            prop_assert!(new.as_slice().starts_with(old.as_slice()));
            prop_assert!(old == new || matches!(old.kind(), "clone" | "relays"));
        }
        prop_assert!(new.len() >= old.len() && new[old.len()..].iter().all(|tag| matches!(tag.kind(), "clone" | "relays")));
        let said = Announcement::read(after.finalize(&owner).unwrap()).unwrap();
        prop_assert!(servers.iter().all(|server| said.lists(server)));
        prop_assert_eq!(said.clone_urls.len() - before.clone_urls.len(), servers.iter().filter(|server| !before.has_clone_at(server)).count());
        // Once said, there is nothing left to say.
        prop_assert!(amended(&said, &servers).is_none());
    }

    /// One change anywhere, and it is not signed.
    #[test]
    fn one_change_and_it_is_not_signed(tags in proptest::collection::vec(any_tag(), 1..8), at in any::<prop::sample::Index>(), other in any_tag(), how in 0..5_u8) {
        let owner = Keys::generate();
        let servers = BTreeSet::from([server("a"), server("x")]);
        let known = repository(&owner, tags, "");
        let good = next(&known, &servers);
        let bad = with_tags(&good, |tags| {
            let at = at.index(tags.len());
            match how {
                0 => { tags.remove(at); }
                1 => tags.insert(at, other),
                2 => tags[at] = other,
                3 => tags[at].push("https://evil.example/x.git"),
                _ => tags.rotate_left(1),
            }
        });
        prop_assume!(bad.tags != good.tags);
        // What is left may be as good: an address less.
        let old = known.announcement().unwrap().event.tags.as_slice();
        prop_assert!(permit(bad.clone(), &known, &Purpose::List(&servers)).is_err() || is_part(old, &good, &bad));
    }
}
