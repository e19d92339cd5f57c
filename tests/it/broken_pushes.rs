//! A push that breaks on the way is sent once more; one that the server may have carried out is looked at.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

const PUSH: &str = "/hello.git/git-receive-pack";

#[tokio::test]
async fn nothing_is_pushed_again_that_may_have_arrived() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let b = Server::builder().behind_proxy().start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.fill(3 << 20);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .watches(&owner)
        .set("limits.stall_timeout_secs", 30);

    b.proxy().fault_on(PUSH, Fault::CutUp(1 << 20));
    mirror.once().await.expect_code(2);
    assert_eq!(b.proxy().seen().count("POST", PUSH), 2, "once more, and then no more");
    let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
    assert_eq!(problem["status"], "failing", "{problem}");

    // The server gets it all and carries it out, and its answer is lost: the look finds it there.
    b.proxy().heal();
    b.proxy().reset();
    b.proxy().fault_on(PUSH, Fault::Mute);
    mirror.once().await.expect_code(0);
    assert_eq!(b.proxy().seen().count("POST", PUSH), 1);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
