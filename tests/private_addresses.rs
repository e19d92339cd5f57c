//! An address that only an event names must be a public one: the bot does not knock inside the operator's
//! network for strangers, neither for git data nor for events, nor for anyone to deliver an answer.

use grasp_mirror_testkit::{Chat, Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn only_configured_addresses_may_be_private() {
    let start = || Server::builder().behind_proxy().start();
    let (a, inside, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let port = inside.authority().rsplit(':').next().map(str::to_owned).unwrap_or_default();
    let listing = owner
        .announcement()
        .at(&inside)
        .clone_url(&format!("http://localhost:{port}/x.git"))
        .clone_url(&format!("http://[::ffff:127.0.0.1]:{port}/x.git"))
        .clone_url(&format!("http://0x7f.1:{port}/x.git"))
        .relay(&format!("ws://localhost:{port}"));
    owner.publish(listing.clone(), &inside).await;
    inside.proxy().drop_connections();
    inside.proxy().reset();

    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    let mirror = mirror.set("network.allow_private_addresses", false);
    relay.send(&owner.state()).await.expect_accepted();
    mirror.once().await.expect_code(2);
    assert_eq!(inside.proxy().seen().connections, 0, "{:?}", inside.proxy().seen());
    let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
    let told = problem["reason"].as_str().is_some_and(|why| why.contains("allow_private_addresses"));
    assert!(told, "{problem}");

    // What the operator configured is fine wherever it is.
    owner.publish(listing.at(&a), &a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&a)).await, owner.work.refs());
    assert_eq!(inside.proxy().seen().connections, 0);
}

#[tokio::test]
async fn no_answer_is_delivered_to_a_private_address() {
    let (relay, inside) = tokio::join!(TestRelay::start(), TestRelay::start());
    let knocks = inside.proxied().await;
    let mirror = Mirror::new(BINARY).uses(&relay).set("network.allow_private_addresses", false);
    let mallory = Chat::new(&mirror).asks_at(&relay).hears_at(&knocks);
    mallory.introduce(&relay).await;
    let ada = Chat::at(&mirror, &relay).await;
    let mut daemon = mirror.obeys(&mallory).obeys(&ada).daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        mallory.ask(protocol, "version").await;
    }
    // The operator's own relay is fine wherever it is.
    ada.catch_up().await;
    assert!(daemon.is_running());
    daemon.stop().await;
    assert_eq!(knocks.seen().connections, 0);
}
