//! A server is asked who it is (NIP-11) once in `servers.health_interval_secs`, not in every cycle.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const CYCLES: u64 = 4;

/// How often a server is asked who it is in some cycles of a daemon.
async fn asked(health_interval_secs: u32) -> u64 {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("servers.health_interval_secs", health_interval_secs);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    for _ in 1..CYCLES {
        // Past the second that the interval is counted in.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        ada.resync("resync").await;
    }
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count() as u64, CYCLES, "{log}");
    b.proxy().seen().introductions
}

#[tokio::test]
async fn a_server_is_asked_once_in_the_interval() {
    let (seldom, often) = tokio::join!(asked(3_600), asked(1));
    assert_eq!(seldom, 1);
    assert!(often >= CYCLES, "{often}");
}
