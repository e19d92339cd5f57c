#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nostr::prelude::Keys;
use proptest::prelude::*;

use super::*;
use crate::{
    model::policy::{Exception, Rule},
    plan::{
        catalog::{self, Limits, Watched},
        testing::{event, server},
    },
};

/// A repository that lists the servers `listed`.
fn repository(owner: &Keys, listed: &[&str], extra: &[&str]) -> Repository {
    let clone: Vec<String> =
        listed.iter().map(|name| server(name).clone_url(&owner.public_key(), "d").to_string()).collect();
    let relays: Vec<String> = listed.iter().map(|name| server(name).to_string()).collect();
    let tag = |name: &str, values: &[String]| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(values.iter().cloned()).collect()
    };
    let mut tags = vec![tag("d", &["d".to_owned()]), tag("clone", &clone), tag("relays", &relays)];
    if !extra.is_empty() {
        tags.push(extra.iter().map(ToString::to_string).collect());
    }
    let tags: Vec<Vec<&str>> = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
    let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
    let watched = Watched { authors: [owner.public_key()].into(), ..Watched::default() };
    let limits = Limits { max_refs: 10, max_repos_per_author: 10 };
    let bot = Keys::generate().public_key();
    catalog::build(&[event(owner, 30617, 1, &tags)], &watched, &bot, limits).repositories.remove(0)
}

fn up() -> Candidate {
    Candidate { grasp: Grasp::Full, is_general: true, is_found: false, is_up: true, is_lost: false }
}

fn names(places: &BTreeMap<ServerUrl, Place>) -> Vec<&str> {
    places.keys().map(|url| url.host().strip_suffix(".example").unwrap()).collect()
}

const EVERYWHERE: Usual = Usual { reach: Reach::Everywhere, copies_wanted: None };

