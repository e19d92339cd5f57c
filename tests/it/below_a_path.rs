//! A server may sit below a path of its host: `wss://HOST/PATH`, repositories at `https://HOST/PATH/<npub>/<d>.git`.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn servers_below_a_path_are_mirrored_to_and_from() {
    let below = || Server::builder().below("/grasp").start();
    let (a, b, relay) = tokio::join!(below(), below(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &published.state).await);
    assert!(mirror.url_at(&b, "hello").contains("/grasp/npub1"));
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
