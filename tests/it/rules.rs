//! What a message denies is not mirrored any more, on this machine and on the next; what it has stays where it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Chat, Mirror, Owner, Protocol, Scene, look};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    filter::Filter,
    prelude::Nip44,
    types::Timestamp,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const POLICY: &str = "grasp-mirror/policy";

/// The problems of the owner's repository, as (server, status, reason); none before a cycle has seen it.
async fn problems(mirror: &Mirror, owner: &Owner) -> Vec<(String, String, String)> {
    let status = mirror.status_json().await;
    let mut repos = status["repos"].as_array().into_iter().flatten();
    let Some(repo) = repos.find(|repo| repo["a"] == owner.coordinate()) else { return Vec::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = repo["problems"].as_array().into_iter().flatten();
    each.map(|problem| (text(&problem["server"]), text(&problem["status"]), text(&problem["reason"])))
        .collect()
}

/// Waits until all mirrors of the owner's repository are blocked.
async fn are_blocked(mirror: &Mirror, owner: &Owner, mirrors: usize) -> Vec<(String, String, String)> {
    look::wait_until("its mirrors are blocked", async || {
        let problems = problems(mirror, owner).await;
        problems.len() == mirrors && problems.iter().all(|(_, status, _)| status == "blocked")
    })
    .await;
    problems(mirror, owner).await
}

async fn answered(ada: &Chat, question: &str, parts: &[&str]) {
    let answer = ada.answer_to(Protocol::Nip17, question).await;
    for part in parts {
        assert!(answer.contains(part), "{question:?} was answered without {part:?}:\n{answer}");
    }
}

/// The bot's event with the rules, as the relay has it; and what it says.
async fn rules(scene: &Scene, mirror: &Mirror) -> Option<(Event, Value)> {
    let filter = Filter::new().author(mirror.bot_pubkey()).kind(Kind::from(30078)).identifier(POLICY);
    let event = scene.relay.served(filter).await.pop()?;
    let content = mirror.keys.nip44_decrypt(&mirror.bot_pubkey(), &event.content).unwrap();
    Some((event, serde_json::from_str(&content).unwrap()))
}

#[tokio::test]
async fn what_a_message_denies_stays_denied_on_a_new_machine_until_a_message_allows_it() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    let (mirror, ada) = scene.mirror(BINARY).watches(owner).commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    assert!(scene.is_copied_by(&mirror).await);
    let before = owner.work.refs();

    let npub = owner.npub();
    answered(&ada, "deny hello", &["Denied: hello by", "stays", &format!("allow {npub}/hello")]).await;
    answered(&ada, "deny hello", &["denied already"]).await;
    for (_, _, reason) in are_blocked(&mirror, owner, 2).await {
        assert!(reason.starts_with("denied by message: 30617:"), "{reason}");
    }
    answered(&ada, "why hello", &[&scene.b.authority(), "blocked", "denied by message"]).await;
    answered(&ada, "status hello", &["blocked"]).await;
    answered(&ada, "list", &["Denied (1)", "hello by"]).await;
    let (event, said) = rules(&scene, &mirror).await.unwrap();
    assert!(!event.content.contains("30617"), "nobody else reads it");
    assert_eq!(said["deny"], serde_json::json!([owner.coordinate()]));

    // Nothing more is sent; what is there stays.
    owner.work.commit("later.txt", "more");
    let state = owner.update(&scene.a).await;
    ada.resync("resync").await;
    assert_eq!(look::refs(&mirror.url_at(&scene.b, "hello")).await, before);
    assert!(!look::serves(&scene.b, &state).await);
    daemon.stop().await;

    let mirror = mirror.on_a_new_machine().without_seeds();
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    are_blocked(&mirror, owner, 2).await;
    let local = mirror.data_dir().join("git").join(&npub);
    assert!(!local.exists(), "nothing was fetched");
    assert_eq!(look::refs(&mirror.url_at(&scene.b, "hello")).await, before);
    answered(&ada, "list", &["Denied (1)", "hello by"]).await;

    answered(&ada, &format!("allow {npub}/hello"), &["Allowed again: hello by"]).await;
    look::wait_until("it is mirrored again", async || look::serves(&scene.b, &state).await).await;
    answered(&ada, "allow hello", &["not denied"]).await;
    let (_, said) = rules(&scene, &mirror).await.unwrap();
    assert_eq!(said["deny"], serde_json::json!([]));
    daemon.stop().await;
}

