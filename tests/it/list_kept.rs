//! The bot's lists are also other clients': what they wrote into them stays, and nothing replaces a list that the
//! bot has not read.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use grasp_mirror_testkit::{Fault, Mirror, Person, Protocol, TestRelay, look};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    filter::Filter,
    types::Timestamp,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
async fn list(mirror: &Mirror, relay: &TestRelay) -> Option<Event> {
    relay.served(Filter::new().author(mirror.bot_pubkey()).kind(Kind::from(10017))).await.pop()
}

/// Whether the list on `relay` has exactly these people on it.
async fn holds(mirror: &Mirror, relay: &TestRelay, people: &[&Person]) -> bool {
    let Some(list) = list(mirror, relay).await else { return false };
    let listed: Vec<_> = list.tags.public_keys().collect();
    listed.len() == people.len() && people.iter().all(|one| listed.contains(&one.public_key()))
}

#[tokio::test]
async fn what_others_wrote_into_a_list_stays() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let [old, new] = [Person::new(), Person::new()];
    let tags = [
        vec!["p".to_owned(), old.public_key().to_hex(), "wss://relay.example".to_owned(), "Olda".to_owned()],
        vec!["title".to_owned(), "Whom I mirror".to_owned()],
        vec!["p".to_owned(), "no key at all".to_owned()],
    ];
    // Another client, whose clock is fast.
    let elsewhere = EventBuilder::new(Kind::from(10017), "something private")
        .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
        .custom_created_at(Timestamp::now() + Duration::from_secs(300))
        .finalize(&mirror.keys)
        .unwrap();
    relay.send(&elsewhere).await.expect_accepted();
    let daemon = mirror.daemon().await;
    let answer = ada.answer_to(Protocol::Nip17, &format!("watch {}", new.npub())).await;
    assert!(answer.starts_with("Watching"), "{answer}");
    look::wait_until("both are on the list", async || holds(&mirror, &relay, &[&old, &new]).await).await;
    let now = list(&mirror, &relay).await.unwrap();
    assert_eq!(now.content, elsewhere.content);
    for tag in &tags {
        assert!(now.tags.iter().any(|one| one.as_slice() == tag.as_slice()), "{tag:?} in {:?}", now.tags);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_not_replaced() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let [told, seeded] = [Person::new(), Person::new()];
    let daemon = mirror.daemon().await;
    ada.answer_to(Protocol::Nip17, &format!("watch {}", told.npub())).await;
    daemon.stop().await;

    // The disk is gone, the operator's settings are others, and the relay is down for now.
    relay.stop().await;
    let mirror = mirror.on_a_new_machine().watches(&seeded).set("bot.cycle_interval_secs", 1);
    let daemon = mirror.daemon().await;
    look::wait_until("it has worked without its relay", async || {
        mirror.status_json().await["cycle"]["number"].as_u64() > Some(1)
    })
    .await;
    relay.resume().await;
    let both = [&told, &seeded];
    look::wait_until("both are on the list", async || holds(&mirror, &relay, &both).await).await;
    let answer = ada.answer_to(Protocol::Nip17, "list").await;
    assert!(answer.contains("Authors (2)"), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_command_on_an_empty_disk_does_not_replace_them_either() {
    let (lists, inbox) = tokio::join!(TestRelay::start(), TestRelay::start());
    let proxy = lists.proxied().await;
    let mirror = Mirror::new(BINARY).uses(&proxy).inbox(&inbox).set("limits.connect_timeout_secs", 2);
    let mirror = mirror.set("limits.stall_timeout_secs", 2);
    let (mirror, ada) = mirror.commanded_at(&inbox).await;
    let people = [Person::new(), Person::new(), Person::new()];
    let [one, two, late] = &people;
    let daemon = mirror.daemon().await;
    for who in [one, two] {
        ada.answer_to(Protocol::Nip17, &format!("watch {}", who.npub())).await;
    }
    look::wait_until("the list is there", async || holds(&mirror, &lists, &[one, two]).await).await;
    daemon.stop().await;

    let mirror = mirror.on_a_new_machine();
    proxy.fault(Fault::Hang);
    proxy.drop_connections();
    let daemon = mirror.daemon().await;
    let question = ada.ask(Protocol::Nip17, &format!("watch {}", late.npub())).await;
    // It waits for its lists for a while, and then says that it cannot.
    look::wait_until("it has answered", async || !ada.answers_now(&question).await.is_empty()).await;
    proxy.heal();
    proxy.drop_connections();
    // Said again, it is done, and what was there stays.
    look::wait_until("all of them are on the list", async || {
        assert!(list(&mirror, &lists).await.is_some_and(|list| list.tags.public_keys().count() >= 2));
        ada.answer_to(Protocol::Nip17, &format!("watch {}", late.npub())).await;
        holds(&mirror, &lists, &[one, two, late]).await
    })
    .await;
    daemon.stop().await;
}
