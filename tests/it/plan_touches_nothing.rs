//! `plan` and `verify` look and say what they see; no server and no relay is sent anything.

use grasp_mirror_testkit::{Mirror, Owner, Proxy, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn plan_and_verify_send_nothing() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let before_relay = Proxy::before(relay.url().trim_start_matches("ws://").parse().unwrap()).await;
    let relay_url = format!("ws://{}", before_relay.address());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .set("bot.relays", vec![relay_url.clone()])
        .set("bot.index_relays", vec![relay_url.clone()])
        .watches(&owner);
    a.proxy().reset();
    let plan = mirror.plan().await.expect_code(0);
    assert!(plan.stdout.contains("namespace") && plan.stdout.contains("send 2 events"), "{}", plan.stdout);
    let json = mirror.run(&["plan", "--json"]).await.expect_code(0).json();
    assert_eq!(json["mirrors"].as_array().unwrap().len(), 2);
    // One of the two mirrors is not there.
    let verify = mirror.run(&["verify", "--json"]).await.expect_code(2).json();
    assert_eq!(verify["mirrors"].as_array().unwrap().iter().filter(|m| m["ok"] == true).count(), 1);

    for seen in [a.proxy().seen(), b.proxy().seen(), before_relay.seen()] {
        assert_eq!(seen.verb("EVENT"), Vec::<&str>::new());
        assert_eq!(seen.count("POST", "git-receive-pack"), 0);
        assert!(seen.connections > 0, "it did look");
    }
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    mirror.verify().await.expect_code(0);
}
