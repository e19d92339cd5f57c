//! A client that shares no code with the bot (nostr-tools) is understood, and understands the answer.

#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_testkit::{Chat, Mirror, TestRelay, tools};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn another_implementation_is_understood() {
    let (relay, gated) = tokio::join!(TestRelay::start(), TestRelay::start_gated());
    let mirror = Mirror::new(BINARY).uses(&relay).inbox(&relay).inbox(&gated);
    let ada = Chat::at(&mirror, &relay).await;
    let bob = Chat::new(&mirror).hears_at(&gated);
    bob.introduce(&relay).await;
    let mirror = mirror.obeys(&ada).obeys(&bob);
    let daemon = mirror.daemon().await;
    for (who, at) in [(&ada, &relay), (&bob, &gated)] {
        for command in ["ask17", "ask04"] {
            let bot = mirror.bot_pubkey().to_hex();
            let mut client = tools::nostr_tools(&[command, at.url(), &bot, "version"]);
            client.env("NSEC_HEX", who.keys.secret_key().to_secret_hex());
            let said: Value = serde_json::from_str(&tools::must(client).await).unwrap();
            let answer = said["answer"].as_str().unwrap();
            assert!(answer.starts_with("grasp-mirror "), "{command}: {said}");
        }
    }
    daemon.stop().await;
}
