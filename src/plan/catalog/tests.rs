//! Catalog, places and the bot's own namespace, from signed events.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, EventBuilder, FinalizeEvent, Keys, Tag, Timestamp};
use proptest::prelude::*;

use super::super::{
    catalog::{Catalog, Limits, Obstacle, Repository, Watched, build},
    converge::{Answer, Outcome, Seen},
    forget, namespace,
    placement::{Grasp, announced_servers, places},
    record::{Ending, RepositoryRecord, after},
    testing::{event, server},
};
use crate::model::{
    announcement::Announcement, coordinate::Coordinate, draft::Draft, placement::Placement, policy::Reach,
};

const LIMITS: Limits = Limits { max_refs: 3, max_repos_per_author: 5 };

fn announce(keys: &Keys, d: &str, at: u64, more: &[&[&str]]) -> Event {
    event(keys, 30617, at, &[&[&["d", d][..]], more].concat())
}

fn state(keys: &Keys, d: &str, at: u64, commit: char) -> Event {
    event(
        keys,
        30618,
        at,
        &[&["d", d], &["refs/heads/main", &commit.to_string().repeat(40)], &["HEAD", "ref: refs/heads/main"]],
    )
}

fn catalog(events: &[Event], watched: &[&Keys]) -> Catalog {
    let authors = watched.iter().map(|keys| keys.public_key()).collect();
    let watched = Watched { authors, ..Watched::default() };
    build(events, &watched, &Keys::generate().public_key(), LIMITS)
}

fn only(catalog: &Catalog) -> &Repository {
    assert_eq!(catalog.repositories.len(), 1);
    &catalog.repositories[0]
}

#[test]
fn the_newest_state_of_a_confirmed_maintainer_counts_and_nobody_elses() {
    let [owner, invited, stranger] = [(); 3].map(|()| Keys::generate());
    let hex = invited.public_key().to_hex();
    let old = state(&owner, "d", 10, 'a');
    let new = state(&owner, "d", 20, 'b');
    let events = [
        announce(&owner, "d", 1, &[&["maintainers", &hex]]),
        old,
        new.clone(),
        announce(&invited, "d", 2, &[]),
        state(&invited, "d", 90, 'c'),
        announce(&stranger, "d", 3, &[&["maintainers", &owner.public_key().to_hex()]]),
        state(&stranger, "d", 99, 'd'),
    ];
    let catalog = catalog(&events, &[&owner]);
    assert_eq!(only(&catalog).state.as_ref().unwrap().event.id, new.id);
}

#[test]
fn of_equally_old_states_the_lower_id_wins() {
    let owner = Keys::generate();
    let states = ['a', 'b', 'c'].map(|commit| state(&owner, "d", 10, commit));
    let lowest = states.iter().map(|event| event.id).min().unwrap();
    for rotation in 0..3 {
        let mut events = states.to_vec();
        events.rotate_left(rotation);
        events.push(announce(&owner, "d", 1, &[]));
        assert_eq!(only(&catalog(&events, &[&owner])).state.as_ref().unwrap().event.id, lowest);
    }
}

