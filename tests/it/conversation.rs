//! The conversation around a repository is kept with it: issues, patches, comments on comments, statuses,
//! reactions, and pull requests with their commits, on every server.

use grasp_mirror_testkit::{Mirror, Owner, Person, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn five_kinds_and_a_pull_request_reach_every_server() {
    let (a, b, c, far) = tokio::join!(Server::start(), Server::start(), Server::start(), Server::start());
    let relay = TestRelay::start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a).relay(relay.url());
    owner.publish(listing, &a).await;

    // Said in different places, as people do.
    let (guest, coordinate) = (Person::new(), owner.coordinate());
    let issue = guest.issue(&coordinate, "It breaks");
    let patch = guest.patch(&coordinate, "From 0000000000000000000000000000000000000000");
    let comment = owner.comment(&issue, &issue, "Where?");
    let nested = guest.comment(&issue, &comment, "Here");
    let status = owner.status(1632, &coordinate, &issue);
    let reaction = guest.reaction(&nested, "+");
    for event in [&issue, &comment, &status] {
        a.send(event).await.expect_accepted();
    }
    for event in [&patch, &nested, &reaction] {
        relay.send(event).await.expect_accepted();
    }

    // The commit of the pull request is in a repository of its author's, on a server nobody else uses.
    let fork = Owner::new("a-fork");
    let commit = fork.work.commit("change", "better\n");
    fork.publish(fork.announcement().at(&far), &far).await;
    let request = fork.pull_request(&coordinate, &commit, &fork.url_at(&far));
    relay.send(&request).await.expect_accepted();
    assert_ne!(owner.work.rev("main"), commit);

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    for server in [&a, &b, &c] {
        for event in [&issue, &patch, &comment, &nested, &status, &reaction, &request] {
            assert!(look::serves(server, event).await, "kind {} at {}", event.kind, server.url());
        }
    }
    let pull = format!("refs/nostr/{}", request.id.to_hex());
    for url in [owner.url_at(&a), mirror.url_at(&b, "hello"), mirror.url_at(&c, "hello")] {
        assert_eq!(look::ls_remote(&url).await.get(&pull), Some(&commit), "{url}");
        look::clone(&url).await;
    }
}

#[tokio::test]
async fn what_its_author_has_protected_deleted_or_let_expire_stays_where_it_is() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a).relay(relay.url());
    owner.publish(listing, &a).await;
    let (guest, coordinate) = (Person::new(), owner.coordinate());

    let protected = guest.sign(1621, "for this relay only", &[&["a", &coordinate], &["-"]]);
    let soon = nostr::types::Timestamp::now().as_secs() + 2;
    let expiring = guest.sign(1621, "gone soon", &[&["a", &coordinate], &["expiration", &soon.to_string()]]);
    let regretted = guest.issue(&coordinate, "a mistake");
    let kept = guest.issue(&coordinate, "no mistake");
    for event in [&protected, &expiring, &kept] {
        relay.send(event).await;
    }
    // The deletion is known before the event turns up somewhere else.
    relay.send(&guest.delete(&regretted)).await.expect_accepted();
    a.send(&regretted).await.expect_accepted();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert!(look::serves(&b, &kept).await);
    for event in [&protected, &expiring, &regretted] {
        assert!(!look::serves(&b, event).await, "{}", event.content);
    }
}
