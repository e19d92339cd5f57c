//! A server that answers byte by byte, and never to the end, costs its time and nobody else's.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const TOTAL_SECS: u64 = 8;
/// A byte a second never stalls, and would take minutes for every answer.
const DRIP: Fault = Fault::Slow(1);

#[tokio::test]
async fn git_that_drips_is_given_up_after_its_time() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let drips = Server::builder().behind_proxy().start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&drips).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.total_timeout_secs", TOTAL_SECS.cast_signed());
    drips.proxy().fault_on("git-receive-pack", DRIP);
    mirror.once().await.expect_code(2);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let repo = mirror.status_of(&owner.coordinate()).await;
    let problem = &repo["problems"][0];
    assert_eq!(problem["server"], drips.url());
    let reason = problem["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&format!("within {TOTAL_SECS}s")), "{reason}");
}

/// The same for a source: the next one gets its turn.
#[tokio::test]
async fn a_source_that_drips_is_given_up_for_the_next() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let drips = Server::builder().behind_proxy().start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&drips).at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.total_timeout_secs", TOTAL_SECS.cast_signed());
    drips.proxy().fault_on("git-upload-pack", DRIP);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
