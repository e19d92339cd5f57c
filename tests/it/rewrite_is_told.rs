//! When maintainers rewrite their history, the servers follow; the people who may command the bot hear of it, once.

use grasp_mirror_testkit::{Chat, Heard, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// What the bot said of a history.
async fn told(who: &Chat) -> Vec<Heard> {
    let heard = who.heard().await;
    heard.into_iter().filter(|heard| heard.text.contains("its history was rewritten")).collect()
}

#[tokio::test]
async fn a_rewritten_history_is_told_once() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.branch("merged");
    owner.work.switch("main");
    owner.work.commit("more.txt", "to be taken back");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    ada.resync("resync").await;

    // More commits, and a branch less, are no other history.
    owner.work.commit("even more.txt", "fine");
    owner.work.delete_branch("merged");
    owner.update(&a).await;
    ada.resync("resync").await;
    ada.catch_up().await;
    assert_eq!(told(&ada).await, []);

    owner.work.rewind(2);
    owner.work.commit("other.txt", "instead");
    owner.update(&a).await;
    ada.resync("resync").await;
    look::wait_until("the rewrite is told", async || told(&ada).await.len() == 1).await;
    assert!(told(&ada).await.iter().all(|heard| heard.text.contains("hello by npub1")));
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    daemon.stop().await;
    daemon = mirror.daemon().await;
    ada.resync("resync").await;
    ada.catch_up().await;
    assert_eq!(told(&ada).await.len(), 1);
    daemon.stop().await;
}