#[tokio::test]
async fn servers_and_people_too_and_what_the_configuration_denies_stays_denied() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    let banned = Owner::new("banned").at_home_on(&scene.relay);
    banned.publish(banned.announcement().at(&scene.a), &scene.a).await;
    let mirror = scene.mirror(BINARY).watches(owner).set("policy.deny", vec![banned.npub()]);
    let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    assert!(scene.is_copied_by(&mirror).await);

    // A server: what is wanted is in sync, and the pair is told as blocked.
    let server = scene.b.url();
    answered(&ada, &format!("deny {}", scene.b.authority()), &["Denied: ws://", "what it has stays"]).await;
    let blocked = are_blocked(&mirror, owner, 1).await;
    assert_eq!(blocked.first().map(|(at, ..)| at.as_str()), Some(server.as_str()));
    let repo = mirror.status_of(&owner.coordinate()).await;
    assert_eq!((repo["copies"].as_u64(), repo["wanted"].as_u64()), (Some(1), Some(1)), "{repo:#}");
    answered(&ada, "status", &["✓ 1 of 1 mirror in sync"]).await;
    answered(&ada, "why hello", &["in sync (listed)", &scene.b.authority(), "blocked", "denied by message"])
        .await;
    answered(&ada, "servers", &[&scene.b.authority(), "not used: blocked: denied by message"]).await;
    owner.work.commit("later.txt", "more");
    let state = owner.update(&scene.a).await;
    ada.resync("resync").await;
    assert!(!look::serves(&scene.b, &state).await);
    answered(&ada, &format!("allow {server}"), &["Allowed again"]).await;
    look::wait_until("it is mirrored again", async || look::serves(&scene.b, &state).await).await;

    // A person: denied by message, and by the configuration.
    answered(&ada, &format!("deny {}", owner.npub()), &["Denied: npub1"]).await;
    are_blocked(&mirror, owner, 2).await;
    answered(&ada, "allow hello", &["stays denied", &format!("Send: allow {}", owner.npub())]).await;
    answered(&ada, &format!("allow {}", owner.npub()), &["Allowed again"]).await;
    answered(
        &ada,
        &format!("watch {}", banned.npub()),
        &["Watching", "nothing of it is mirrored", "[policy] deny"],
    )
    .await;
    for (_, _, reason) in are_blocked(&mirror, &banned, 2).await {
        assert_eq!(reason, format!("[policy] deny names {}", banned.npub()));
    }
    for about in [banned.npub(), format!("{}/banned", banned.npub())] {
        answered(&ada, &format!("allow {about}"), &["stays denied", "no message can change that"]).await;
    }
    answered(&ada, &format!("deny {}", banned.npub()), &["denied already", "config.toml"]).await;
    answered(&ada, "list", &["Denied by config.toml (1)"]).await;
    let copies = scene.b.served(Filter::new().kind(Kind::from(30617)).identifier("banned")).await;
    assert!(copies.is_empty(), "{copies:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn rules_from_another_client_are_obeyed_and_what_it_wrote_stays() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    let (mirror, ada) = scene.mirror(BINARY).watches(owner).commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    let content = serde_json::json!({ "deny": [owner.npub(), "something newer"], "allow": [] }).to_string();
    let elsewhere = EventBuilder::new(
        Kind::from(30078),
        mirror.keys.nip44_encrypt(&mirror.bot_pubkey(), &content).unwrap(),
    )
    .tag(Tag::identifier(POLICY))
    .custom_created_at(Timestamp::now())
    .finalize(&mirror.keys)
    .unwrap();
    scene.relay.send(&elsewhere).await.expect_accepted();
    are_blocked(&mirror, owner, 2).await;
    answered(&ada, &format!("deny {}", scene.b.url()), &["Denied"]).await;
    look::wait_until("both are in the event", async || {
        let said = rules(&scene, &mirror).await.map(|(_, said)| said["deny"].clone());
        said == Some(serde_json::json!([owner.npub(), scene.b.url(), "something newer"]))
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_command_line_denies_and_allows_beside_the_daemon_and_without_it() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    let mirror = scene.mirror(BINARY).watches(owner);
    mirror.once().await.expect_code(0);
    let denied = mirror.run(&["deny", "hello"]).await.expect_code(0);
    assert!(denied.stdout.starts_with("Denied: hello by"), "{}", denied.stdout);
    mirror.once().await.expect_code(0);
    are_blocked(&mirror, owner, 2).await;
    let json = mirror.run(&["allow", &owner.coordinate(), "--json"]).await.expect_code(0).json();
    assert_eq!((json["changed"].as_bool(), json["rule"].as_str()), (Some(true), Some(&*owner.coordinate())));
    mirror.once().await.expect_code(0);

    let daemon = mirror.daemon().await;
    mirror.run(&["deny", &scene.b.url()]).await.expect_code(0);
    are_blocked(&mirror, owner, 1).await;
    daemon.stop().await;
    let wrong = mirror.run(&["deny", "no such thing"]).await.expect_code(1);
    assert!(wrong.stderr.contains("no such thing"), "{}", wrong.stderr);
    let by_config = mirror.set("policy.deny", vec![owner.npub()]);
    let refused = by_config.run(&["allow", &owner.npub()]).await.expect_code(2);
    assert!(refused.stdout.contains("no message can change that"), "{}", refused.stdout);
}
