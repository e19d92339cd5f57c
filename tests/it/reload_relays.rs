//! `SIGHUP` makes the bot listen anew: it loses no relay that it is just connecting to, and leaves no subscription
//! open behind it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;

use grasp_mirror_testkit::{Chat, Fault, Mirror, Protocol, TestRelay, look};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn a_relay_that_is_being_connected_is_not_lost() {
    let (good, other) = tokio::join!(TestRelay::start(), TestRelay::start());
    let proxy = other.proxied().await;
    let mirror =
        Mirror::new(BINARY).uses(&good).uses(&proxy).set("bot.index_relays", vec![good.url().to_owned()]);
    let bob = Chat::new(&mirror).asks_at(&other).hears_at(&good);
    bob.introduce(&good).await;
    let (mirror, ada) = mirror.obeys(&bob).commanded_at(&good).await;
    let mut daemon = mirror.daemon().await;
    ada.catch_up().await;
    bob.answer_to(Protocol::Nip17, "version").await;
    proxy.fault(Fault::Hang);
    proxy.reset();
    proxy.drop_connections();
    look::wait_until("it connects", async || proxy.seen().connections > 0).await;
    daemon.reload();
    daemon.wait_log("read again").await;
    ada.catch_up().await;
    proxy.heal();
    proxy.drop_connections();
    bob.answer_to(Protocol::Nip17, "help list").await;
    daemon.stop().await;
}

#[tokio::test]
async fn no_subscription_is_left_open() {
    let relay = TestRelay::start().await;
    let proxy = relay.proxied().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&proxy).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    for count in 1..=5 {
        daemon.reload();
        look::wait_until("it was read again", async || daemon.log().matches("read again").count() == count)
            .await;
        ada.catch_up().await;
    }
    let ids = |verb: &str| -> BTreeSet<String> {
        let messages = proxy.seen();
        let messages =
            messages.verb(verb).into_iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
        messages.map(|message| message[1].as_str().unwrap().to_owned()).collect()
    };
    // What it listens to is in two parts; the rest of the time it only reads.
    look::wait_until("all but the last are closed", async || {
        ids("REQ").difference(&ids("CLOSE")).count() <= 2
    })
    .await;
    ada.catch_up().await;
    daemon.stop().await;
}
