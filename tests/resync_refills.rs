//! A server that lost git data and still serves the state looks as if nothing were missing; `resync` compares the
//! refs themselves, and what is missing comes back.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;

use grasp_mirror_testkit::{Chat, Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

struct World {
    a: Server,
    b: Server,
    relay: TestRelay,
    owner: Owner,
    mirror: Mirror,
    ada: Chat,
}

/// A repository that its owner published on `a`, and that the bot is to keep on `b`, too.
async fn world() -> World {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let (mirror, ada) =
        Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).commanded_at(&relay).await;
    World { a, b, relay, owner, mirror, ada }
}

/// Git's own storage is emptied under the server: its database does not know.
fn lose_branches(server: &Server, npub: &str) {
    let refs = server.git_folder().join(npub).join("hello.git/refs/heads");
    fs::remove_dir_all(&refs).unwrap();
    fs::create_dir(&refs).unwrap();
}

#[tokio::test]
async fn a_copy_of_the_bots_comes_back() {
    let World { a: _a, b, relay: _relay, owner, mirror, ada } = world().await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    let (url, whole) = (mirror.url_at(&b, "hello"), owner.work.refs());
    assert_eq!(look::refs(&url).await, whole);

    lose_branches(&b, &mirror.npub());
    assert_ne!(look::refs(&url).await, whole);
    let said = ada.resync("resync hello").await;
    assert!(said.contains("2 of 2 mirrors") && said.contains("1 repaired"), "{said}");
    assert_eq!(look::refs(&url).await, whole);
    let said = ada.resync("resync").await;
    assert!(said.contains("2 of 2 mirrors") && said.contains("nothing was missing"), "{said}");
    daemon.stop().await;
}

#[tokio::test]
async fn what_only_a_maintainer_can_bring_back_is_said() {
    let World { a, b: _b, relay: _relay, owner, mirror, ada } = world().await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;

    lose_branches(&a, &owner.npub());
    let said = ada.resync("resync hello").await;
    assert!(said.contains("1 of 2 mirrors"), "{said}");
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains("lost git data") && why.contains("newer state signed by a maintainer"), "{why}");
    daemon.stop().await;
}
