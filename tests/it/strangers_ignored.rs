//! Only confirmed maintainers say what a repository holds. Everyone else may sign what they like.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Someone else's repository of the same name and history, one commit further, newer, and on the same server.
async fn rival(a: &Server, relay: &TestRelay) -> (Owner, nostr::event::Event) {
    let rival = Owner::new("hello").at_home_on(relay);
    rival.work.commit("backdoor", "open\n");
    let listing = rival.announcement().at(a);
    let published = rival.publish(listing, a).await;
    relay.send(&published.state).await.expect_accepted();
    (rival, published.state)
}

#[tokio::test]
async fn a_strangers_state_changes_nothing() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a);
    let published = owner.publish(listing, &a).await;
    let (stranger, theirs) = rival(&a, &relay).await;
    assert!(theirs.created_at >= published.state.created_at);

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert!(look::serves(&b, &published.state).await);
    assert!(!look::serves(&b, &theirs).await);
    assert!(look::ls_remote(&stranger.url_at(&b)).await.is_empty());
}

#[tokio::test]
async fn an_invitation_that_was_not_accepted_gives_no_authority() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let (invited, theirs) = rival(&a, &relay).await;
    let listing = owner.announcement().at(&a).maintainer(&invited.public_key());
    let published = owner.publish(listing, &a).await;

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert!(look::serves(&b, &published.state).await);
    assert!(!look::serves(&b, &theirs).await);

    // The same two people, once the invited one lists the owner back: now the newer state counts.
    let accepted = invited.announcement().at(&a).maintainer(&owner.public_key());
    invited.announce(accepted, &a).await;
    invited.work.commit("together", "1\n");
    let state = invited.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, invited.work.refs());
    assert!(look::serves(&b, &state).await);
}
