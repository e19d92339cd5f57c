//! A relay that makes up events in other people's names gets the bot to do nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use grasp_mirror_testkit::{Chat, Mirror, Person, Protocol, Question, TestRelay};
use nostr::{
    event::{Event, EventBuilder, FinalizeUnsignedEvent, Kind, Tag},
    key::PublicKey,
    types::Timestamp,
};
use nostr_database::NostrDatabase;
use nostr_lmdb::NostrLmdb;
use nostr_sdk::local_relay::LocalRelay;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// `like` as if `author` had signed something else: everything fits but the signature.
fn forged(like: &Event, author: PublicKey, kind: u16, content: &str, tags: Vec<Tag>) -> Event {
    let mut unsigned = EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::now())
        .finalize_unsigned(author);
    let id = unsigned.id();
    Event::new(id, author, unsigned.created_at, unsigned.kind, unsigned.tags, unsigned.content, like.sig)
}

#[tokio::test]
async fn forged_events_are_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let held = Arc::new(NostrLmdb::open(folder.path()).await.unwrap());
    let rogue = LocalRelay::builder().database(Arc::clone(&held));
    let (good, rogue) = tokio::join!(TestRelay::start(), TestRelay::start_as(rogue));
    let mirror = Mirror::new(BINARY).uses(&good).uses(&rogue);
    let ada = Chat::new(&mirror).asks_at(&good).hears_at(&good).hears_at(&rogue);
    let mirror = mirror.obeys(&ada);
    let bot = mirror.bot_pubkey();
    // What she once said, dated anew.
    let said = ada.question_at(Protocol::Nip04, "pause", Timestamp::now() - Duration::from_secs(90_000));
    let again = forged(&said.event, ada.public_key(), 4, &said.event.content, vec![Tag::public_key(bot)]);
    let stranger = Tag::public_key(Person::new().public_key());
    let list = forged(&said.event, bot, 10017, "", vec![stranger]);
    for event in [&again, &list] {
        assert!(event.verify_id() && !event.verify_signature());
        held.save_event(event).await.unwrap();
    }
    let real = ada.question_at(Protocol::Nip04, "help list", Timestamp::now());
    held.save_event(&real.event).await.unwrap();
    let daemon = mirror.daemon().await;
    ada.answers(&real, 1).await;
    ada.catch_up().await;
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(!status.contains("Paused"), "{status}");
    let list = ada.answer_to(Protocol::Nip17, "list").await;
    assert!(list.contains("I watch nobody yet"), "{list}");
    assert_eq!(ada.answers_now(&Question { id: again.id, event: again }).await, []);
    daemon.stop().await;
}
