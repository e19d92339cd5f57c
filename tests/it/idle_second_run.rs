//! When all is in sync, a second run moves nothing: no push, no fetch, no event, counted at the servers.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_second_run_moves_nothing() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, c, relay) = tokio::join!(start(), start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.annotated_tag("v1");
    let listing = owner.announcement().at(&a).at(&b);
    owner.publish(listing, &a).await;
    let issue = owner.issue(&owner.coordinate(), "Something");
    a.send(&issue).await.expect_accepted();
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    for server in [&a, &b, &c] {
        assert!(look::serves(server, &issue).await);
        server.proxy().reset();
    }
    let second = mirror.once().await.expect_code(0);
    for server in [&a, &b, &c] {
        let seen = server.proxy().seen();
        assert_eq!(seen.count("POST", "git-receive-pack"), 0, "{seen:#?}");
        assert_eq!(seen.count("POST", "git-upload-pack"), 0, "{seen:#?}");
        assert_eq!(seen.verb("EVENT"), Vec::<&str>::new());
        assert!(seen.connections > 0, "it did look");
    }
    println!("the second run took {:?}, {:?} CPU", second.elapsed, second.cpu);
}