#[test]
fn every_server_is_placed_barred_or_left_out_with_the_rule() {
    let (owner, bot) = (Keys::generate(), Keys::generate().public_key());
    let repository = repository(&owner, &["listed"], &[]);
    let mut servers: BTreeMap<ServerUrl, Candidate> =
        ["listed", "other", "denied"].map(|name| (server(name), up())).into();
    servers.insert(server("mine"), Candidate { is_general: false, ..up() });
    servers.insert(server("relay"), Candidate { grasp: Grasp::NotGrasp("no".to_owned()), ..up() });
    let mut policy = Policy::default();
    policy.deny.insert(Rule::Server(server("denied")));
    let go = |policy: &Policy, usual| spread(&repository, &servers, |_| false, policy, usual, (&bot, "d"));

    let all = go(&policy, EVERYWHERE);
    assert_eq!((names(&all.places), all.wanted), (vec!["listed", "other"], 2));
    assert_eq!(all.barred[&server("denied")].1, Blocked::Denied(Rule::Server(server("denied")).into()));
    assert_eq!(all.left_out[&server("mine")], LeftOut::ForOthers);
    assert_eq!(all.left_out[&server("relay")], LeftOut::NotGrasp("no".to_owned()));
    let why = |name: &str| why_placed(&repository, &server(name), &all.places[&server(name)]);
    insta::assert_snapshot!(why("listed"), @"the owner's announcement lists it");
    insta::assert_snapshot!(why("other"), @"not listed; the owner's announcement has no M tag");

    let listed = go(&policy, Usual { reach: Reach::Listed, copies_wanted: None });
    assert_eq!(names(&listed.places), ["listed"]);
    insta::assert_snapshot!(listed.left_out[&server("other")], @r#"[mirror] placement = "listed", and no maintainer's announcement lists it"#);

    // The author's table, and the repository's before it.
    let own = Exception {
        servers: Some([server("mine"), server("denied"), server("listed")].into()),
        copies_wanted: Some(1),
        ..Exception::default()
    };
    policy.authors.insert(owner.public_key(), own);
    let own = go(&policy, EVERYWHERE);
    assert_eq!((names(&own.places), own.wanted), (vec!["listed"], 1));
    assert_eq!(own.barred.len(), 1);
    let table = format!("[policy.\"{}\"]", npub(&owner.public_key()));
    assert_eq!(own.left_out[&server("other")].to_string(), format!("{table} servers does not name it"));
    let not_chosen = format!("not chosen: {table} copies_wanted = 1, and other servers come first");
    assert_eq!(own.left_out[&server("mine")].to_string(), not_chosen);
    let more = Exception { copies_wanted: Some(2), ..Exception::default() };
    policy.repositories.insert(repository.coordinate.clone(), more);
    let more = go(&policy, EVERYWHERE);
    assert_eq!((names(&more.places), more.wanted), (vec!["listed", "mine"], 2));
}

/// The maintainers' own is told as blocked; of others that only somebody else's announcement names, the plan tells.
#[test]
fn where_a_few_servers_are_allowed_the_others_that_are_found_are_no_mirrors() {
    let (owner, bot) = (Keys::generate(), Keys::generate().public_key());
    let repository = repository(&owner, &["listed", "theirs"], &[]);
    let found = Candidate { is_found: true, ..up() };
    let mut servers: BTreeMap<ServerUrl, Candidate> =
        ["listed", "named"].map(|name| (server(name), up())).into();
    servers.extend(["theirs", "others", "denied"].map(|name| (server(name), found.clone())));
    let mut policy = Policy::default();
    policy.allow.insert(Rule::Server(server("listed")));
    policy.deny.insert(Rule::Server(server("denied")));
    let all = spread(&repository, &servers, |_| false, &policy, EVERYWHERE, (&bot, "d"));
    assert_eq!(names(&all.places), ["listed"]);
    let barred: Vec<&str> = all.barred.keys().map(ServerUrl::host).collect();
    assert_eq!(barred, ["denied.example", "named.example", "theirs.example"]);
    assert_eq!(all.left_out.len(), 1);
    insta::assert_snapshot!(all.left_out[&server("others")], @"[policy] allow does not name wss://others.example");
}

#[test]
fn a_lead_is_named_as_the_rule() {
    let (owner, bot) = (Keys::generate(), Keys::generate().public_key());
    let hex = owner.public_key().to_hex();
    let leading = repository(&owner, &["listed"], &["M", &hex]);
    let servers = [(server("other"), up())].into();
    let placed = |repository: &Repository, copy| {
        let places =
            spread(repository, &servers, |_| false, &Policy::default(), EVERYWHERE, (&bot, copy)).places;
        let (url, place) = places.first_key_value().unwrap();
        (place.placement, why_placed(repository, url, place))
    };
    let (placement, why) = placed(&leading, "d");
    assert_eq!(placement, Placement::Lead);
    assert!(why.contains(&npub(&owner.public_key())) && why.contains("leads it (M)"), "{why}");
    let (placement, why) = placed(&leading, "d-1");
    assert_eq!(placement, Placement::Namespace);
    assert!(why.contains("another name"), "{why}");
}

fn choice(
    repository: &Coordinate,
    servers: &[ServerUrl],
    wanted: usize,
    standing: impl Fn(usize) -> Standing,
) -> BTreeSet<ServerUrl> {
    let standings = servers.iter().enumerate().map(|(n, url)| (url, standing(n))).collect();
    choose(repository, &standings, wanted)
}

const UP: Standing = Standing { is_listed: false, is_held: false, is_up: true, is_lost: false };

fn servers(count: usize) -> Vec<ServerUrl> {
    (0..count).map(|n| server(&format!("s{n}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With one server more, at most that one takes a place, and only one gives its own up; what was chosen and is
    /// there already stays as it is.
    #[test]
    fn a_new_server_moves_as_few_as_possible(d in "[a-z]{1,12}", count in 1..12_usize, wanted in 1..8_usize) {
        let repository = Coordinate::new(Keys::generate().public_key(), d);
        let all = servers(count + 1);
        let before = choice(&repository, &all[..count], wanted, |_| UP);
        let after = choice(&repository, &all, wanted, |_| UP);
        prop_assert_eq!(before.len(), wanted.min(count));
        prop_assert!(after.difference(&before).all(|new| *new == all[count]));
        prop_assert!(before.difference(&after).count() <= usize::from(count >= wanted));
        let held = choice(&repository, &all, wanted, |n| Standing { is_held: before.contains(&all[n]), ..UP });
        prop_assert!(before.is_subset(&held));
        prop_assert_eq!(held.len(), wanted.min(count + 1));
    }

    /// One that is down keeps its place for a day; then exactly it is replaced, and coming back it moves nothing.
    #[test]
    fn only_what_is_lost_is_chosen_anew(d in "[a-z]{1,12}", count in 3..12_usize, wanted in 1..8_usize, listed in 0..3_usize, which: proptest::sample::Index) {
        let repository = Coordinate::new(Keys::generate().public_key(), d);
        let all = servers(count);
        let standing = |n: usize| Standing { is_listed: n < listed, ..UP };
        let before = choice(&repository, &all, wanted, standing);
        prop_assert!(all[..listed].iter().all(|url| before.contains(url)), "listed ones always");
        prop_assert_eq!(before.len(), wanted.min(count).max(listed));
        let (gone, is_listed) = (which.index(count), which.index(count) < listed);
        let now = |held: &BTreeSet<ServerUrl>, down: bool, lost: bool| choice(&repository, &all, wanted, |n| {
            let is_held = held.contains(&all[n]);
            Standing { is_held, is_up: n != gone || !down, is_lost: n == gone && lost, ..standing(n) }
        });
        prop_assert_eq!(&now(&before, true, false), &before);
        let after = now(&before, true, true);
        let left: Vec<_> = before.difference(&after).collect();
        prop_assert!(left.iter().all(|url| **url == all[gone] && !is_listed));
        prop_assert!(after.difference(&before).count() <= 1);
        let alive = after.iter().filter(|url| **url != all[gone]).count();
        prop_assert!(alive >= wanted.min(count - 1).min(before.len()), "as many live copies as can be");
        let back = now(&after, false, false);
        prop_assert!(back.is_subset(&after), "nothing moves when it is back");
        prop_assert_eq!(back.len(), before.len());
    }
}

/// Each server has its share, and a tenth server takes a tenth of the copies, no more.
#[test]
fn a_new_server_takes_its_share() {
    let owner = Keys::generate().public_key();
    let all = servers(10);
    let (mut moved, mut load) = (0, BTreeMap::<ServerUrl, usize>::new());
    for number in 0..1_000 {
        let repository = Coordinate::new(owner, format!("repository-{number}"));
        let before = choice(&repository, &all[..9], 3, |_| UP);
        moved += before.difference(&choice(&repository, &all, 3, |_| UP)).count();
        before.into_iter().for_each(|url| *load.entry(url).or_default() += 1);
    }
    assert!((200..400).contains(&moved), "{moved} of 3000");
    assert!(load.values().all(|load| (250..420).contains(load)), "{load:?}");
}
