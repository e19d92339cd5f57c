//! Answers go to where people say they read: gift wraps to the relays of their list for private messages, kind 4 to
//! those they read from and to the one that the question came from. Without such lists, to the last one alone.

use grasp_mirror_testkit::{Chat, Mirror, Protocol, TestRelay};
use nostr::{event::Kind, filter::Filter, types::Timestamp};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn answers_go_where_people_read() {
    let start = TestRelay::start;
    let (inbox, index, home) = tokio::join!(start(), start(), start());
    let mirror = Mirror::new(BINARY).uses(&inbox).set("bot.index_relays", vec![index.url().to_owned()]);
    // Both ask at the bot's inbox. What one of them reads, only the index knows; the other says nothing.
    let ada = Chat::new(&mirror).asks_at(&inbox).hears_at(&home);
    ada.introduce(&index).await;
    let bob = Chat::new(&mirror).asks_at(&inbox).hears_at(&inbox);
    let mirror = mirror.obeys(&ada).obeys(&bob);
    let daemon = mirror.daemon().await;
    for who in [&ada, &bob] {
        for protocol in [Protocol::Nip17, Protocol::Nip04] {
            who.answer_to(protocol, "version").await;
        }
    }
    let for_ada =
        async |kind: Kind| inbox.served(Filter::new().kind(kind).pubkey(ada.public_key())).await.len();
    assert_eq!(for_ada(Kind::EncryptedDirectMessage).await, 1);
    assert_eq!(
        for_ada(Kind::GiftWrap).await,
        0,
        "a relay that she does not read need not know who writes to her"
    );
    // Nor does a wrap say from whom it is, or when it was sealed.
    let wraps = home.served(Filter::new().kind(Kind::GiftWrap)).await;
    let [wrap] = wraps.as_slice() else { panic!("one wrap in {wraps:#?}") };
    assert!(!wrap.as_json().contains(&mirror.bot_pubkey().to_hex()) && wrap.created_at <= Timestamp::now());
    daemon.stop().await;
}

#[tokio::test]
async fn an_operator_may_want_no_answers_elsewhere() {
    let (inbox, home) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&inbox).set("bot.answer_where_asked", false);
    let bob = Chat::new(&mirror).asks_at(&inbox).hears_at(&home);
    let mirror = mirror.obeys(&bob);
    let mut daemon = mirror.daemon().await;
    let question = bob.ask(Protocol::Nip17, "version").await;
    daemon.wait_log("kind 10050").await;
    daemon.stop().await;
    let for_bob = Filter::new().kind(Kind::GiftWrap).pubkey(bob.public_key());
    assert_eq!(inbox.served(for_bob).await, []);
    // He hears as soon as he says where he reads.
    bob.introduce(&inbox).await;
    let daemon = mirror.daemon().await;
    bob.answers(&question, 1).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_delivered_is_tried_again() {
    let (inbox, home) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&inbox);
    let ada = Chat::new(&mirror).asks_at(&inbox).hears_at(&home);
    ada.introduce(&inbox).await;
    let mut daemon = mirror.obeys(&ada).daemon().await;
    home.stop().await;
    let question = ada.ask(Protocol::Nip17, "version").await;
    daemon.wait_log(home.url()).await;
    home.resume().await;
    ada.answers(&question, 1).await;
    daemon.stop().await;
}
