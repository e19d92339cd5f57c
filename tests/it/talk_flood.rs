//! Ten thousand messages from strangers cost little, and hide no message of those who may command.

use std::time::Duration;

use grasp_mirror_testkit::{Chat, Mirror, Protocol, TestRelay};
use nostr::types::Timestamp;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const STRANGERS: usize = 100;
const WRAPS_EACH: usize = 100;
/// A few seconds, and as much again for a build without optimisation.
const CPU: Duration = Duration::from_secs(15);
const GROWTH_KIB: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wraps_from_strangers() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    let (cpu, rss) = (daemon.cpu(), daemon.rss_kib());
    for _ in 0..STRANGERS {
        let eve = Chat::new(&mirror);
        let rumor = eve.rumor("pause", Timestamp::now());
        for _ in 0..WRAPS_EACH {
            relay.receive(eve.wrap(rumor.clone()).event).await;
        }
    }
    // Behind all of them.
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(!status.contains("Paused"), "{status}");
    // Until it has looked at every one of them.
    daemon.wait_idle().await;
    let (cpu, grown) = (daemon.cpu() - cpu, daemon.rss_kib().saturating_sub(rss));
    println!("{cpu:?} CPU, {grown} KiB more");
    daemon.stop().await;

    // Relays give the newest first, and not all at once; a wrap may be dated two days back.
    let (now, hour) = (Timestamp::now(), Duration::from_secs(3600));
    let question = ada.wrap_dated(ada.rumor("help list", now), now - hour * 47);
    ada.send(&question).await;
    let daemon = mirror.daemon().await;
    ada.answers(&question, 1).await;
    daemon.stop().await;
    assert!(cpu < CPU, "{cpu:?} CPU");
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
}
