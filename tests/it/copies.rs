//! Exceptions of authors and repositories, and as many copies as are wanted: each server says how it is, and why.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use grasp_mirror::store::{Store, records::Records};
use grasp_mirror_testkit::{Mirror, Owner, Protocol, Server, TestRelay, look, noise_text, tools};
use nostr::{filter::Filter, types::Timestamp};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// `plan <repo> --json`: the rule behind each server, and whether there is a mirror.
async fn rules(mirror: &Mirror, repo: &str) -> BTreeMap<String, (bool, String)> {
    let plan = mirror.run(&["plan", repo, "--json"]).await.expect_code(0).json();
    let each = plan["mirrors"].as_array().unwrap().iter().map(|row| {
        let rule = row["rule"].as_str().unwrap().to_owned();
        (row["server"].as_str().unwrap().to_owned(), (!row["placement"].is_null(), rule))
    });
    each.collect()
}

async fn is_at(mirror: &Mirror, server: &Server, owner: &Owner) -> bool {
    look::refs(&mirror.url_at(server, &owner.d)).await == owner.work.refs()
}

#[tokio::test]
async fn exceptions_say_where_one_author_or_repository_goes() {
    let start = Server::start;
    let (a, b, c, relay) = tokio::join!(start(), start(), start(), TestRelay::start());
    let [usual, odd, large] = ["usual", "odd", "large"].map(|d| Owner::new(d).at_home_on(&relay));
    large.work.commit("large.txt", &noise_text(200_000));
    for owner in [&usual, &odd, &large] {
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    // Only the odd one's table names C.
    let author = odd.npub();
    let servers: Vec<String> = [&a, &c].map(Server::url).into();
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay);
    let mirror = mirror.watches(&usual).watches(&odd).watches(&large).set("limits.max_repo_bytes", 50_000);
    let mirror = mirror.set(&format!("policy.{author}.servers"), servers);
    mirror.once().await.expect_code(2);
    let repo = mirror.status_of(&large.coordinate()).await;
    assert_eq!(repo["problems"][0]["status"], "blocked", "{repo:#}");

    let mirror = mirror.set(&format!("policy.{}.max_repo_bytes", large.coordinate()), 1_000_000);
    mirror.once().await.expect_code(0);
    assert!(is_at(&mirror, &b, &usual).await && is_at(&mirror, &b, &large).await);
    assert!(is_at(&mirror, &c, &odd).await, "C is the odd one's");
    assert!(b.served(Filter::new().identifier("odd")).await.is_empty());
    assert!(c.served(Filter::new().identifier("usual")).await.is_empty());
    let odds = rules(&mirror, "odd").await;
    assert_eq!(odds[&a.url()], (true, "the owner's announcement lists it".to_owned()));
    assert_eq!(odds[&b.url()], (false, format!("[policy.\"{author}\"] servers does not name it")));
    assert_eq!(odds[&c.url()], (true, "not listed; the owner's announcement has no M tag".to_owned()));
    let usuals = rules(&mirror, &usual.coordinate()).await;
    assert_eq!(usuals[&c.url()], (false, "only exceptions for others in [policy] name it".to_owned()));
    let text = mirror.run(&["plan", "odd"]).await.expect_code(0).stdout;
    assert!(text.contains("rule") && text.contains("servers does not name it"), "{text}");
    let nobody = mirror.run(&["plan", "nothing"]).await.expect_code(1);
    assert!(nobody.stderr.contains("nothing"), "{}", nobody.stderr);

    // Contradictory rules are told at the start, by name.
    let mirror = mirror.set("policy.deny", vec![c.url()]).set("mirror.copies_wanted", 7);
    let run = mirror.once().await;
    let denied = c.url();
    let table =
        format!("[policy.\"{author}\"] servers names {denied} to no effect: [policy] deny names {denied}");
    for said in [table.as_str(), "[mirror] copies_wanted = 7, but there may be copies on 2 servers only"] {
        assert!(run.stderr.contains(said), "{said}\n{}", run.stderr);
    }
    let found = mirror.run(&["verify", "--json"]).await.expect_code(2).json();
    assert!(found["contradictions"].as_array().unwrap().contains(&table.into()), "{found:#}");
    let odds = rules(&mirror, "odd").await;
    assert_eq!(odds[&c.url()], (false, format!("blocked: [policy] deny names {}", c.url())));
}

