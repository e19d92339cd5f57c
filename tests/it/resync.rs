//! `resync` believes nothing it remembers: it reads the servers again, and what is missing there comes back.

use grasp_mirror_testkit::{Mirror, Owner, Protocol, Scene, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn what_a_server_lost_comes_back() {
    let (a, mut b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let [hello, other] = ["hello", "other"].map(|d| Owner::new(d).at_home_on(&relay));
    for owner in [&hello, &other] {
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let (mirror, ada) = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .watches(&hello)
        .watches(&other)
        .commanded_at(&relay)
        .await;
    let daemon = mirror.daemon().await;
    let urls = ["hello", "other"].map(|d| mirror.url_at(&b, d));
    let copies = async || (look::refs(&urls[0]).await, look::refs(&urls[1]).await);
    let whole = (hello.work.refs(), other.work.refs());
    let npub = other.npub();
    for (question, told) in [
        ("resync hello", "2 of 2 mirrors of 1 repository in sync, 1 repaired"),
        (&format!("resync {npub}"), "2 of 2 mirrors of 1 repository in sync, 1 repaired"),
        ("resync", "4 of 4 mirrors of 2 repositories in sync, 2 repaired"),
        ("/resync", "4 of 4 mirrors of 2 repositories in sync, nothing was missing"),
    ] {
        // Whatever is still under way comes first.
        ada.resync("resync").await;
        assert_eq!(copies().await, whole);
        if !told.contains("nothing") {
            b.wipe().await;
        }
        let end = ada.resync(question).await;
        assert!(end.contains(told), "{question}: {end}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn one_that_waited_for_the_bot_is_done_once() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
    mirror.daemon().await.stop().await;
    let waited = ada.ask(Protocol::Nip17, "resync").await;
    let daemon = mirror.daemon().await;
    ada.answers(&waited, 2).await;
    ada.resync("resync").await;
    let log = daemon.stop().await;
    // What waited may have been heard before the first cycle began, which is then its own.
    let cycles = log.matches("cycle done").count();
    assert!((2..=3).contains(&cycles), "one at the start, two that were asked for:\n{log}");
}
