//! Other people's software on both ends: published with the real `ngit`, mirrored, and cloned back through
//! git's `nostr://` helper.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

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
