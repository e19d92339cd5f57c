//! A server that says `rate-limited:` gets everything all the same, only later, and has to say it only once. Who says for
//! how long is not waited for.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
use nostr::{
    event::{Event, EventId},
    message::MachineReadablePrefix,
};
use nostr_sdk::local_relay::{LocalRelay, WritePolicy, WritePolicyResult};

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

/// Takes nothing, and says for how long.
#[derive(Debug, Default)]
struct NotToday(Arc<Mutex<BTreeMap<EventId, usize>>>);

impl WritePolicy for NotToday {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        *self.0.lock().unwrap().entry(event.id).or_default() += 1;
        Box::pin(async {
            WritePolicyResult::reject(MachineReadablePrefix::RateLimited, "try again in 2 hours")
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_wants_to_be_left_alone_for_hours_is_not_waited_for() {
    let asked = NotToday::default();
    let seen = Arc::clone(&asked.0);
    let builder = LocalRelay::builder().write_policy(asked);
    let (a, relay, busy) = tokio::join!(Server::start(), TestRelay::start(), TestRelay::start_as(builder));
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(env!("CARGO_BIN_EXE_grasp-mirror"));
    let mirror = mirror.uses(&busy).uses(&relay).knows(&a).watches(&owner);
    let run = mirror.once().await.expect_code(0);
    // Anybody waits a minute for who says to slow down and nothing else.
    assert!(run.elapsed < Duration::from_secs(60), "{:?}", run.elapsed);
    assert!(look::serves(&a, &published.state).await);
    let seen = seen.lock().unwrap().clone();
    assert!(!seen.is_empty() && seen.values().all(|times| *times == 1), "{seen:?}");
}

/// Takes nothing, and does not say for how long.
#[derive(Debug)]
struct NotNow;

impl WritePolicy for NotNow {
    fn admit_event<'a>(
        &'a self,
        _event: &'a Event,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        Box::pin(async { WritePolicyResult::reject(MachineReadablePrefix::RateLimited, "slow down") })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cycle_waits_for_a_relay_that_never_takes_its_report() {
    let builder = LocalRelay::builder().write_policy(NotNow);
    let (a, relay, busy) = tokio::join!(Server::start(), TestRelay::start(), TestRelay::start_as(builder));
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(env!("CARGO_BIN_EXE_grasp-mirror"));
    let mirror = mirror.uses(&busy).uses(&relay).knows(&a).watches(&owner);
    let mut daemon = mirror.daemon().await;
    // It would be asked eight times, once a minute.
    daemon.wait_log("cycle done").await;
    daemon.stop().await;
}
