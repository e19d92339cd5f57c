//! Whatever arrives in place of a message, the bot lives, does nothing of it, and repeats none of it raw.

use grasp_mirror_testkit::{Chat, Mirror, Owner, Person, Protocol, TestRelay, junk};
use nostr::{
    event::{Kind, Tag},
    types::Timestamp,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn junk_does_nothing() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay);
    let ada = Chat::at(&mirror, &relay).await;
    let bot = mirror.bot_pubkey();
    let mut daemon = mirror.obeys(&ada).daemon().await;

    let [some, many, far_too_many] = [500, 20_000, 1 << 20].map(|count| "A".repeat(count));
    for kind in [1059, 4] {
        for content in ["", "{}", "?iv=", "AgAA?iv=AAAA", "\u{0}\u{202e}", &some, &far_too_many] {
            relay.receive(junk(kind, bot, content)).await;
        }
    }
    // For someone else, whatever the address says.
    let misled = ada.wrap_to(Person::new().public_key(), ada.rumor("pause", Timestamp::now()));
    relay.receive(junk(1059, bot, &misled.event.content)).await;
    // Longer than any command, from someone who may command.
    let long = ada.question_at(Protocol::Nip04, &format!("pause {far_too_many}"), Timestamp::now());
    relay.receive(long.event).await;
    let long = ada.wrap(ada.rumor(&format!("pause {many}"), Timestamp::now()));
    relay.receive(long.event).await;
    // What phones send as a thumb up.
    let mut thumb = ada.rumor("pause", Timestamp::now());
    thumb.kind = Kind::Reaction;
    thumb.tags.push(Tag::event(long.id));
    thumb.id = None;
    ada.send(&ada.wrap(thumb)).await;

    ada.catch_up().await;
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(!status.contains("Paused"), "{status}");
    assert!(daemon.is_running());
    let log = daemon.stop().await;
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains(&some), "the log repeats what was sent");
}

const RAW: &str = "sta\u{202e}tus\u{7}\u{1b}[31m\u{0}\u{200b}\u{2066}x";

fn expect_clean(answer: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{200b}\u{2066}".contains(c);
    assert!(!answer.contains(bad), "{answer:?}");
}

#[tokio::test]
async fn what_is_repeated_is_clean() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for text in [RAW.to_owned(), format!("status {RAW}"), format!("version {RAW}")] {
            expect_clean(&ada.answer_to(protocol, &text).await);
        }
    }
    // Neither do people the bot watches get to write into the answers.
    let owner = Owner::new(&RAW.replace('\u{0}', "")).at_home_on(&relay);
    let profile = serde_json::json!({ "name": RAW, "display_name": RAW }).to_string();
    relay.send(&owner.sign(0, &profile, &[])).await.expect_accepted();
    owner.announce(owner.announcement().clone_url("https://example.invalid/x.git"), &relay).await;
    relay.send(&owner.state()).await.expect_accepted();
    let naddr = format!("watch {}", owner.coordinate());
    let npub = format!("watch {}", owner.npub());
    for text in [&naddr, &npub, "list", "status", "why sta", &format!("why \"{}\"", owner.d)] {
        expect_clean(&ada.answer_to(Protocol::Nip17, text).await);
    }
    expect_clean(&ada.resync("resync").await);
    let log = daemon.stop().await;
    assert!(!log.contains(['\u{202e}', '\u{1b}', '\u{0}']), "{log:?}");
}
