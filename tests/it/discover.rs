//! Servers that only an announcement names: used when the operator says so, and left alone otherwise.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_announced_server_is_used_only_with_discover() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a).at(&b), &a).await;

    let shy = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    shy.once().await.expect_code(0);
    assert!(!look::serves(&b, &published.announcement).await);

    // An address that only an event names must be a public one, and this one is not.
    let guarded = Mirror::new(BINARY)
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .set("servers.discover", true)
        .set("network.allow_private_addresses", false);
    guarded.once().await.expect_code(0);
    assert!(!look::serves(&b, &published.announcement).await);

    let curious = Mirror::new(BINARY)
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .set("servers.discover", true)
        .set("network.allow_private_addresses", true);
    curious.once().await.expect_code(0);
    assert!(look::serves(&b, &published.state).await);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
}

#[tokio::test]
async fn so_is_one_that_a_watched_author_lists_for_all_repositories() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let list = owner.sign(10317, "", &[&["g", &b.url()]]);
    relay.send(&list).await.expect_accepted();
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    mirror.set("servers.discover", true).once().await.expect_code(0);
    let copies = b.served(nostr::filter::Filter::new().kind(30617.into())).await;
    assert_eq!(copies.len(), 2, "the owner's announcement and the bot's");
}
