//! The kit itself, against real servers: what a maintainer publishes is there, and faults are felt.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use grasp_mirror_testkit::{Fault, Owner, Person, Server, TestRelay, look};
use nostr::filter::Filter;

#[tokio::test]
async fn a_published_repository_is_served_and_survives_a_restart() {
    let relay = TestRelay::start().await;
    let mut server = Server::start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.annotated_tag("v1");
    owner.work.branch("topic");
    owner.work.commit("topic", "1");
    owner.work.switch("main");
    let listing = owner.announcement().at(&server);
    let published = owner.publish(listing, &server).await;

    assert!(look::serves(&server, &published.state).await);
    assert_eq!(relay.served(Filter::new().author(owner.public_key())).await, [published.announcement]);
    assert_eq!(look::refs(&owner.url_at(&server)).await, owner.work.refs());
    let clone = look::clone(&owner.url_at(&server)).await;
    assert_eq!(clone.git(&["rev-parse", "refs/heads/topic"]).await, owner.work.rev("topic"));

    // A rewind, a new branch and a deleted one in one push.
    owner.work.commit("later", "2");
    owner.work.commit("still later", "3");
    owner.update(&server).await;
    owner.work.rewind(1);
    owner.work.branch("other");
    owner.work.delete_branch("topic");
    owner.work.commit("other", "4");
    owner.update(&server).await;
    assert_eq!(look::refs(&owner.url_at(&server)).await, owner.work.refs());

    server.stop().await;
    server.resume().await;
    assert_eq!(look::refs(&owner.url_at(&server)).await, owner.work.refs());
    server.kill();
    server.resume().await;
    assert_eq!(look::refs(&owner.url_at(&server)).await, owner.work.refs());
}

#[tokio::test]
async fn a_conversation_is_accepted() {
    let server = Server::start().await;
    let owner = Owner::new("talk");
    let listing = owner.announcement().at(&server);
    owner.publish(listing, &server).await;
    let (guest, a) = (Person::new(), owner.coordinate());

    let issue = guest.issue(&a, "It breaks");
    let patch = guest.patch(&a, "From 0000");
    let comment = owner.comment(&issue, &issue, "Where?");
    let nested = guest.comment(&issue, &comment, "Here");
    let status = owner.status(1632, &a, &issue);
    let reaction = guest.reaction(&issue, "+");
    for event in [issue, patch, comment, nested, status, reaction] {
        server.send(&event).await.expect_accepted();
        assert!(look::serves(&server, &event).await, "{}", event.kind);
    }
}

#[tokio::test]
async fn a_server_refuses_what_its_announcement_does_not_list() {
    let server = Server::start().await;
    let owner = Owner::new("elsewhere");
    let answer = server.send(&owner.sign_announcement(owner.announcement())).await;
    assert!(!answer.accepted && answer.message.contains("must list service"), "{answer:?}");
}

#[tokio::test]
async fn a_proxy_counts_and_breaks() {
    let server = Server::builder().behind_proxy().start().await;
    let owner = Owner::new("counted");
    let listing = owner.announcement().at(&server);
    owner.publish(listing, &server).await;
    let seen = server.proxy().seen();
    assert_eq!(seen.count("POST", "git-receive-pack"), 1, "{seen:?}");
    assert_eq!(seen.verb("EVENT").len(), 2, "{seen:?}");
    assert!(seen.connections > 3 && seen.up_bytes > 500 && seen.down_bytes > 500, "{seen:?}");

    server.proxy().reset();
    let url = owner.url_at(&server);
    for fault in [Fault::Refuse, Fault::Garbage, Fault::Status(503), Fault::CutDown(60), Fault::CutUp(20)] {
        server.proxy().fault_on("info/refs", fault);
        assert!(look::refs(&url).await.is_empty(), "{fault:?}");
        server.proxy().heal();
        assert_eq!(look::refs(&url).await, owner.work.refs());
    }
    server.proxy().fault(Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_secs(1), look::refs(&url)).await.is_err());
    server.proxy().drop_connections();
    server.proxy().heal();
    server.proxy().fault(Fault::Slow(1000));
    let start = Instant::now();
    assert_eq!(look::refs(&url).await, owner.work.refs());
    assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
}

/// A state that renames the default branch and moves it on: git refuses the push that would make the refs
/// exact, and what helps instead.
#[tokio::test]
async fn a_deleted_default_branch_needs_its_objects_on_the_server_without_it() {
    let server = Server::start().await;
    for state_first in [true, false] {
        let owner = Owner::new("renamed");
        let listing = owner.announcement().at(&server);
        owner.publish(listing, &server).await;
        let url = owner.url_at(&server);
        owner.work.git(&["branch", "--move", "main", "trunk"]);
        owner.work.commit(if state_first { "a" } else { "b" }, "1");
        let state = owner.state();
        if state_first {
            assert!(server.send(&state).await.expect_accepted().message.contains("purgatory"));
            let refused = owner.work.push_all(&url).await.unwrap_err();
            assert!(refused.contains("deletion of the current branch prohibited"), "{refused}");
            assert!(!look::serves(&server, &state).await);
        }

        let objects = format!("{}:refs/nostr/{}", owner.work.rev("trunk"), state.id.to_hex());
        owner.work.push(&url, &objects).await.unwrap();
        server.send(&state).await.expect_accepted();
        look::wait_until("the state is served", async || look::serves(&server, &state).await).await;
        assert_eq!(look::refs(&url).await, owner.work.refs());
        owner.work.push(&url, &format!(":refs/nostr/{}", state.id.to_hex())).await.unwrap();
        assert_eq!(look::ls_remote(&url).await.len(), 2, "HEAD and trunk, nothing left behind");
    }
}