#[tokio::test]
async fn as_many_copies_as_are_wanted_and_another_one_when_a_server_is_lost_for_a_day() {
    let start = Server::start;
    let (a, b, c, relay) = tokio::join!(start(), start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    let mirror = mirror.set("mirror.copies_wanted", 2);
    mirror.once().await.expect_code(0);
    let status = mirror.status_json().await;
    assert_eq!((&status["repos"][0]["copies"], &status["repos"][0]["wanted"]), (&2.into(), &2.into()));
    let (mut chosen, other) = if is_at(&mirror, &b, &owner).await { (b, c) } else { (c, b) };
    assert!(is_at(&mirror, &chosen, &owner).await && !is_at(&mirror, &other, &owner).await);
    let rule = rules(&mirror, "hello").await.remove(&other.url()).unwrap();
    let first = "not chosen: [mirror] copies_wanted = 2, and other servers come first";
    assert_eq!(rule, (false, first.to_owned()));

    // Down for a while it keeps its place.
    chosen.kill();
    mirror.once().await.expect_code(2);
    let repo = mirror.status_of(&owner.coordinate()).await;
    assert_eq!((&repo["copies"], &repo["wanted"]), (&1.into(), &2.into()), "{repo:#}");
    assert_eq!(repo["problems"][0]["status"], "unreachable", "{repo:#}");
    assert!(!is_at(&mirror, &other, &owner).await);

    // For longer than a day: another one is chosen.
    let two_days_ago = Timestamp::now().as_secs() - 2 * 86_400;
    {
        let store = Store::open(&mirror.data_dir()).await.unwrap();
        let down = BTreeMap::from([(chosen.url(), two_days_ago)]);
        Records::new(store, mirror.keys.clone()).write("down", &down).await.unwrap();
    }
    mirror.once().await.expect_code(0);
    assert!(is_at(&mirror, &other, &owner).await);
    let repo = mirror.status_of(&owner.coordinate()).await;
    assert_eq!((&repo["copies"], &repo["wanted"]), (&2.into(), &2.into()), "{repo:#}");
    assert_eq!(repo["problems"], serde_json::json!([]), "{repo:#}");
    let rule = rules(&mirror, "hello").await.remove(&chosen.url()).unwrap();
    assert!(rule.1.ends_with("it has been down for longer than a day"), "{rule:?}");

    // Back again it moves nothing, also on a new machine; and what it has is left as it is.
    chosen.resume().await;
    let before = look::refs(&mirror.url_at(&chosen, "hello")).await;
    owner.work.commit("later.txt", "more");
    let state = owner.update(&a).await;
    for mirror in [&mirror, &mirror_elsewhere(&mirror, [&a, &chosen, &other], &relay, &owner)] {
        mirror.once().await.expect_code(0);
        assert!(is_at(mirror, &other, &owner).await);
        assert_eq!(look::refs(&mirror.url_at(&chosen, "hello")).await, before);
        assert!(!look::serves(&chosen, &state).await);
    }

    // All of them again: nothing is forgotten.
    mirror.set("mirror.copies_wanted", 3).once().await.expect_code(0);
}

#[tokio::test]
async fn why_says_the_rule_of_a_server_that_was_not_chosen_as_plan_does() {
    let start = Server::start;
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let (mirror, ada) = mirror.set("mirror.copies_wanted", 1).commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let (is_there, rule) = rules(&mirror, "hello").await.remove(&b.url()).unwrap();
    assert!(!is_there && rule.contains("copies_wanted = 1"), "{rule}");
    let told = format!("- {}: no mirror: {rule}", b.authority());
    let why = ada.answer_to(Protocol::Nip17, &format!("why hello {}", b.authority())).await;
    assert!(why.ends_with(&told), "{why}");
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains(&told) && why.contains(&format!("✓ {}", a.authority())), "{why}");
    daemon.stop().await;
}

