//! An owner who lists the bot as a co-maintainer: the bot accepts, and its own announcement carries the servers that the
//! owner's does not list. The owner's own signed state governs them.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
use nostr::{event::Event, filter::Filter};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

async fn of_the_bot(mirror: &Mirror, server: &Server, kind: u16) -> Vec<Event> {
    server.served(Filter::new().author(mirror.bot_pubkey()).kind(kind.into())).await
}

fn names(event: &Event, name: &str) -> bool {
    event.tags.iter().any(|tag| tag.kind() == name)
}

#[tokio::test]
async fn a_bot_that_is_listed_as_a_maintainer_lists_the_owner_back() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    owner.publish(owner.announcement().at(&a), &a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(of_the_bot(&mirror, &b, 30618).await.len(), 1);

    let listing = owner.announcement().at(&a).maintainer(&mirror.bot_pubkey());
    let (_, answer) = owner.announce(listing, &a).await;
    answer.expect_accepted();
    mirror.once().await.expect_code(0);
    let plan = mirror.run(&["plan", "--json"]).await.stdout;
    assert!(plan.contains("\"signed\"") && !plan.contains("\"namespace\""), "{plan}");
    for server in [&a, &b] {
        let [mine] = &of_the_bot(&mirror, server, 30617).await[..] else { panic!("one announcement") };
        assert!(names(mine, "maintainers") && !names(mine, "u"), "{mine:?}");
        let clone = mine.tags.iter().find(|tag| tag.kind() == "clone").and_then(|tag| tag.content());
        assert_eq!(clone, Some(mirror.url_at(&b, "hello").as_str()));
    }

    let [mine] = &relay.served(Filter::new().author(mirror.bot_pubkey()).kind(30617.into())).await[..] else {
        panic!("one announcement")
    };
    assert!(names(mine, "maintainers"), "{mine:?}");

    // The owner's next state is followed without one of the bot's.
    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &state).await);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let of_bot = of_the_bot(&mirror, &b, 30618).await;
    assert!(of_bot.iter().all(|old| old.created_at < state.created_at), "{of_bot:?}");
    mirror.verify().await.expect_code(0);

    // And no longer.
    let (_, answer) = owner.announce(owner.announcement().at(&a), &a).await;
    answer.expect_accepted();
    owner.work.commit("README.md", "# hello for the last time\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert!(mirror.run(&["plan", "--json"]).await.stdout.contains("\"namespace\""));
}

#[tokio::test]
async fn a_fresh_copy_needs_no_state_of_the_bots() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let published = owner.publish(owner.announcement().at(&a).maintainer(&mirror.bot_pubkey()), &a).await;
    let issue = owner.issue(&owner.coordinate(), "Something");
    a.send(&issue).await.expect_accepted();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert_eq!(of_the_bot(&mirror, &b, 30618).await, []);
    for event in [&published.announcement, &published.state, &issue] {
        assert!(look::serves(&b, event).await, "{}", event.kind);
    }
}
