//! Relays that are down, hang, or talk nonsense keep the bot neither from starting nor from answering on the others.

use grasp_mirror_testkit::{Chat, Fault, Mirror, Protocol, Proxy, TestRelay, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn one_good_relay_is_enough() {
    let (good, other) = tokio::join!(TestRelay::start(), TestRelay::start());
    let behind = || Proxy::before(other.url().trim_start_matches("ws://").parse().unwrap());
    let (hangs, raves) = tokio::join!(behind(), behind());
    hangs.fault(Fault::Hang);
    raves.fault(Fault::Garbage);
    let mut relays = vec![format!("ws://127.0.0.1:{}", free_port()), good.url().to_owned()];
    relays.extend([&hangs, &raves].map(|proxy| format!("ws://{}", proxy.address())));
    let mirror = Mirror::new(BINARY)
        .set("bot.relays", relays.clone())
        .set("bot.inbox_relays", relays.clone())
        .set("bot.index_relays", relays)
        .set("bot.cycle_interval_secs", 1)
        .set("limits.connect_timeout_secs", 2)
        .set("limits.events_per_minute", 1000);
    let ada = Chat::new(&mirror).asks_at(&good).hears_at(&good);
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for text in ["version", "help", "list", "pause", "resume"] {
            ada.answer_to(protocol, text).await;
        }
    }
    daemon.stop().await;
}
