//! The default branch has another name and another commit than a copy knows. Git refuses to delete the
//! branch that `HEAD` names there, so the plain push that makes the refs exact cannot succeed.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_copy_follows_a_default_branch_that_was_renamed_and_moved_on() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    // With these a renamed branch is not most of the repository.
    owner.work.tag("v1");
    owner.work.tag("v2");
    let listing = owner.announcement().at(&a);
    owner.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    // Two steps for the owner, between which the bot does not look.
    owner.work.git(&["branch", "--move", "main", "trunk"]);
    owner.update(&a).await;
    owner.work.commit("later", "1");
    let state = owner.update(&a).await;

    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &state).await);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let clone = look::clone(&mirror.url_at(&b, "hello")).await;
    assert_eq!(clone.git(&["symbolic-ref", "HEAD"]).await, "refs/heads/trunk");
}
