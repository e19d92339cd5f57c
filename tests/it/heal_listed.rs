//! A server that the maintainers list, and that has lost (or never had) the repository, gets it back:
//! under the maintainer's own address, with no key but the bot's, and stays with it.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_empty_listed_server_is_healed_and_follows() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.annotated_tag("v1");
    owner.work.commit("src/lib.rs", "pub fn hello() {}\n");
    owner.work.commit("src/more.rs", "pub fn more() {}\n");
    owner.work.tag("light");
    owner.work.branch("topic/ünï");
    owner.work.commit("topic", "1");
    owner.work.switch("main");
    let listing = owner.announcement().at(&a).at(&b);
    let published = owner.publish(listing, &a).await;
    assert!(look::ls_remote(&owner.url_at(&b)).await.is_empty(), "B is empty at first");

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    assert!(look::serves(&b, &published.announcement).await);
    assert!(look::serves(&b, &published.state).await);
    let healed = look::clone(&owner.url_at(&b)).await;
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    assert_eq!(healed.git(&["symbolic-ref", "HEAD"]).await, "refs/heads/main");
    // Listed means listed: no second copy under the bot's name.
    assert!(look::ls_remote(&mirror.url_at(&b, "hello")).await.is_empty());

    // A rewind, a deleted branch and a deleted tag reach B as well.
    owner.work.rewind(1);
    owner.work.delete_branch("topic/ünï");
    owner.work.git(&["tag", "--delete", "light"]);
    let state = owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &state).await);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
}
