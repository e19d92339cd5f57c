//! A server that lost git data and still serves the state looks as if nothing were missing; `resync` compares the
//! refs themselves, and what is missing comes back.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;

use grasp_mirror_testkit::{Protocol, Scene, Server, look};
use nostr::filter::Filter;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Git's own storage is emptied under the server: its database does not know.
fn lose_branches(server: &Server, npub: &str) {
    let refs = server.git_folder().join(npub).join("hello.git/refs/heads");
    fs::remove_dir_all(&refs).unwrap();
    fs::create_dir(&refs).unwrap();
}

#[tokio::test]
async fn a_copy_of_the_bots_comes_back() {
    let scene = Scene::set().await;
    let (mirror, ada) = scene.mirror(BINARY).watches(&scene.owner).commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    let (url, whole) = (mirror.url_at(&scene.b, "hello"), scene.owner.work.refs());
    assert_eq!(look::refs(&url).await, whole);

    lose_branches(&scene.b, &mirror.npub());
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
    let scene = Scene::set().await;
    let (mirror, ada) = scene.mirror(BINARY).watches(&scene.owner).commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;

    lose_branches(&scene.a, &scene.owner.npub());
    let said = ada.resync("resync hello").await;
    assert!(said.contains("1 of 2 mirrors"), "{said}");
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains("lost git data") && why.contains("newer state signed by a maintainer"), "{why}");
    daemon.stop().await;
}

/// The server demands a newer state: it is said once more with the key, and says nothing else.
#[tokio::test]
async fn a_maintainers_key_brings_it_back() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner).env("MIRROR_SIGNER", &scene.owner.nsec());
    let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    let (url, whole) = (scene.owner.url_at(&scene.a), scene.owner.work.refs());
    let state = async || {
        let filter = Filter::new().author(scene.owner.public_key()).kind(30618.into());
        scene.a.served(filter).await.pop().unwrap()
    };
    let before = state().await;

    lose_branches(&scene.a, &scene.owner.npub());
    assert_ne!(look::refs(&url).await, whole);
    let said = ada.resync("resync hello").await;
    assert!(said.contains("2 of 2 mirrors"), "{said}");
    assert_eq!(look::refs(&url).await, whole);
    let after = state().await;
    assert_eq!(after.created_at.as_secs(), before.created_at.as_secs() + 1);
    assert_eq!((&after.tags, &after.content), (&before.tags, &before.content));
    daemon.stop().await;
}
