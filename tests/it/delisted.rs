//! An owner takes a server off the list: it leaves the repository at once, and says no to the announcement that says so.
//! The bot says it again, so that the copy there has the conversation, too.

use grasp_mirror_testkit::{Announcement, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// How often an event with this id went through.
fn sent(server: &Server, id: &str) -> usize {
    server
        .proxy()
        .seen()
        .verb("EVENT")
        .iter()
        .filter(|text| text.contains(&format!("\"id\":\"{id}\"")))
        .count()
}

/// Whether owners who lead, or do not, find their conversation at the server that they took off the list.
async fn keeps_the_conversation(leads: bool) {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let key = owner.public_key();
    let tagged = |announcement: Announcement| if leads { announcement.lead(&key) } else { announcement };
    owner.publish(tagged(owner.announcement().at(&a).at(&b)), &a).await;
    let issue = owner.issue(&owner.coordinate(), "Something");
    a.send(&issue).await.expect_accepted();
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    assert!(look::serves(&b, &issue).await);

    let (elsewhere, answer) = owner.announce(tagged(owner.announcement().at(&a)), &a).await;
    answer.expect_accepted();
    // The lead's word governs the copy, so that one is not in sync without it.
    mirror.once().await.expect_code(if leads { 2 } else { 0 });
    assert_eq!(sent(&b, &elsewhere.id.to_hex()), 1);
    assert!(!look::serves(&b, &elsewhere).await && !look::serves(&b, &issue).await);
    assert!(look::refs(&owner.url_at(&b)).await.is_empty(), "it does as it is told");
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert_eq!(sent(&b, &elsewhere.id.to_hex()), 2, "once, and once more");
    for event in [&elsewhere, &issue] {
        assert!(look::serves(&b, event).await, "{}", event.kind);
    }
    let later = owner.issue(&owner.coordinate(), "Something else");
    a.send(&later).await.expect_accepted();
    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &later).await);
    assert_eq!(sent(&b, &elsewhere.id.to_hex()), 2);
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}

#[tokio::test]
async fn the_copy_of_a_repository_without_a_lead_keeps_its_conversation() {
    keeps_the_conversation(false).await;
}

#[tokio::test]
async fn the_copy_that_follows_a_lead_keeps_its_conversation() {
    keeps_the_conversation(true).await;
}
