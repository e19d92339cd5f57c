//! What strangers leave on a relay hides nothing of what others ask: expired messages, a page full of them in one
//! second, more of them than the bot remembers.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use grasp_mirror_testkit::{Mirror, Protocol, TestRelay, look};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::{Keys, PublicKey},
    types::Timestamp,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// A wrap that nobody can open.
fn wrap(bot: PublicKey, number: u64, created_at: Timestamp, more: Option<Tag>) -> Event {
    EventBuilder::new(Kind::GiftWrap, number.to_string())
        .tag(Tag::public_key(bot))
        .tags(more)
        .custom_created_at(created_at)
        .finalize(&Keys::generate())
        .unwrap()
}

#[tokio::test]
async fn expired_wraps_hide_nothing() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let (bot, now) = (mirror.bot_pubkey(), Timestamp::now());
    // Older on the outside than all of them.
    let asked = ada.wrap_dated(ada.rumor("help list", now), now - Duration::from_secs(47 * 3600));
    ada.send(&asked).await;
    let until = now + Duration::from_secs(2);
    for number in 0..150 {
        relay.receive(wrap(bot, number, now, Some(Tag::expiration(until)))).await;
    }
    look::wait_until("they are expired", async || Timestamp::now() > until).await;
    let daemon = mirror.daemon().await;
    ada.answers(&asked, 1).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_full_second_hides_nothing() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let (bot, now) = (mirror.bot_pubkey(), Timestamp::now());
    let second = now - Duration::from_secs(3600);
    let asked = ada.wrap_dated(ada.rumor("help list", now), second);
    ada.send(&asked).await;
    for number in 0..450 {
        relay.receive(wrap(bot, number, second, None)).await;
    }
    let daemon = mirror.daemon().await;
    ada.answers(&asked, 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_wraps_than_it_remembers_make_it_not_deaf() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let (bot, now) = (mirror.bot_pubkey(), Timestamp::now());
    for number in 0..21_000 {
        relay.receive(wrap(bot, number, now - Duration::from_secs(number * 5), None)).await;
    }
    let daemon = mirror.daemon().await;
    ada.answer_to(Protocol::Nip17, "version").await;
    daemon.stop().await;
}
