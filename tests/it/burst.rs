//! What is heard while a repository is at work is one job, however much it is.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn a_burst_is_one_job() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.stall_timeout_secs", 600);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;

    b.proxy().fault_on("hello.git/git-receive-pack", Fault::Hold);
    let pushes = b.proxy().seen().count("POST", "git-receive-pack");
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    look::wait_until("the first job is at work", async || {
        b.proxy().seen().count("POST", "git-receive-pack") > pushes
    })
    .await;
    let mut last = owner.issue(&owner.coordinate(), "the first");
    for number in 0..50 {
        last = owner.issue(&owner.coordinate(), &format!("number {number}"));
        a.send(&last).await.expect_accepted();
    }
    b.proxy().heal();
    look::wait_until("all of it is there", async || {
        look::serves(&b, &last).await
            && b.served(nostr::filter::Filter::new().kind(1621.into())).await.len() == 50
    })
    .await;
    let log = daemon.stop().await;
    let jobs = log.matches("followed families").count();
    // The held one, the burst, and what was heard only while the first of it was looked up.
    assert!(jobs < 10, "{jobs} jobs:\n{log}");
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}
