//! An inbox relay that lets only the recipient read (NIP-42) works, also after it was away.

use grasp_mirror_testkit::{Chat, Mirror, Protocol, TestRelay};
use nostr_sdk::local_relay::{LocalRelay, LocalRelayBuilderNip42};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn the_bot_says_who_it_is_to_read_its_mail() {
    let (relay, inbox) = tokio::join!(TestRelay::start(), TestRelay::start_gated());
    let mirror = Mirror::new(BINARY).uses(&relay).inbox(&inbox);
    let ada = Chat::new(&mirror).asks_at(&inbox).hears_at(&inbox);
    ada.introduce(&relay).await;
    let mirror = mirror.obeys(&ada);
    // Stored before the bot comes, and live.
    let early = ada.ask(Protocol::Nip17, "help list").await;
    let daemon = mirror.daemon().await;
    ada.answers(&early, 1).await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        ada.answer_to(protocol, "version").await;
    }
    inbox.stop().await;
    inbox.resume().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        ada.answer_to(protocol, "help version").await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn it_says_who_it_is_to_write_to_somebody() {
    let gate = LocalRelay::builder().nip42(LocalRelayBuilderNip42::read_and_write());
    let (relay, home) = tokio::join!(TestRelay::start(), TestRelay::start_as(gate));
    let mirror = Mirror::new(BINARY).uses(&relay);
    let ada = Chat::new(&mirror).asks_at(&relay).hears_at(&home);
    ada.introduce(&relay).await;
    let daemon = mirror.obeys(&ada).daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        ada.answer_to(protocol, "version").await;
    }
    daemon.stop().await;
}
