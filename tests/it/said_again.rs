//! A maintainer's state is said again for servers that serve it and lack its git data. One that only fails needs none.

#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};
use nostr::filter::Filter;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn nothing_is_signed_for_a_server_that_takes_no_push_now() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let state = owner.publish(owner.announcement().at(&a).at(&b), &a).await.state;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.env("MIRROR_SIGNER", &owner.nsec());
    b.proxy().fault_on("git-receive-pack", Fault::Status(500));
    mirror.once().await.expect_code(2);
    let served = a.served(Filter::new().author(owner.public_key()).kind(30618.into())).await;
    assert_eq!(served.iter().map(|event| event.id).collect::<Vec<_>>(), [state.id]);
    b.proxy().heal();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
}