#[tokio::test]
async fn exceptions_say_how_far_on_how_many_servers_and_for_how_long() {
    let start = Server::start;
    let (a, b, c, relay) = tokio::join!(start(), start(), start(), TestRelay::start());
    let [usual, near, few] = ["usual", "near", "few"].map(|d| Owner::new(d).at_home_on(&relay));
    for owner in [&usual, &near, &few] {
        owner.work.branch("gone");
        owner.work.commit("gone.txt", "soon");
        owner.work.switch("main");
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay);
    let mirror = mirror.watches(&usual).watches(&near).watches(&few);
    let mirror = mirror.set(&format!("policy.{}.placement", near.npub()), "listed");
    // The repository's own table wins.
    let mirror = mirror.set(&format!("policy.{}.copies_wanted", few.npub()), 3);
    let mirror = mirror.set(&format!("policy.{}.copies_wanted", few.coordinate()), 2);
    let mirror = mirror.set(&format!("policy.{}.archive_days", few.coordinate()), 1);
    mirror.once().await.expect_code(0);
    assert!(is_at(&mirror, &b, &usual).await && is_at(&mirror, &c, &usual).await);
    assert!(!is_at(&mirror, &b, &near).await && !is_at(&mirror, &c, &near).await);
    assert!(is_at(&mirror, &b, &few).await != is_at(&mirror, &c, &few).await);
    let table = format!("[policy.\"{}\"]", near.npub());
    let rule = format!("{table} placement = \"listed\", and no maintainer's announcement lists it");
    assert_eq!(rules(&mirror, "near").await[&b.url()], (false, rule));
    let fews = rules(&mirror, "few").await;
    let rule = format!("not chosen: [policy.\"{}\"] copies_wanted = 2", few.coordinate());
    assert!(fews.values().any(|(is_there, why)| !is_there && why.starts_with(&rule)), "{fews:#?}");

    for owner in [&usual, &few] {
        owner.work.delete_branch("gone");
        owner.update(&a).await;
    }
    mirror.once().await.expect_code(0);
    let kept = async |owner: &Owner| {
        let folder = mirror.data_dir().join("git").join(owner.npub()).join(format!("{}.git", owner.d));
        let mut git = tools::git(&folder);
        git.args(["for-each-ref", "refs/archive"]);
        tools::must(git).await.lines().count()
    };
    assert!(kept(&usual).await > 0 && kept(&few).await > 0);
    // Two days later.
    for owner in [&usual, &few] {
        let folder = mirror.data_dir().join("git").join(owner.npub()).join(format!("{}.git", owner.d));
        let mut git = tools::git(&folder);
        git.args(["for-each-ref", "--format=%(refname) %(objectname)", "refs/archive"]);
        for line in tools::must(git).await.lines() {
            let (name, tip) = line.split_once(' ').unwrap();
            let mut parts: Vec<String> = name.splitn(4, '/').map(str::to_owned).collect();
            parts[2] = (parts[2].parse::<u64>().unwrap() - 2 * 86_400).to_string();
            for args in [["update-ref", "-d", name], ["update-ref", &parts.join("/"), tip]] {
                let mut git = tools::git(&folder);
                git.args(args);
                tools::must(git).await;
            }
        }
    }
    {
        let store = Store::open(&mirror.data_dir()).await.unwrap();
        Records::new(store, mirror.keys.clone()).write("archives", &0_u64).await.unwrap();
    }
    mirror.once().await.expect_code(0);
    assert!(kept(&usual).await > 0 && kept(&few).await == 0, "its own table says a day");
}

/// The same bot on an empty disk.
fn mirror_elsewhere(mirror: &Mirror, servers: [&Server; 3], relay: &TestRelay, owner: &Owner) -> Mirror {
    let mut other = Mirror::new(BINARY).uses(relay).watches(owner).set("mirror.copies_wanted", 2);
    other.keys = mirror.keys.clone();
    servers.into_iter().fold(other, Mirror::knows)
}
