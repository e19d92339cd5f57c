//! When something changes for the worse, the people who may command the bot hear of it, once; unless the operator
//! does not want that.

#![allow(clippy::panic, reason = "a test")]

use std::time::Duration;

use grasp_mirror_testkit::{Chat, Heard, Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

struct World {
    a: Server,
    b: Server,
    relay: TestRelay,
    owner: Owner,
}

impl World {
    async fn new() -> Self {
        let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
        let owner = Owner::new("hello").at_home_on(&relay);
        owner.publish(owner.announcement().at(&a), &a).await;
        Self { a, b, relay, owner }
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(BINARY).knows(&self.a).knows(&self.b).uses(&self.relay).watches(&self.owner)
    }
}

/// What the bot said without having been asked.
async fn alerts(who: &Chat) -> Vec<Heard> {
    who.heard().await.into_iter().filter(|heard| heard.about.is_empty()).collect()
}

async fn resync(who: &Chat, word: &str) {
    let resync = who.ask(Protocol::Nip17, word).await;
    who.answers(&resync, 2).await;
}

#[tokio::test]
async fn a_lost_server_is_told_once() {
    let mut world = World::new().await;
    let mirror = world.mirror();
    let (ada, bob) = tokio::join!(Chat::at(&mirror, &world.relay), Chat::at(&mirror, &world.relay));
    let mirror = mirror.obeys(&ada).obeys(&bob);
    let daemon = mirror.daemon().await;
    resync(&ada, "resync").await;
    assert_eq!(alerts(&ada).await, [], "all is well");

    world.b.stop().await;
    resync(&ada, "Resync").await;
    for who in [&ada, &bob] {
        look::wait_until(Duration::from_secs(30), "both hear that a server is lost", async || {
            alerts(who).await.iter().any(|alert| alert.text.contains(&world.b.authority()))
        })
        .await;
    }
    // Neither what has not changed nor, within ten minutes, what has is worth another message.
    resync(&ada, "RESYNC").await;
    world.b.resume().await;
    resync(&ada, "/resync").await;
    // Nor does it forget that when it starts anew.
    daemon.stop().await;
    world.b.stop().await;
    let daemon = mirror.daemon().await;
    resync(&ada, "!resync").await;
    for who in [&ada, &bob] {
        who.catch_up().await;
        let alerts = alerts(who).await;
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_rewritten_history_is_told_once() {
    let world = World::new().await;
    world.owner.work.commit("more.txt", "more");
    world.owner.update(&world.a).await;
    let (mirror, ada) = world.mirror().commanded_at(&world.relay).await;
    let daemon = mirror.daemon().await;
    resync(&ada, "resync").await;
    world.owner.work.commit("more.txt", "still more");
    world.owner.update(&world.a).await;
    resync(&ada, "Resync").await;
    assert_eq!(alerts(&ada).await, [], "a commit is no news");
    world.owner.work.rewind(2);
    world.owner.update(&world.a).await;
    for word in ["RESYNC", "/resync"] {
        resync(&ada, word).await;
        ada.catch_up().await;
    }
    let told = alerts(&ada).await;
    let [alert] = told.as_slice() else { panic!("one alert in {told:#?}") };
    assert!(alert.text.contains("hello") && alert.text.contains("rewritten"), "{}", alert.text);
    daemon.stop().await;
}

#[tokio::test]
async fn an_operator_can_do_without() {
    let mut world = World::new().await;
    let mirror = world.mirror().set("bot.alerts", false);
    let ada = Chat::at(&mirror, &world.relay).await;
    let daemon = mirror.obeys(&ada).daemon().await;
    resync(&ada, "resync").await;
    world.b.stop().await;
    resync(&ada, "Resync").await;
    ada.catch_up().await;
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(status.contains("1 of 2 mirrors in sync"), "{status}");
    assert_eq!(alerts(&ada).await, []);
    daemon.stop().await;
}