#[test]
fn deleted_and_private_repositories_are_left_alone() {
    let owner = Keys::generate();
    let a = format!("30617:{}:gone", owner.public_key().to_hex());
    let events = [
        announce(&owner, "gone", 1, &[]),
        event(&owner, 5, 2, &[&["a", &a]]),
        // A stranger cannot delete it.
        announce(&owner, "kept", 1, &[]),
        event(&Keys::generate(), 5, 2, &[&["a", &a.replace("gone", "kept")]]),
        announce(&owner, "secret", 1, &[&["private", "true"]]),
    ];
    let found = catalog(&events, &[&owner]);
    assert_eq!(only(&found).coordinate.identifier, "kept");
    assert_eq!(found.deleted.iter().map(|c| c.identifier.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert_eq!(found.private, 1);
    // Announced again after the deletion: there it is again.
    let again = [events.to_vec(), vec![announce(&owner, "gone", 3, &[])]].concat();
    let found = catalog(&again, &[&owner]);
    assert_eq!((found.repositories.len(), found.deleted.len()), (2, 0));
}

#[test]
fn what_is_watched_and_nobody_announces_is_named() {
    let [owner, silent, gone] = [(); 3].map(|()| Keys::generate());
    let a = format!("30617:{}:gone", gone.public_key().to_hex());
    let events = [
        announce(&owner, "here", 1, &[]),
        announce(&owner, "secret", 1, &[&["private", "true"]]),
        announce(&gone, "gone", 1, &[]),
        event(&gone, 5, 2, &[&["a", &a]]),
        // Another's of that name.
        announce(&Keys::generate(), "helo", 1, &[]),
    ];
    let single = |keys: &Keys, d: &str| Coordinate::new(keys.public_key(), d);
    let watched = Watched {
        authors: [&owner, &silent, &gone].map(Keys::public_key).into(),
        repositories: [
            single(&owner, "here"),
            single(&owner, "secret"),
            single(&owner, "helo"),
            single(&gone, "gone"),
        ]
        .into(),
        ..Watched::default()
    };
    let found = build(&events, &watched, &Keys::generate().public_key(), LIMITS);
    assert_eq!(found.unannounced, BTreeSet::from([single(&owner, "helo")]));
    assert_eq!(found.silent, BTreeSet::from([silent.public_key()]));
}

#[test]
fn maintainers_of_one_repository_share_one_mirror() {
    let (alice, bob) = (Keys::generate(), Keys::generate());
    let events = [
        announce(&alice, "d", 1, &[&["maintainers", &bob.public_key().to_hex()]]),
        announce(&bob, "d", 2, &[&["maintainers", &alice.public_key().to_hex()]]),
        state(&bob, "d", 3, 'b'),
    ];
    let found = catalog(&events, &[&alice, &bob]);
    assert_eq!(only(&found).announcements.len(), 2);
    assert_eq!(only(&found).state.as_ref().unwrap().event.pubkey, bob.public_key());
    // And count as one where one of them keeps it private.
    let secret =
        announce(&bob, "d", 4, &[&["maintainers", &alice.public_key().to_hex()], &["private", "true"]]);
    let found = catalog(&[&events[..], &[secret]].concat(), &[&alice, &bob]);
    assert_eq!((found.repositories.len(), found.private), (0, 1));
}

#[test]
fn what_cannot_be_mirrored_says_why() {
    let owner = Keys::generate();
    let many: Vec<[String; 2]> = (0..4).map(|n| [format!("refs/heads/b{n}"), "a".repeat(40)]).collect();
    let mut tags: Vec<Vec<&str>> = vec![vec!["d", "many"]];
    tags.extend(many.iter().map(|tag| tag.iter().map(String::as_str).collect()));
    let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
    let events = [
        announce(&owner, "../up", 1, &[]),
        announce(&owner, "many", 1, &[]),
        event(&owner, 30618, 2, &tags),
        announce(&owner, "broken", 1, &[]),
        event(&owner, 30618, 2, &[&["d", "broken"], &["refs/heads/a..b", &"a".repeat(40)]]),
    ];
    let found = catalog(&events, &[&owner]);
    let obstacles: BTreeMap<&str, &Obstacle> = found
        .repositories
        .iter()
        .map(|repository| (repository.coordinate.identifier.as_str(), repository.obstacle.as_ref().unwrap()))
        .collect();
    assert!(matches!(obstacles["../up"], Obstacle::Limit(reason) if reason.contains("path")));
    assert!(matches!(obstacles["many"], Obstacle::Limit(reason) if reason.contains("max_refs")));
    assert!(matches!(obstacles["broken"], Obstacle::Signed(reason) if reason.contains("refs/heads/a..b")));
}

#[test]
fn one_author_cannot_fill_the_disk() {
    let owner = Keys::generate();
    let events: Vec<Event> = (0..8).map(|n| announce(&owner, &format!("r{n}"), n, &[])).collect();
    let found = catalog(&events, &[&owner]);
    let kept: Vec<&str> = found.repositories.iter().map(|r| r.coordinate.identifier.as_str()).collect();
    assert_eq!(kept, ["r3", "r4", "r5", "r6", "r7"]);
    assert_eq!(found.over_limit, 3);
}

/// A repository of `owner` that lists the server `listed`.
fn listed_repository(owner: &Keys, d: &str, at: u64) -> Repository {
    let url = server("listed").clone_url(&owner.public_key(), d).to_string();
    let events = [
        announce(
            owner,
            d,
            at,
            &[
                &["clone", &url],
                &["relays", "wss://Listed.example/"],
                &["r", "abc", "euc"],
                &["t", "rust"],
                &["name", "n"],
            ],
        ),
        state(owner, d, at + 1, 'a'),
    ];
    only(&catalog(&events, &[owner])).clone()
}

#[test]
fn listed_where_listed_and_in_the_namespace_elsewhere() {
    let (owner, bot) = (Keys::generate(), Keys::generate().public_key());
    let repository = listed_repository(&owner, "d", 1);
    let servers = BTreeMap::from([
        (server("listed"), Grasp::Full),
        (server("other"), Grasp::Full),
        (server("dead"), Grasp::Unknown),
        (server("archive"), Grasp::ArchiveOnly),
        (server("relay"), Grasp::NotGrasp("no".to_owned())),
    ]);
    let all = places(&repository, &servers, Reach::Everywhere, &bot, "d");
    let how = |name: &str| all.get(&server(name)).map(|place| (place.placement, place.takes_pushes));
    assert_eq!(how("listed"), Some((Placement::Listed, true)));
    assert_eq!(how("other"), Some((Placement::Namespace, true)));
    assert_eq!(how("archive"), Some((Placement::Listed, false)));
    assert_eq!(how("relay"), None);
    assert_eq!(all[&server("other")].path, Coordinate::new(bot, "d"));
    // Nobody is sent to a server that has never answered.
    assert_eq!(announced_servers(&all, &servers), BTreeSet::from([server("other")]));
    let listed = places(&repository, &servers, Reach::Listed, &bot, "d");
    assert_eq!(listed.keys().collect::<Vec<_>>(), [&server("listed")]);
}

#[test]
fn signed_is_where_the_bot_had_it_listed_and_where_it_is_a_maintainer_itself() {
    let (owner, bot) = (Keys::generate(), Keys::generate());
    let mut repository = listed_repository(&owner, "d", 1);
    let servers = BTreeMap::from([(server("listed"), Grasp::Full), (server("other"), Grasp::Full)]);
    repository.signed_on.extend([server("listed"), server("other")]);
    let how = |repository: &Repository, copy: &str| {
        let all = places(repository, &servers, Reach::Everywhere, &bot.public_key(), copy);
        [server("listed"), server("other")].map(|url| (all[&url].placement, all[&url].own))
    };
    // What was signed and is listed no more is not signed.
    assert_eq!(how(&repository, "d"), [(Placement::Signed, false), (Placement::Namespace, true)]);

    repository.signed_on.clear();
    repository.authority.as_mut().unwrap().invited.insert(bot.public_key());
    assert_eq!(how(&repository, "d"), [(Placement::Listed, false), (Placement::Signed, true)]);
    // Under another name the maintainers' state says nothing of it.
    assert_eq!(how(&repository, "d-1")[1], (Placement::Namespace, true));
    let on = BTreeSet::from([server("other")]);
    let draft = namespace::announcement(&repository, &bot.public_key(), "d", &on, None).unwrap();
    let names: Vec<_> = draft.tags.iter().map(Tag::kind).collect();
    assert!(names.contains(&"maintainers") && !names.contains(&"u"), "{names:?}");
    let own = Announcement::read(draft.sign(&bot).unwrap()).unwrap();
    let other = listed_repository(&Keys::generate(), "d", 0);
    let assigned = namespace::identifiers(&[other, repository.clone()], &[own]);
    assert_eq!(assigned[&repository.coordinate], "d");
}

#[test]
fn the_copys_events_are_the_same_whenever_they_are_made() {
    let (owner, bot) = (Keys::generate(), Keys::generate());
    let repository = listed_repository(&owner, "d", 100);
    let servers = BTreeSet::from([server("a"), server("b")]);
    let draft = namespace::announcement(&repository, &bot.public_key(), "d", &servers, None).unwrap();
    let npub = crate::model::coordinate::npub(&bot.public_key());
    let hex = owner.public_key().to_hex();
    let clone = [format!("https://a.example/{npub}/d.git"), format!("https://b.example/{npub}/d.git")];
    assert!(draft.tags.contains(&Tag::custom("clone", clone)));
    for tag in [
        vec!["u", &repository.coordinate.to_string(), "wss://Listed.example/", &hex],
        vec!["maintainers", &hex],
        vec!["r", "abc", "euc"],
        vec!["t", "rust"],
        vec!["relays", "wss://a.example", "wss://b.example"],
    ] {
        let tag = Tag::parse(tag).unwrap();
        assert!(draft.tags.contains(&tag), "{tag:?}");
    }
    assert_eq!(draft.created_at, Timestamp::from_secs(100));

    let copy = namespace::state(repository.state.as_ref().unwrap(), "d-1");
    assert_eq!(copy.tags[0], Tag::identifier("d-1"));
    assert_eq!(copy.tags[1..].iter().map(Tag::kind).collect::<Vec<_>>(), ["refs/heads/main", "HEAD"]);

    // Said already: nothing to sign. Said otherwise: signed anew, dated after what it replaces.
    let said = Draft { created_at: Timestamp::from_secs(500), ..draft.clone() }.sign(&bot).unwrap();
    assert_eq!(draft.clone().unless_said(Some(&said)), None);
    let wider = BTreeSet::from([server("a"), server("b"), server("c")]);
    let changed = namespace::announcement(&repository, &bot.public_key(), "d", &wider, None).unwrap();
    assert_eq!(changed.clone().unless_said(Some(&said)).unwrap().created_at, Timestamp::from_secs(501));
    // An owner may date an announcement as late as can be written; there is nothing after that.
    let last = Timestamp::from_secs(u64::MAX);
    let said = EventBuilder::new(draft.kind, "").custom_created_at(last).finalize(&bot).unwrap();
    assert_eq!(changed.unless_said(Some(&said)).unwrap().created_at, last);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Owners with the same `d` get different names, and keep them whoever else comes and in whatever order.
    #[test]
    fn names_in_the_namespace_are_distinct_and_stable(first in 1..5_usize, later in 0..4_usize, times in proptest::collection::vec(1..50_u64, 9)) {
        let bot = Keys::generate();
        let owners: Vec<Keys> = (0..first + later).map(|_| Keys::generate()).collect();
        let all: Vec<Repository> =
            owners.iter().zip(&times).map(|(owner, at)| listed_repository(owner, "d", *at)).collect();
        let names = namespace::identifiers(&all[..first], &[]);
        prop_assert_eq!(names.len(), first);
        prop_assert_eq!(names.values().collect::<BTreeSet<_>>().len(), first);
        prop_assert_eq!(names.values().filter(|name| *name == "d").count(), 1);
        for (coordinate, name) in &names {
            let suffixed = format!("d-{}", coordinate.owner.to_hex().get(..8).unwrap());
            prop_assert!(name == "d" || *name == suffixed);
        }
        // What was published is read back, also on a blank machine, and nobody is renamed.
        let own: Vec<Announcement> = all[..first].iter().map(|repository| {
            let name = &names[&repository.coordinate];
            let draft = namespace::announcement(repository, &bot.public_key(), name, &BTreeSet::from([server("a")]), None).unwrap();
            Announcement::read(draft.sign(&bot).unwrap()).unwrap()
        }).collect();
        let after = namespace::identifiers(&all, &own);
        prop_assert_eq!(after.values().collect::<BTreeSet<_>>().len(), all.len());
        for (coordinate, name) in &names {
            prop_assert_eq!(&after[coordinate], name);
        }
    }
}

#[test]
fn what_a_maintainer_wants_left_alone_is_no_repository_here_under_any_name() {
    let [owner, helper, guest, bot] = [(); 4].map(|()| Keys::generate());
    let (owners, helpers, bots) =
        (owner.public_key().to_hex(), helper.public_key().to_hex(), bot.public_key().to_hex());
    let events = [
        event(&owner, 30617, 5, &[&["d", "x"], &["maintainers", &helpers]]),
        event(&helper, 30617, 5, &[&["d", "x"], &["maintainers", &owners]]),
        event(&owner, 30617, 5, &[&["d", "y"], &["maintainers", &guest.public_key().to_hex()]]),
        event(&owner, 30617, 5, &[&["d", "z"]]),
        // Invited only: the list of somebody who maintains nothing here counts for nothing.
        event(&guest, 10000, 5, &[&["p", &bots]]),
    ];
    let mute = event(&helper, 10000, 5, &[&["p", &bots]]);
    let mut watched = Watched { authors: BTreeSet::from([owner.public_key()]), ..Watched::default() };
    let names = |catalog: &Catalog| -> Vec<String> {
        catalog.repositories.iter().map(|one| one.coordinate.identifier.clone()).collect()
    };
    let all = build(&events, &watched, &bot.public_key(), LIMITS);
    assert_eq!((names(&all).join(" ").as_str(), all.opted_out.len()), ("x y z", 0));

    let muted = build(&[&events[..], &[mute]].concat(), &watched, &bot.public_key(), LIMITS);
    assert_eq!(names(&muted), ["y", "z"]);
    let x = &muted.opted_out[&Coordinate::new(owner.public_key(), "x")];
    assert_eq!((x.muted, x.said), (Some(helper.public_key()), None));
    assert_eq!(x.maintainers, BTreeSet::from([owner.public_key(), helper.public_key()]));

    // Said of the helper's coordinate, and watched by the owner's.
    let by = helper.public_key();
    let said = forget::Wish { by, maintainer: true, at: 1 };
    watched.forgotten.insert(Coordinate::new(by, "x"), said);
    let forgotten = build(&events, &watched, &bot.public_key(), LIMITS);
    assert_eq!(names(&forgotten), ["y", "z"]);
    assert_eq!(forgotten.opted_out[&Coordinate::new(owner.public_key(), "x")].said, Some(said));
    // It takes no place among those that are mirrored.
    let few = Limits { max_repos_per_author: 2, ..LIMITS };
    assert_eq!(build(&events, &watched, &bot.public_key(), few).over_limit, 0);
}

#[test]
fn a_lead_whose_announcement_a_server_refuses_for_not_listing_it_is_not_followed() {
    let (owner, bot) = (Keys::generate(), Keys::generate());
    let mut repository = listed_repository(&owner, "d", 1);
    let announcement = &mut repository.announcements[0];
    announcement.roles.leads.insert(owner.public_key());
    let (lead, id) = (Some(owner.public_key()), announcement.id());
    assert_eq!(repository.lead(), lead);
    let refused = |placement, words: &str| {
        let answers = [(id, Answer::Refused(words.to_owned()))].into();
        let (seen, ending) =
            (Seen { answers, ..Seen::default() }, Ending::Settled(Outcome::Refused(words.to_owned())));
        let mirror = after(None, placement, ending, &seen, &[id], None, Timestamp::from_secs(1));
        RepositoryRecord { mirrors: [(server("other"), mirror)].into(), ..RepositoryRecord::default() }
    };
    let unlisted = "invalid: Announcement must list service in both 'clone' and 'relays' tags";
    for (record, follows) in [
        (RepositoryRecord::default(), true),
        (refused(Placement::Lead, "blocked: you"), true),
        (refused(Placement::Listed, unlisted), true),
        (refused(Placement::Lead, unlisted), false),
        (refused(Placement::Namespace, unlisted), false),
    ] {
        repository.heed(&record);
        assert_eq!(repository.lead(), lead.filter(|_| follows), "{record:?}");
        let servers = BTreeMap::from([(server("other"), Grasp::Full)]);
        let all = places(&repository, &servers, Reach::Everywhere, &bot.public_key(), "d");
        let expected = if follows { Placement::Lead } else { Placement::Namespace };
        assert_eq!(all[&server("other")].placement, expected);
    }
    // Whoever has no record sees by the bot's announcement which of them it is.
    let key = owner.public_key().to_hex();
    for (tag, follows) in [("M", true), ("maintainers", false)] {
        let copy = Announcement::read(event(&bot, 30617, 1, &[&["d", "d"], &[tag, &key]])).unwrap();
        repository.heed_copy(&copy);
        assert_eq!(repository.lead(), lead.filter(|_| follows), "{tag}");
    }
}
