//! A maintainer who was brought in by another maintainer: a server takes each announcement only after one that
//! lists its author, so they are sent in that order, wherever the chain begins.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn every_link_of_the_chain_reaches_every_server() {
    let (a, c, d) = tokio::join!(Server::start(), Server::start(), Server::start());
    let relay = TestRelay::start().await;
    let [alice, bob, carol] = [(); 3].map(|()| Owner::new("hello").at_home_on(&relay));
    let listing = bob.announcement().relay(relay.url());
    let listing = listing.maintainer(&alice.public_key()).maintainer(&carol.public_key());
    let (by_bob, _) = bob.announce(listing, &relay).await;
    // Alice's server knows nobody but her, Carol's is listed by nobody but her.
    let listing = carol.announcement().at(&c).maintainer(&bob.public_key());
    let (by_carol, _) = carol.announce(listing, &c).await;
    let listing = alice.announcement().at(&a).maintainer(&bob.public_key());
    let by_alice = alice.publish(listing, &a).await;

    let mirror = Mirror::new(BINARY).knows(&a).knows(&c).knows(&d).uses(&relay).watches(&alice);
    mirror.once().await.expect_code(0);
    for server in [&a, &c, &d] {
        for event in [&by_alice.announcement, &by_bob, &by_carol, &by_alice.state] {
            assert!(look::serves(server, event).await, "kind {} at {}", event.kind, server.url());
        }
    }
    for url in [carol.url_at(&c), mirror.url_at(&d, "hello")] {
        assert_eq!(look::refs(&url).await, alice.work.refs(), "{url}");
    }

    // The other end of the chain signs the next state.
    for _ in 0..5 {
        let _ = carol.state();
    }
    carol.work.commit("more", "by carol\n");
    let state = carol.update(&c).await;
    mirror.once().await.expect_code(0);
    for server in [&a, &c, &d] {
        assert!(look::serves(server, &state).await, "{}", server.url());
    }
    for url in [alice.url_at(&a), mirror.url_at(&d, "hello")] {
        assert_eq!(look::refs(&url).await, carol.work.refs(), "{url}");
    }
}
