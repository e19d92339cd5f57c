//! After each cycle the bot publishes its report in place of the last one, and one line for everyone.

#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_testkit::{Scene, look};
use nostr::{event::Event, filter::Filter, types::Timestamp};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const INTERVAL: u64 = 2;

#[tokio::test]
async fn each_cycle_replaces_the_report_and_the_line() {
    let scene = Scene::set().await;
    let mirror = scene
        .mirror(BINARY)
        .watches(&scene.owner)
        .set("bot.cycle_interval_secs", i64::try_from(INTERVAL).unwrap());
    let served = async |kind: u16, d: &str| -> Option<Event> {
        let filter = Filter::new().author(mirror.bot_pubkey()).kind(kind.into()).identifier(d);
        let mut events = scene.relay.served(filter).await;
        assert!(events.len() <= 1, "{events:#?}");
        events.pop()
    };
    let daemon = mirror.daemon().await;
    for number in [1, 3] {
        look::wait_until("the cycle is reported", async || {
            let report = served(30078, "grasp-mirror/status").await;
            let report = report.and_then(|event| serde_json::from_str::<Value>(&event.content).ok());
            report.and_then(|report| report["cycle"]["number"].as_u64()) >= Some(number)
        })
        .await;
    }
    look::wait_until("the line is there", async || {
        served(30315, "general").await.is_some_and(|line| {
            let (now, until) = (Timestamp::now().as_secs(), line.tags.expiration().unwrap().as_secs());
            assert!(until >= now && until <= now + 3 * INTERVAL + 60, "expires {until}, now {now}");
            line.content.contains("2 of 2 mirrors in sync on 2 servers")
        })
    })
    .await;
    daemon.stop().await;
}
