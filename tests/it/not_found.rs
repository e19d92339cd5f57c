//! What is watched and cannot be found is not called in sync, and people are told where it was looked for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Mirror, Owner, Protocol, Server, TestRelay, free_port, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_repository_that_nobody_announces_is_told_until_it_is_there() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let dead = format!("ws://127.0.0.1:{}", free_port());
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).uses(&dead).inbox(&relay);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let watch = format!("watch {}/hello", owner.npub());
    let answer = ada.answer_to(Protocol::Nip17, &watch).await;
    assert!(answer.contains("no announcement of it yet. Is the name right?"), "{answer}");
    look::wait_until("the report tells of it", async || {
        mirror.status_json().await["not_found"]["repos"][0] == owner.coordinate()
    })
    .await;
    mirror.status().await.expect_code(2);
    for question in ["status", "why hello", "status hello"] {
        let answer = ada.answer_to(Protocol::Nip17, question).await;
        for part in ["No announcement found of:\n• hello by npub1", "on 1 server and 1 relay.", &dead] {
            assert!(answer.contains(part), "{question}: {answer}");
        }
    }
    let answer = ada.answer_to(Protocol::Nip17, "list").await;
    assert!(answer.contains("…") && answer.ends_with(": no announcement found"), "{answer}");
    let plan = mirror.plan().await.expect_code(0).stdout;
    assert!(plan.contains("nobody announces it"), "{plan}");

    owner.publish(owner.announcement().at(&a), &a).await;
    look::wait_until("it is found", async || {
        let status = mirror.status_json().await;
        status["totals"]["in_sync"] == 1 && status.get("not_found").is_none()
    })
    .await;
    mirror.status().await.expect_code(0);
    let answer = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(answer.starts_with("✓ 1 of 1 mirror in sync") && !answer.contains("announcement"), "{answer}");

    // One of an author who is watched, too.
    for (question, part) in [
        (format!("watch {}", owner.npub()), "Watching npub1"),
        (format!("watch {}/helo", owner.npub()), "no announcement of it yet"),
        (format!("unwatch {}/helo", owner.npub()), "No longer watching helo"),
        (format!("unwatch {}/hello", owner.npub()), "is still mirrored, because I watch its author"),
    ] {
        let answer = ada.answer_to(Protocol::Nip17, &question).await;
        assert!(answer.contains(part), "{question}: {answer}");
    }
    daemon.stop().await;
}

/// Somebody who has nothing is in sync, but only where that could be seen.
#[tokio::test]
async fn nothing_is_called_in_sync_while_nobody_can_be_asked() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    let dead = || format!("ws://127.0.0.1:{}", free_port());
    let mirror = || Mirror::new(BINARY).watches(&owner);
    mirror().knows(&a).uses(&relay).once().await.expect_code(0);
    let (server, other) = (dead(), dead());
    let all_down = mirror().knows_url(&server).uses(&other);
    let said = all_down.once().await.expect_code(2).stdout;
    for part in ["any repository of npub1", "on 0 servers and 0 relays", &server, &other] {
        assert!(said.contains(part), "{part}: {said}");
    }
    all_down.status().await.expect_code(2);
    mirror().knows(&a).uses(dead()).once().await.expect_code(2);
    mirror().knows_url(&dead()).uses(&relay).once().await.expect_code(2);
    let one_of_two = mirror().knows(&a).uses(&relay).uses(dead());
    let said = one_of_two.once().await.expect_code(0).stdout;
    assert!(said.contains("on 1 server and 1 relay"), "{said}");
}
