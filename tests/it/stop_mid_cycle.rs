//! Told to stop in the middle of a cycle, the daemon stops within ten seconds, and the next one carries on.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_signal_ends_a_cycle_that_waits_for_a_server() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    // The push to B never ends.
    b.proxy().fault_on("git-receive-pack", Fault::Hang);
    for signal in ["TERM", "INT"] {
        b.proxy().reset();
        let daemon = mirror.start_daemon();
        look::wait_until("the bot pushes to B", async || {
            b.proxy().seen().requests.keys().any(|(_, path)| path.contains("git-receive-pack"))
        })
        .await;
        daemon.stop_with(signal).await;
    }
    b.proxy().heal();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
