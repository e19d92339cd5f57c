//! What the reviewer broke.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use grasp_mirror::{
    relay::{Limits, Relays},
    transfer::guard::Guard,
};
use grasp_mirror_testkit::{Chat, Fault, Mirror, Person, Protocol, Proxy, TestRelay, look};
use nostr::prelude::*;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const SOON: Duration = Duration::from_secs(30);

async fn behind(relay: &TestRelay) -> (Proxy, String) {
    let proxy = Proxy::before(relay.url().trim_start_matches("ws://").parse().unwrap()).await;
    let url = format!("ws://{}", proxy.address());
    (proxy, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_cancelled_connect_is_no_end() {
    let relay = TestRelay::start().await;
    let (proxy, url) = behind(&relay).await;
    proxy.fault(Fault::Hang);
    let limits = Limits {
        connect_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(3),
        events_per_minute: NonZeroU32::new(55).unwrap(),
        max_events: 10_000,
        rest: Some(Duration::ZERO),
    };
    let relays = Relays::that_keep_nothing(Arc::new(Guard::new(true, [])), Keys::generate(), limits);
    let url = RelayUrl::parse(&url).unwrap();
    let filter = || vec![Filter::new().kind(Kind::TextNote)];
    assert!(tokio::time::timeout(Duration::from_millis(300), relays.read(&url, filter())).await.is_err());
    proxy.heal();
    proxy.drop_connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    relays.read(&url, filter()).await.unwrap();
}

/// SIGHUP while a relay is being connected.
#[tokio::test]
async fn f1b_reload_while_connecting() {
    let (good, other) = tokio::join!(TestRelay::start(), TestRelay::start());
    let (proxy, url) = behind(&other).await;
    let relays = vec![good.url().to_owned(), url.clone()];
    let mirror = Mirror::new(BINARY)
        .set("bot.relays", relays.clone())
        .set("bot.inbox_relays", relays.clone())
        .set("bot.index_relays", vec![good.url().to_owned()]);
    let ada = Chat::new(&mirror).asks_at(&good).hears_at(&good);
    let bob = Chat::new(&mirror).asks_at(&other).hears_at(&good);
    bob.introduce(&good).await;
    let mirror = mirror.obeys(&ada).obeys(&bob);
    let mut daemon = mirror.daemon().await;
    ada.catch_up().await;
    bob.answer_to(Protocol::Nip17, "version").await;
    proxy.fault(Fault::Hang);
    proxy.drop_connections();
    tokio::time::sleep(Duration::from_secs(4)).await;
    if std::env::var_os("CONTROL").is_none() {
        daemon.reload();
        daemon.wait_log("read again", SOON).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.heal();
    proxy.drop_connections();
    let asked = bob.ask(Protocol::Nip17, "help list").await;
    look::wait_until(Duration::from_secs(60), "bob is answered", async || {
        bob.answers_now(&asked).await.len() == 1
    })
    .await;
    daemon.stop().await;
}

/// On a blank machine whose relay hangs, a command must not replace lists that are there.
#[tokio::test]
async fn f2_a_command_on_a_blank_machine_does_not_overwrite_the_lists() {
    let (lists, inbox) = tokio::join!(TestRelay::start(), TestRelay::start());
    let (proxy, url) = behind(&lists).await;
    let mirror = Mirror::new(BINARY)
        .set("bot.relays", vec![url.clone()])
        .set("bot.index_relays", vec![url.clone()])
        .set("limits.connect_timeout_secs", 2)
        .inbox(&inbox);
    let ada = Chat::at(&mirror, &inbox).await;
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    let people: Vec<_> = (0..3).map(|_| Person::new().npub()).collect();
    for who in &people {
        ada.answer_to(Protocol::Nip17, &format!("watch {who}")).await;
    }
    let list = Filter::new().author(mirror.bot_pubkey()).kind(Kind::from(10017));
    look::wait_until(SOON, "the list is there", async || {
        lists.served(list.clone()).await.iter().any(|event| event.tags.len() == 3)
    })
    .await;
    daemon.stop().await;

    let mirror = mirror.on_a_new_machine();
    proxy.fault(Fault::Hang);
    proxy.drop_connections();
    let daemon = mirror.daemon().await;
    let answer = ada.answer_to(Protocol::Nip17, &format!("watch {}", Person::new().npub())).await;
    eprintln!("it said: {answer}");
    proxy.heal();
    proxy.drop_connections();
    tokio::time::sleep(Duration::from_secs(45)).await;
    let now = lists.served(list).await;
    eprintln!("{}", daemon.log());
    assert!(now.iter().all(|event| event.tags.len() >= 3), "{now:#?}");
}

/// Wraps that nostr-sdk throws away must not look like the end of what a relay has.
#[tokio::test]
async fn f3_expired_wraps_do_not_hide_the_rest() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let asked = ada.ask(Protocol::Nip17, "help list").await;
    let now = Timestamp::now();
    for n in 0..150_u64 {
        let event = EventBuilder::new(Kind::GiftWrap, n.to_string())
            .tag(Tag::public_key(mirror.bot_pubkey()))
            .tag(Tag::expiration(now + if std::env::var_os("CONTROL").is_some() { 3000_u64 } else { 3 }))
            .custom_created_at(now + 60_u64)
            .finalize(&Keys::generate())
            .unwrap();
        relay.receive(event).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let held = relay.served(Filter::new().kind(Kind::GiftWrap).pubkey(mirror.bot_pubkey())).await.len();
    eprintln!("the relay serves {held}");
    let daemon = mirror.daemon().await;
    ada.answers(&asked, 1).await;
    daemon.stop().await;
}

/// A resync that waited while the bot was down runs once.
#[tokio::test]
async fn f4_a_resync_that_waited_is_done_once() {
    let relay = TestRelay::start().await;
    let server = grasp_mirror_testkit::Server::start().await;
    let owner = grasp_mirror_testkit::Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&server), &server).await;
    let (mirror, ada) =
        Mirror::new(BINARY).knows(&server).watches(&owner).uses(&relay).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let resync = ada.ask(Protocol::Nip17, "resync").await;
    ada.answers(&resync, 2).await;
    daemon.stop().await;
    let before = Timestamp::now();
    let resync = ada.ask(Protocol::Nip17, "Resync").await;
    let daemon = mirror.daemon().await;
    ada.answers(&resync, 2).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let log = daemon.stop().await;
    eprintln!("{before} {log}");
    assert_eq!(log.matches("cycle done").count(), 2, "one at start, one resync");
}

/// Subscriptions of before a SIGHUP are closed.
#[tokio::test]
async fn f5_reloading_leaves_no_subscriptions_open() {
    let relay = TestRelay::start().await;
    let (proxy, url) = behind(&relay).await;
    let urls = vec![url.clone()];
    let mirror = Mirror::new(BINARY)
        .set("bot.relays", urls.clone())
        .set("bot.inbox_relays", urls.clone())
        .set("bot.index_relays", urls);
    let ada = Chat::at(&mirror, &relay).await;
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    for n in 1..=8 {
        daemon.reload();
        look::wait_until(SOON, "read again", async || daemon.log().matches("read again").count() == n).await;
        ada.catch_up().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = proxy.seen();
    let id = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value[1].as_str().unwrap().to_owned()
    };
    let live: std::collections::BTreeSet<_> = seen
        .verb("REQ")
        .into_iter()
        .filter(|text| text.contains("\"limit\":1,") || text.contains("\"limit\":1}"))
        .map(id)
        .collect();
    let closed: std::collections::BTreeSet<_> = seen.verb("CLOSE").into_iter().map(id).collect();
    let open: Vec<_> = live.difference(&closed).collect();
    daemon.stop().await;
    assert!(open.len() <= 2, "{} of {} live subscriptions are open", open.len(), live.len());
}

/// The copy of an answer is on each inbox relay: any of them may be the one that is left.
#[tokio::test]
async fn f6_a_lost_disk_and_one_lost_inbox() {
    let (home, a, b) = tokio::join!(TestRelay::start(), TestRelay::start(), TestRelay::start());
    let ((proxy_a, url_a), (proxy_b, url_b)) = tokio::join!(behind(&a), behind(&b));
    let mirror = Mirror::new(BINARY)
        .uses(&home)
        .set("bot.inbox_relays", vec![url_a, url_b])
        .set("limits.connect_timeout_secs", 2);
    let ada = Chat::new(&mirror).asks_at(&a).asks_at(&b).hears_at(&home);
    ada.introduce(&home).await;
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    // The second inbox relay is away for a moment.
    proxy_b.fault(Fault::Refuse);
    proxy_b.drop_connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = ada.ask(Protocol::Nip17, "help list").await;
    ada.answers(&asked, 1).await;
    proxy_b.heal();
    tokio::time::sleep(Duration::from_secs(25)).await;
    daemon.stop().await;
    // The machine and the first one are lost.
    let mirror = mirror.on_a_new_machine();
    proxy_a.fault(Fault::Refuse);
    proxy_a.drop_connections();
    let daemon = mirror.daemon().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let answers = ada.answers_now(&asked).await;
    daemon.stop().await;
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

/// Relays that hang up on idle clients are no broken relays.
#[tokio::test(flavor = "multi_thread")]
async fn f8_idle_disconnects_do_not_add_up() {
    let relay = TestRelay::start().await;
    let (proxy, url) = behind(&relay).await;
    let limits = Limits {
        connect_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(3),
        events_per_minute: NonZeroU32::new(55).unwrap(),
        max_events: 10_000,
        rest: Some(Duration::from_secs(15)),
    };
    let relays = Relays::that_keep_nothing(Arc::new(Guard::new(true, [])), Keys::generate(), limits);
    let url = RelayUrl::parse(&url).unwrap();
    for n in 0..8 {
        let read = relays.read(&url, vec![Filter::new().kind(Kind::TextNote)]).await;
        read.unwrap_or_else(|error| panic!("connection {n}: {error}"));
        proxy.drop_connections();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// More strangers' wraps on the relay than the bot remembers: a command asked now is still answered soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_many_stored_wraps_do_not_make_it_deaf() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    for n in 0..24_000_u32 {
        let event = EventBuilder::new(Kind::GiftWrap, n.to_string())
            .tag(Tag::public_key(mirror.bot_pubkey()))
            .custom_created_at(Timestamp::now() - u64::from(n) * 5)
            .finalize(&Keys::generate())
            .unwrap();
        relay.receive(event).await;
    }
    let daemon = mirror.daemon().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for n in 0..2 {
        let at = std::time::Instant::now();
        let asked = ada.ask(Protocol::Nip17, &format!("status nothing-{n}")).await;
        look::wait_until(Duration::from_secs(240), "answered", async || {
            ada.answers_now(&asked).await.len() == 1
        })
        .await;
        eprintln!("ANSWERED after {:?}; {} KiB, {:?} CPU", at.elapsed(), daemon.rss_kib(), daemon.cpu());
        relay.stop().await;
        relay.resume().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let log = daemon.stop().await;
    assert!(
        !log.contains("does not deliver"),
        "a false alarm: {}",
        log.lines().filter(|l| l.contains("does not deliver")).count()
    );
}

/// Strangers' wraps of the very same second must not hide one.
#[tokio::test]
async fn f9_a_full_second_hides_nothing() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let at = Timestamp::now() - 3600_u64;
    let asked = ada.wrap_dated(ada.rumor("help list", Timestamp::now()), at);
    ada.send(&asked).await;
    for n in 0..450_u32 {
        let event = EventBuilder::new(Kind::GiftWrap, n.to_string())
            .tag(Tag::public_key(mirror.bot_pubkey()))
            .custom_created_at(at)
            .finalize(&Keys::generate())
            .unwrap();
        relay.receive(event).await;
    }
    let daemon = mirror.daemon().await;
    ada.answers(&asked, 1).await;
    daemon.stop().await;
}
