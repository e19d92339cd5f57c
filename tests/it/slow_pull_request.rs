//! A pull request whose commit is said to be at a host that never answers: branches and tags do not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};

use grasp_mirror_testkit::{Fault, Mirror, Owner, Proxy, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn branches_do_not_wait_for_a_strangers_pull_request() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a).relay(relay.url()), &a).await;
    let silent = Proxy::before(a.authority().parse().unwrap()).await;
    silent.fault(Fault::Hold);
    let nowhere = format!("http://{}/x.git", silent.address());
    relay.send(&owner.pull_request(&owner.coordinate(), &"1".repeat(40), &nowhere)).await.expect_accepted();

    let mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .watches(&owner)
        .set("limits.stall_timeout_secs", 600)
        .set("network.allow_private_addresses", true);
    let over = AtomicBool::new(false);
    let whole = async {
        let run = mirror.once().await;
        over.store(true, Ordering::SeqCst);
        run
    };
    let branches = async {
        let url = mirror.url_at(&b, "hello");
        look::wait_until("the branches are there", async || look::serves(&b, &published.state).await).await;
        assert!(!over.load(Ordering::SeqCst), "the branches came only with the end of the run");
        assert_eq!(look::refs(&url).await, owner.work.refs());
        silent.heal();
    };
    let (run, ()) = tokio::join!(whole, branches);
    run.expect_code(0);
}
