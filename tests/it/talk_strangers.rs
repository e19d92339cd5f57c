//! Whoever is not allowed to command the bot hears nothing from it, and nothing they say is done.

use grasp_mirror_testkit::{Chat, Mirror, Protocol, TestRelay, look};
use nostr::filter::Filter;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn strangers_hear_nothing() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay);
    let (ada, eve) = tokio::join!(Chat::at(&mirror, &relay), Chat::at(&mirror, &relay));
    let daemon = mirror.obeys(&ada).daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for text in ["pause", "help", "no command at all"] {
            eve.ask(protocol, text).await;
        }
    }
    // Who the rumor says it is from does not count, but who sealed it.
    for forged in [eve.wrap(ada.rumor("pause", now())), ada.wrap(eve.rumor("pause", now()))] {
        eve.send(&forged).await;
    }
    ada.catch_up().await;
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(!status.contains("Paused"), "{status}");
    daemon.stop().await;
    assert_eq!(eve.heard().await, []);
    assert!(!ada.heard().await.iter().any(|heard| heard.text.contains("Paused")));
}

#[tokio::test]
async fn with_nobody_allowed_it_says_so_and_obeys_nobody() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay).set("bot.cycle_interval_secs", 1);
    let eve = Chat::at(&mirror, &relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("MIRROR_ALLOWED_NPUBS").await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        eve.ask(protocol, "help").await;
    }
    let cycle = async || {
        let report = Filter::new().author(mirror.bot_pubkey()).identifier("grasp-mirror/status");
        let report = relay.served(report).await.pop().map_or(String::new(), |event| event.content);
        serde_json::from_str::<serde_json::Value>(&report).ok()?["cycle"]["number"].as_u64()
    };
    let asked_in = cycle().await.unwrap_or_default();
    look::wait_until("two more cycles are over", async || cycle().await > Some(asked_in + 2)).await;
    daemon.stop().await;
    assert_eq!(eve.heard().await, []);
}

fn now() -> nostr::types::Timestamp {
    nostr::types::Timestamp::now()
}
