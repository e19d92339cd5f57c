//! Where the owner's announcement names a lead, the bot's copy follows the lead's own signed state: the bot signs none.
//! When the owner's tags change, copies move between the two ways, and are served all the time.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
use nostr::{event::Event, filter::Filter};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

async fn of_the_bot(mirror: &Mirror, server: &Server, kind: u16) -> Vec<Event> {
    server.served(Filter::new().author(mirror.bot_pubkey()).kind(kind.into())).await
}

fn has(event: &Event, name: &str, value: &str) -> bool {
    event.tags.iter().any(|tag| tag.as_slice().iter().take(2).eq([name, value]))
}

async fn placements(mirror: &Mirror) -> String {
    mirror.run(&["plan", "--json"]).await.stdout
}

#[tokio::test]
async fn a_copy_follows_the_lead_and_moves_when_the_owners_tags_change() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let key = owner.public_key();
    owner.work.annotated_tag("v1");
    let published = owner.publish(owner.announcement().at(&a).lead(&key), &a).await;
    let issue = owner.issue(&owner.coordinate(), "Something");
    a.send(&issue).await.expect_accepted();
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let url = mirror.url_at(&b, "hello");

    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
    look::clone(&url).await;
    for event in [&published.announcement, &published.state, &issue] {
        assert!(look::serves(&b, event).await, "{}", event.kind);
    }
    assert_eq!(of_the_bot(&mirror, &b, 30618).await, []);
    let [mine] = &of_the_bot(&mirror, &b, 30617).await[..] else { panic!("one announcement") };
    assert!(has(mine, "M", &key.to_hex()) && has(mine, "u", &owner.coordinate()), "{mine:?}");
    assert!(placements(&mirror).await.contains("\"lead\""));

    // A new state of the lead's is all that is needed.
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
    assert_eq!(of_the_bot(&mirror, &b, 30618).await, []);

    // Nobody leads any more: the bot's own state takes over.
    let (_, answer) = owner.announce(owner.announcement().at(&a), &a).await;
    answer.expect_accepted();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
    assert_eq!(of_the_bot(&mirror, &b, 30618).await.len(), 1);
    assert!(placements(&mirror).await.contains("\"namespace\""));
    owner.work.commit("README.md", "# hello for the third time\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());

    // And back.
    let (_, answer) = owner.announce(owner.announcement().at(&a).lead(&key), &a).await;
    answer.expect_accepted();
    owner.work.commit("README.md", "# hello for the last time\n");
    let last = owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
    assert!(look::serves(&b, &last).await);
    assert!(placements(&mirror).await.contains("\"lead\""));
    mirror.verify().await.expect_code(0);
}

#[tokio::test]
async fn a_co_maintainers_state_counts_where_the_lead_lists_it() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let (lead, helper) = (Owner::new("hello").at_home_on(&relay), Owner::new("hello").at_home_on(&relay));
    let listing = lead.announcement().at(&a).lead(&lead.public_key()).co_maintainer(&helper.public_key());
    lead.publish(listing, &a).await;
    let theirs = helper.announcement().at(&a).lead(&lead.public_key()).co_maintainer(&helper.public_key());
    let (_, answer) = helper.announce(theirs, &a).await;
    answer.expect_accepted();
    lead.work.commit("README.md", "# by a helper\n");
    // Dated after the lead's: each signature is a second later than the one before.
    let [_, _, state] = [(); 3].map(|()| helper.sign_state("hello", &lead.work));
    a.send(&state).await.expect_accepted();
    lead.work.push_all(&lead.url_at(&a)).await.unwrap_or_else(|said| panic!("{said}"));
    relay.send(&state).await.expect_accepted();

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&lead);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, lead.work.refs());
    assert!(look::serves(&b, &state).await);
    assert_eq!(of_the_bot(&mirror, &b, 30618).await, []);
}

/// A server takes the announcement that takes it off the list when it is said once more, since the copy names its lead.
#[tokio::test]
async fn a_server_that_its_lead_takes_off_the_list_has_a_copy_that_follows_it() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let key = owner.public_key();
    owner.publish(owner.announcement().at(&a).at(&b).lead(&key), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());

    let (_, answer) = owner.announce(owner.announcement().at(&a).lead(&key), &a).await;
    answer.expect_accepted();
    mirror.once().await;
    mirror.once().await.expect_code(0);
    assert!(placements(&mirror).await.contains("\"lead\""));
    let url = mirror.url_at(&b, "hello");
    assert_eq!(look::refs(&url).await, owner.work.refs());
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
}
