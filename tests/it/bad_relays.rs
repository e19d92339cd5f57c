//! Relays that are down, hang, or talk nonsense keep the bot neither from starting nor from answering on the others.

use grasp_mirror_testkit::{Chat, Fault, Mirror, Person, Protocol, TestRelay, free_port, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn one_good_relay_is_enough() {
    let (good, other) = tokio::join!(TestRelay::start(), TestRelay::start());
    let (hangs, raves) = tokio::join!(other.proxied(), other.proxied());
    hangs.fault(Fault::Hang);
    raves.fault(Fault::Garbage);
    let mirror = Mirror::new(BINARY)
        .uses(format!("ws://127.0.0.1:{}", free_port()))
        .uses(&good)
        .uses(&hangs)
        .uses(&raves)
        .set("bot.cycle_interval_secs", 1)
        .set("limits.connect_timeout_secs", 2)
        .set("limits.events_per_minute", 1000);
    let ada = Chat::new(&mirror).asks_at(&good).hears_at(&good);
    let mirror = mirror.obeys(&ada);
    // It can be stopped while it waits for them.
    let mut daemon = mirror.start_daemon();
    daemon.wait_log("starting").await;
    daemon.stop().await;
    let daemon = mirror.daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for text in ["version", "help", "list", "pause", "resume"] {
            ada.answer_to(protocol, text).await;
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_relay_that_falls_silent_delays_nobody() {
    let (good, other) = tokio::join!(TestRelay::start(), TestRelay::start());
    let proxy = other.proxied().await;
    let mirror = Mirror::new(BINARY).uses(&good).uses(&proxy).set("bot.cycle_interval_secs", 1);
    let (mirror, ada) = mirror.commanded_at(&good).await;
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    proxy.silence(true);
    let author = Person::new().npub();
    let mut asked = Vec::new();
    for text in ["pause", "resume", &format!("watch {author}"), &format!("unwatch {author}"), "list"] {
        for protocol in [Protocol::Nip17, Protocol::Nip04] {
            asked.push(ada.ask(protocol, text).await);
        }
    }
    daemon.reload();
    asked.push(ada.ask(Protocol::Nip17, "version").await);
    look::wait_until("all are answered", async || {
        let answered: Vec<_> = ada.heard().await.into_iter().flat_map(|answer| answer.about).collect();
        asked.iter().all(|question| answered.contains(&question.id))
    })
    .await;
    daemon.stop().await;
}
