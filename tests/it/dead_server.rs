//! A server that is down is one server's problem.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, free_port, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn the_rest_is_in_sync_and_the_exit_code_says_so() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a);
    owner.publish(listing, &a).await;
    let dead = format!("ws://127.0.0.1:{}", free_port());
    let mirror = Mirror::new(BINARY).knows_url(&dead).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(2);

    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let status = mirror.status_json().await;
    assert_eq!(status["totals"]["mirrors"], 3);
    assert_eq!(status["totals"]["in_sync"], 2);
    let servers = status["servers"].as_array().unwrap();
    let reachable = |url: &str| {
        let same = |server: &&serde_json::Value| {
            server["url"].as_str().is_some_and(|known| known.trim_end_matches('/') == url)
        };
        servers.iter().find(same).map(|server| server["reachable"].clone())
    };
    assert_eq!(reachable(&dead), Some(false.into()), "{status:#}");
    assert_eq!(reachable(&b.url()), Some(true.into()), "{status:#}");
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_timeout_once_not_once_a_repository() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let hanging = Server::builder().behind_proxy().start().await;
    hanging.proxy().fault(Fault::Hang);
    let mut mirror = Mirror::new(BINARY)
        .knows(&hanging)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .set("limits.connect_timeout_secs", 3)
        .set("limits.stall_timeout_secs", 3);
    let mut owners = Vec::new();
    for number in 0..5 {
        let owner = Owner::new(&format!("repository-{number}")).at_home_on(&relay);
        let listing = owner.announcement().at(&a);
        owner.publish(listing, &a).await;
        mirror = mirror.watches(&owner);
        owners.push(owner);
    }
    mirror.once().await.expect_code(2);
    // Each costs its time. The walk asks a server several things one after the other, but not for each repository.
    let connections = hanging.proxy().seen().connections;
    assert!((1..5).contains(&connections), "{connections}");
    for owner in &owners {
        assert_eq!(look::refs(&mirror.url_at(&b, &owner.d)).await, owner.work.refs());
    }

    // Back again, it is served with the next run.
    hanging.proxy().heal();
    hanging.proxy().drop_connections();
    mirror.once().await.expect_code(0);
    for owner in &owners {
        assert_eq!(look::refs(&mirror.url_at(&hanging, &owner.d)).await, owner.work.refs());
    }
}
