//! A server that says `rate-limited:` gets everything all the same, only later, and has to say it only once.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

/// More than a server takes on one connection in a minute (60).
const ISSUES: usize = 66;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_when_a_server_asks_to_slow_down() {
    let (a, relay) = (Server::start().await, TestRelay::start().await);
    let owner = Owner::new("busy").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).relay(relay.url()), &a).await;
    let mut issues = Vec::new();
    for n in 0..ISSUES {
        let issue = owner.issue(&owner.coordinate(), &format!("issue {n}"));
        relay.send(&issue).await.expect_accepted();
        issues.push(issue);
    }
    // Faster than the server allows, so that it has to say so.
    let mirror = Mirror::new(env!("CARGO_BIN_EXE_grasp-mirror"))
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .set("limits.events_per_minute", 1000);
    let run = mirror.run(&["mirror-once", "-v"]).await.expect_code(0);
    let hints = run.stderr.matches("slowing down").count();
    assert_eq!(hints, 1, "the server asked to slow down so often:\n{}", run.stderr);
    for issue in &issues {
        assert!(look::serves(&a, issue).await, "an issue is missing");
    }
}
