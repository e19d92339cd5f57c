//! A server that no maintainer listed carries the repository in the bot's own namespace.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

#[tokio::test(flavor = "multi_thread")]
async fn an_unlisted_server_carries_a_copy_and_the_owners_own_events() {
    let (a, b) = (Server::start().await, Server::start().await);
    let relay = TestRelay::start().await;
    let owner = Owner::new("hello");
    owner.work.commit("a", "b");
    owner.work.annotated_tag("v1");
    let published = owner.publish(owner.announcement().at(&a), &a).await;
    let issue = owner.issue(&owner.coordinate(), "it breaks");
    a.send(&issue).await.expect_accepted();
    let mirror =
        Mirror::new(env!("CARGO_BIN_EXE_grasp-mirror")).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let run = mirror.run(&["mirror-once", "-vv"]).await;
    println!("{}\n{}", run.stdout, run.stderr);
    let run = mirror.run(&["mirror-once", "-v"]).await;
    println!("{}\n{}", run.stdout, run.stderr);
    assert!(look::serves(&b, &published.state).await);
    assert!(look::serves(&b, &published.announcement).await);
    assert!(look::serves(&b, &issue).await);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    run.expect_code(0);
}
