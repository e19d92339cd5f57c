//! A clone URL that serves something else than the maintainers signed: nothing of it is spread, and the
//! report says why.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn other_commits_than_signed_go_nowhere() {
    let (liar, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    // The same branch, the same history, and then a commit that nobody signed.
    let evil = Owner::new("hello");
    evil.work.commit("src/lib.rs", "pub fn evil() {}\n");
    evil.publish(evil.announcement().at(&liar), &liar).await;

    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("src/lib.rs", "pub fn good() {}\n");
    let announcement = owner.announcement().clone_url(&evil.url_at(&liar)).relay(relay.url());
    owner.announce(announcement, &relay).await;
    let state = owner.state();
    relay.send(&state).await.expect_accepted();

    let mirror = Mirror::new(BINARY).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(2);

    assert!(look::refs(&mirror.url_at(&b, "hello")).await.is_empty());
    assert!(look::refs(&owner.url_at(&b)).await.is_empty());
    assert!(!look::serves(&b, &state).await);
    let repo = mirror.status_of(&owner.coordinate()).await;
    let reason = repo["problems"][0]["reason"].as_str().unwrap_or_default();
    let signed = owner.work.rev("main");
    assert!(!reason.is_empty(), "{repo:#}");
    assert!(
        reason.contains(signed.get(..7).unwrap()) || reason.contains(&liar.authority()),
        "says what is missing: {reason}"
    );

    // When an honest source turns up, all is well.
    let honest = Server::start().await;
    let announcement = owner.announcement().clone_url(&evil.url_at(&liar)).at(&honest).relay(relay.url());
    owner.publish(announcement, &honest).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
