//! Other people's software on both ends: published with the real `ngit`, mirrored, and cloned back through
//! git's `nostr://` helper.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::path::Path;

use grasp_mirror_testkit::{Mirror, Owner, Person, Server, TestRelay, look, tools};
use nostr::{event::Tag, filter::Filter};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// What `git clone nostr://<npub>/<relay>/hello` brings: the commit on `main`.
async fn cloned(npub: &str, at: &Server, relay: &TestRelay) -> String {
    let home = tempfile::tempdir().unwrap();
    let hint = at.url().replace(':', "%3A").replace('/', "%2F");
    let mut clone = tools::git(home.path());
    tools::with_ngit(&mut clone, relay.url());
    clone.args(["clone", "--quiet", &format!("nostr://{npub}/{hint}/hello"), "clone"]);
    tools::must(clone).await;
    head(&home.path().join("clone"))
}

fn head(repository: &Path) -> String {
    let output = tools::git(repository).args(["rev-parse", "refs/heads/main"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn published_with_ngit_and_cloned_back_over_nostr() {
    let (mut a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    owner.work.commit("src/lib.rs", "pub fn hello() {}\n");
    let mut init = tools::ngit(owner.work.path(), relay.url());
    init.args(["init", "-d", "--name", "hello", "--identifier", "hello", "--repo-relay-only"]);
    init.args(["--grasp-server", &a.url(), "--nsec", &owner.nsec()]);
    tools::must(init).await;
    assert_eq!(look::refs(&owner.url_at(&a)).await, owner.work.refs(), "ngit has published");
    assert_eq!(cloned(&owner.npub(), &a, &relay).await, owner.work.rev("main"));

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    // The owner's address, found through the mirror's relay.
    assert_eq!(cloned(&owner.npub(), &b, &relay).await, owner.work.rev("main"));

    // The owner's only server is gone; the repository is not.
    a.stop().await;
    assert_eq!(cloned(&mirror.npub(), &b, &relay).await, owner.work.rev("main"));
}

/// Role tags as the real client writes them: a lead, a co-maintainer who is invited and accepts, servers added and removed.
#[tokio::test]
async fn what_ngit_says_of_leads_and_servers_is_followed() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let (owner, helper) = (Owner::new("hello"), Person::new());
    let ngit = async |args: &[&str], key: &str| {
        let mut command = tools::ngit(owner.work.path(), relay.url());
        command.args(args).args(["-d", "--repo-relay-only", "--nsec", key]);
        tools::must(command).await
    };
    let init = ["init", "--name", "hello", "--identifier", "hello", "--grasp-server", &a.url()];
    ngit(&init, &owner.nsec()).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "namespace", "a lone maintainer is no lead");

    let (lead, invited) = (owner.npub(), helper.npub());
    ngit(&["repo", "edit", "--add-maintainer", &invited, "--lead-maintainer", &lead], &owner.nsec()).await;
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "lead");
    let of_bot = Filter::new().author(mirror.bot_pubkey()).kind(30617.into());
    let [copy] = &b.served(of_bot.clone()).await[..] else { panic!("one announcement") };
    let follows = |tag: &Tag| tag.as_slice() == ["M".to_owned(), owner.public_key().to_hex()];
    assert!(copy.tags.iter().any(follows), "{copy:?}");

    // The co-maintainer's state counts once the invitation is accepted.
    ngit(&["repo", "accept", "--grasp-server", &a.url()], &helper.nsec()).await;
    helper.signs_in(5);
    owner.work.commit("README.md", "# by a helper\n");
    let state = helper.sign_state("hello", &owner.work);
    a.send(&state).await.expect_accepted();
    owner.work.push_all(&owner.url_at(&a)).await.unwrap_or_else(|said| panic!("{said}"));
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    ngit(&["repo", "edit", "--add-grasp-server", &b.url()], &owner.nsec()).await;
    mirror.once().await;
    assert_eq!(placed(&mirror, &b).await, "listed");
    ngit(&["repo", "edit", "--remove-grasp-server", &b.url()], &owner.nsec()).await;
    mirror.once().await;
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "lead");
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}

/// An owner invites the bot with the real client; the bot accepts, and to the real client it is a maintainer then, with the
/// servers that it adds.
#[tokio::test]
async fn a_bot_that_is_invited_with_ngit_is_a_maintainer_to_ngit() {
    let (mut a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    let ngit = async |args: &[&str]| {
        let mut command = tools::ngit(owner.work.path(), relay.url());
        command.args(args).args(["-d", "--repo-relay-only", "--nsec", &owner.nsec()]);
        tools::must(command).await
    };
    ngit(&["init", "--name", "hello", "--identifier", "hello", "--grasp-server", &a.url()]).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let invite = ["repo", "edit", "--add-maintainer", &mirror.npub(), "--lead-maintainer", &owner.npub()];
    ngit(&invite).await;
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "signed");
    let said: Value = serde_json::from_str(&ngit(&["repo", "--json"]).await).unwrap();
    let has = |list: &str, one: &str| said[list].as_array().unwrap().iter().any(|entry| entry == one);
    assert!(has("confirmed_maintainers", &mirror.npub()) && has("grasp_servers", &b.http()), "{said:#}");
    assert_eq!((&said["health"]["status"], &said["lead_maintainer"]), (&"ok".into(), &owner.npub().into()));
    // Its state is the owner's, and the owner's only server is gone.
    owner.work.commit("README.md", "# hello again\n");
    owner.signs_in(5);
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    a.stop().await;
    assert_eq!(cloned(&owner.npub(), &b, &relay).await, owner.work.rev("main"));
}

async fn placed(mirror: &Mirror, server: &Server) -> String {
    let plan = mirror.run(&["plan", "hello", "--json"]).await.expect_code(0).json();
    let row = plan["mirrors"].as_array().unwrap().iter().find(|row| row["server"] == server.url());
    row.unwrap()["placement"].as_str().unwrap_or_default().to_owned()
}
