//! A repository that its owner marks private goes nowhere the owner did not send it.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
use nostr::filter::Filter;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn nothing_of_a_private_repository_is_spread() {
    let (a, b) = tokio::join!(Server::start(), Server::builder().behind_proxy().start());
    let relay = TestRelay::start().await;
    let owner = Owner::new("diary").at_home_on(&relay);
    let listing = owner.announcement().at(&a).private();
    owner.publish(listing, &a).await;
    let issue = owner.issue(&owner.coordinate(), "A secret");
    a.send(&issue).await.expect_accepted();

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    let said = b.proxy().seen();
    assert!(said.verb("EVENT").is_empty(), "{:?}", said.verb("EVENT"));
    assert_eq!(said.count("POST", "git-receive-pack"), 0);
    assert!(look::ls_remote(&mirror.url_at(&b, "diary")).await.is_empty());
    // Not even by name, in what the bot says in public.
    for event in relay.served(Filter::new().author(mirror.bot_pubkey())).await {
        assert!(
            !event.content.contains("diary") && !format!("{:?}", event.tags).contains("diary"),
            "{event:?}"
        );
    }
    assert!(!mirror.data_dir().join("git").join(owner.npub()).exists());
}
