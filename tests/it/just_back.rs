//! A server that has just come back may put its refs back to what they were before, and serve the newer state over them:
//! what is pushed to it then is looked at once more, and mended.

#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn refs_that_a_server_puts_back_after_its_start_are_mended_soon() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    // No cycle comes for an hour.
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.retry_first_secs", 10);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    let url = mirror.url_at(&b, "hello");
    let before = look::refs(&url).await;
    assert_eq!(before, owner.work.refs());

    look::wait_until("the server is lost", async || {
        b.proxy().drop_connections();
        daemon.log().contains("not listening there now")
    })
    .await;
    owner.work.commit("README.md", "# changed\n");
    let state = owner.update(&a).await;
    look::wait_until("the new state is there", async || {
        look::serves(&b, &state).await && look::refs(&url).await == owner.work.refs()
    })
    .await;
    // As ngit-grasp 3.0.9 does when it has just started.
    let folder = b.git_folder().join(mirror.npub()).join("hello.git");
    for (name, id) in &before {
        let mut git = tools::git(&folder);
        git.args(["update-ref", name, id]);
        tools::must(git).await;
    }
    assert_eq!(look::refs(&url).await, before);
    look::wait_until("its refs are mended", async || look::refs(&url).await == owner.work.refs()).await;
    daemon.stop().await;
}
