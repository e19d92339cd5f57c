//! How long a failing mirror waits is remembered beyond the program's end, and forgotten when something new is signed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay};
use nostr::types::Timestamp;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const FIRST_SECS: u64 = 100;

/// For how many seconds the copy on the server that fails waits.
async fn wait(mirror: &Mirror, owner: &Owner) -> u64 {
    mirror.once().await.expect_code(2);
    let repo = mirror.status_of(&owner.coordinate()).await;
    let retry_at = repo["problems"][0]["retry_at"].as_u64().unwrap_or_default();
    retry_at.saturating_sub(Timestamp::now().as_secs())
}

#[tokio::test]
async fn waits_grow_from_run_to_run_and_begin_anew_with_a_new_state() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.retry_first_secs", FIRST_SECS.cast_signed());
    b.proxy().fault_on("git-receive-pack", Fault::Status(500));
    let first = wait(&mirror, &owner).await;
    assert!((FIRST_SECS / 3..=2 * FIRST_SECS).contains(&first), "{first} s");
    wait(&mirror, &owner).await;
    wait(&mirror, &owner).await;
    let fourth = wait(&mirror, &owner).await;
    assert!(fourth > 3 * FIRST_SECS, "{fourth} s after four failures");

    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    let again = wait(&mirror, &owner).await;
    assert!(again <= 2 * FIRST_SECS, "{again} s");
}
