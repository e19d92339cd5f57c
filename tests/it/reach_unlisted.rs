//! A server the owner has never listed gets a copy under the bot's name, and the owner's own signed events.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
use nostr::{event::Event, filter::Filter};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

fn tag<'event>(event: &'event Event, name: &str) -> &'event [String] {
    event
        .tags
        .iter()
        .map(|tag| tag.as_slice())
        .find(|tag| tag.first().is_some_and(|kind| kind == name))
        .unwrap_or(&[])
}

#[tokio::test]
async fn every_known_server_serves_the_repository() {
    let (a, b, c) = tokio::join!(Server::start(), Server::start(), Server::start());
    let relay = TestRelay::start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.annotated_tag("v1");
    owner.work.branch("topic");
    owner.work.commit("topic", "1");
    owner.work.switch("main");
    let euc = owner.work.rev("main");
    let listing = owner.announcement().at(&a).tag(&["r", &euc, "euc"]).tag(&["web", "https://example.org"]);
    let published = owner.publish(listing, &a).await;

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    for server in [&b, &c] {
        let url = mirror.url_at(server, "hello");
        let clone = look::clone(&url).await;
        assert_eq!(look::refs(&url).await, owner.work.refs());
        assert_eq!(clone.git(&["symbolic-ref", "HEAD"]).await, "refs/heads/main");
        assert!(look::serves(server, &published.announcement).await);
        assert!(look::serves(server, &published.state).await);

        let mine = server.served(Filter::new().author(mirror.bot_pubkey()).kind(30617.into())).await;
        let [mine] = mine.as_slice() else { panic!("one announcement of the bot, not {mine:?}") };
        assert_eq!(tag(mine, "u")[1], owner.coordinate());
        assert_eq!(tag(mine, "maintainers")[1..], [owner.public_key().to_hex()]);
        assert_eq!(tag(mine, "r"), ["r", &euc, "euc"]);
        assert_eq!(tag(mine, "web"), ["web", "https://example.org"]);
        for place in [&b, &c] {
            let (clone, relays) = (tag(mine, "clone"), tag(mine, "relays"));
            assert!(clone.contains(&mirror.url_at(place, "hello")), "{clone:?}");
            assert!(relays.iter().any(|relay| relay.trim_end_matches('/') == place.url()), "{relays:?}");
        }
    }
    assert_eq!(look::refs(&owner.url_at(&a)).await, owner.work.refs());

    let status = mirror.status_json().await;
    assert_eq!(status["totals"]["repos"], 1);
    assert_eq!(status["totals"]["mirrors"], 3);
    assert_eq!(status["totals"]["in_sync"], 3);
    let repo = mirror.status_of(&owner.coordinate()).await;
    assert_eq!((&repo["copies"], &repo["wanted"]), (&3.into(), &3.into()));
    assert_eq!(repo["state"], published.state.id.to_hex());

    // The report that everyone can read says the same.
    let wanted =
        Filter::new().author(mirror.bot_pubkey()).kind(30078.into()).identifier("grasp-mirror/status");
    let reports = relay.served(wanted).await;
    let [report] = reports.as_slice() else { panic!("one report, not {reports:?}") };
    let report: serde_json::Value = serde_json::from_str(&report.content).unwrap();
    assert_eq!(report["totals"], status["totals"]);
}

#[tokio::test]
async fn a_new_state_reaches_the_copies() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("one", "1");
    let listing = owner.announcement().at(&a);
    owner.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let url = mirror.url_at(&b, "hello");

    // First forward with a new branch, then back.
    owner.work.commit("two", "2");
    owner.work.branch("topic");
    owner.work.switch("main");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());

    owner.work.rewind(1);
    owner.work.delete_branch("topic");
    let state = owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
    assert!(look::serves(&b, &state).await);
}

#[tokio::test]
async fn an_empty_disk_and_the_same_key_end_in_the_same_place() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a);
    owner.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let mirror = mirror.on_a_new_machine();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert_eq!(mirror.status_json().await["totals"]["in_sync"], 2);
}
