//! Servers that only an announcement names: used when the operator says so, and left alone otherwise.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_announced_server_is_used_only_with_discover() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a).at(&b), &a).await;

    let shy = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    shy.once().await.expect_code(0);
    assert!(!look::serves(&b, &published.announcement).await);

    // An address that only an event names must be a public one, and this one is not.
    let guarded = Mirror::new(BINARY)
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .set("servers.discover", true)
        .set("network.allow_private_addresses", false);
    guarded.once().await.expect_code(0);
    assert!(!look::serves(&b, &published.announcement).await);

    let curious = Mirror::new(BINARY)
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .set("servers.discover", true)
        .set("network.allow_private_addresses", true);
    curious.once().await.expect_code(0);
    assert!(look::serves(&b, &published.state).await);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
}

#[tokio::test]
async fn so_is_one_that_a_watched_author_lists_for_all_repositories() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let list = owner.sign(10317, "", &[&["g", &b.url()]]);
    relay.send(&list).await.expect_accepted();
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    mirror.set("servers.discover", true).once().await.expect_code(0);
    let copies = b.served(nostr::filter::Filter::new().kind(30617.into())).await;
    assert_eq!(copies.len(), 2, "the owner's announcement and the bot's");
}

#[tokio::test]
async fn a_list_is_heard_between_cycles() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner).set("servers.discover", true);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    relay.send(&owner.sign(10317, "", &[&["g", &b.url()]])).await.expect_accepted();
    look::wait_until("the new server has a copy", async || {
        look::refs(&mirror.url_at(&b, "hello")).await == owner.work.refs()
    })
    .await;
    daemon.stop().await;
}

/// Nobody can make the bot use any number of servers.
#[tokio::test]
async fn no_more_are_taken_than_a_list_and_all_lists_together_may_name() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mut mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner).set("servers.discover", true);
    // The same address with many names: nobody listens there.
    let lists = |count: usize, of: usize| {
        let named = (0..count).map(|number| format!("ws://127.{of}.0.{}:1", number + 1));
        named.map(|url| ["g".to_owned(), url]).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for authors in 1..=5 {
        let other = grasp_mirror_testkit::Person::new();
        let tags = lists(20, authors);
        let tags: Vec<Vec<&str>> = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
        let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
        relay.send(&other.sign(10317, "", &tags)).await.expect_accepted();
        mirror = mirror.watches(&other);
        mirror.once().await;
        let status = mirror.status_json().await;
        found.push(status["servers"].as_array().unwrap().len() - 1);
    }
    assert_eq!(found, [16, 32, 48, 64, 64]);
}

#[tokio::test]
async fn one_that_is_denied_stays_in_the_report_with_the_rule() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let [listed, other] = ["listed", "other"].map(|d| Owner::new(d).at_home_on(&relay));
    listed.publish(listed.announcement().at(&a).at(&b), &a).await;
    other.publish(other.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&listed).watches(&other);
    let mirror = mirror.set("servers.discover", true);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "other")).await, other.work.refs());

    mirror.run(&["deny", &b.url()]).await.expect_code(0);
    listed.work.commit("later.txt", "more");
    let state = listed.update(&a).await;
    mirror.once().await.expect_code(0);
    assert!(!look::serves(&b, &state).await);
    let rule = format!("denied by message: {0} (to take it back, send: allow {0})", b.url());
    for owner in [&listed, &other] {
        let repo = mirror.status_of(&owner.coordinate()).await;
        let problem = &repo["problems"][0];
        assert_eq!(
            (&problem["server"], &problem["status"]),
            (&b.url().into(), &"blocked".into()),
            "{repo:#}"
        );
        assert_eq!(problem["reason"], rule, "{repo:#}");
    }
    let status = mirror.status_json().await;
    let servers = status["servers"].as_array().into_iter().flatten();
    let unused: Vec<_> = servers.filter(|server| server["unused"] == format!("blocked: {rule}")).collect();
    assert_eq!(unused.len(), 1, "{status:#}");
    let plan = mirror.run(&["plan", "listed"]).await.expect_code(0).stdout;
    assert!(plan.contains("denied by message"), "{plan}");

    mirror.run(&["allow", &b.url()]).await.expect_code(0);
    mirror.once().await.expect_code(0);
    assert_eq!(mirror.status_of(&listed.coordinate()).await["problems"], serde_json::json!([]));
    assert!(look::serves(&b, &state).await);
}
