//! At its start the bot writes to itself through each of its inbox relays, and says which of them does not deliver.

use grasp_mirror_testkit::{Chat, Mirror, TestRelay};
use nostr::event::Kind;
use nostr_sdk::local_relay::LocalRelay;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_inbox_relay_that_does_not_deliver_is_named() {
    let no_wraps = LocalRelay::builder().blacklist_kinds(&[Kind::GiftWrap]);
    let (good, bad) = tokio::join!(TestRelay::start(), TestRelay::start_as(no_wraps));
    let mirror = Mirror::new(BINARY).uses(&good).inbox(&good).inbox(&bad);
    let ada = Chat::at(&mirror, &good).await;
    let mut daemon = mirror.obeys(&ada).daemon().await;
    let warns = |log: &str, relay: &TestRelay| {
        log.lines().any(|line| line.contains("WARN") && line.contains(relay.url()))
    };
    daemon.wait_log("does not deliver").await;
    ada.catch_up().await;
    let log = daemon.stop().await;
    assert!(warns(&log, &bad), "{log}");
    assert!(!warns(&log, &good), "{log}");
}
