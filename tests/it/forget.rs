//! A maintainer who does not want a mirror is obeyed, though not allowed to command: by message from the repository's own
//! key, or by a mute list. Whoever else says so is a stranger.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use grasp_mirror_testkit::{Chat, Mirror, Owner, Protocol, Scene, Server, TestRelay, look};
use nostr::{
    event::{EventBuilder, FinalizeEvent, FinalizeUnsignedEvent, Kind, Tag},
    filter::Filter,
    key::{Keys, PublicKey},
    nips::nip59::GiftWrapBuilder,
    types::Timestamp,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// The owner of a repository, at the keyboard.
struct OwnersChat<'scene> {
    owner: &'scene Keys,
    bot: PublicKey,
    relay: &'scene TestRelay,
}

impl OwnersChat<'_> {
    /// Says where answers are read.
    async fn introduce(&self) {
        let inbox = EventBuilder::new(Kind::InboxRelays, "").tag(Tag::custom("relay", [self.relay.url()]));
        self.relay.send(&inbox.finalize(self.owner).unwrap()).await.expect_accepted();
    }

    async fn say(&self, text: &str) -> nostr::event::EventId {
        let mut rumor = EventBuilder::new(Kind::PrivateDirectMessage, text)
            .tag(Tag::public_key(self.bot))
            .custom_created_at(Timestamp::now())
            .finalize_unsigned(self.owner.public_key());
        let id = rumor.id();
        let wrap = GiftWrapBuilder::new(self.bot, rumor).finalize(self.owner).unwrap();
        self.relay.send(&wrap).await.expect_accepted();
        id
    }

    /// All that the bot has answered to the owner.
    async fn heard(&self) -> Vec<(Option<nostr::event::EventId>, String)> {
        let mail = Filter::new().kind(Kind::GiftWrap).pubkey(self.owner.public_key());
        let mut heard = Vec::new();
        for wrap in self.relay.served(mail).await {
            let gift = nostr::nips::nip59::UnwrappedGift::from_gift_wrap(self.owner, &wrap).unwrap();
            assert_eq!(gift.sender, self.bot);
            heard.push((gift.rumor.tags.event_ids().next(), gift.rumor.content));
        }
        heard
    }

    async fn answer_to(&self, text: &str) -> String {
        let asked = self.say(text).await;
        let mut answer = None;
        look::wait_until("the owner is answered", async || {
            answer = self.heard().await.into_iter().find(|(about, _)| *about == Some(asked));
            answer.is_some()
        })
        .await;
        answer.unwrap().1
    }
}

/// What of the bot's own a server serves.
async fn announced(mirror: &Mirror, server: &Server) -> usize {
    let own = Filter::new().author(mirror.bot_pubkey()).kinds([Kind::GitRepoAnnouncement, Kind::RepoState]);
    server.served(own).await.len()
}

fn left_alone(report: &Value, owner: &Owner) -> String {
    report["left_alone"]["forgotten"][owner.coordinate()].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_owner_is_obeyed_and_a_stranger_is_not() {
    let scene = Scene::set().await;
    let (b, owner) = (&scene.b, &scene.owner);
    let (mirror, ada) = scene.mirror(BINARY).watches(owner).commanded_at(&scene.relay).await;
    let theirs = OwnersChat { owner: &owner.keys, bot: mirror.bot_pubkey(), relay: &scene.relay };
    theirs.introduce().await;
    let eve = Chat::at(&mirror, &scene.relay).await;
    let daemon = mirror.daemon().await;
    look::wait_until("it is mirrored", async || scene.is_copied_by(&mirror).await).await;
    ada.resync("resync").await;
    assert_eq!(announced(&mirror, b).await, 2);

    // A stranger, and an owner who wants something else.
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        eve.ask(protocol, "forget hello").await;
        eve.ask(protocol, &format!("forget {}/hello", owner.npub())).await;
    }
    for text in ["pause", "help", "status", "unwatch x"] {
        theirs.say(text).await;
    }
    ada.resync("resync").await;
    assert!(scene.is_copied_by(&mirror).await && announced(&mirror, b).await == 2);
    assert_eq!((eve.heard().await.len(), theirs.heard().await.len()), (0, 0));

    let nothing = theirs.answer_to("forget nothing-of-theirs").await;
    assert!(nothing.contains("I mirror nothing called"), "{nothing}");
    let answer = theirs.answer_to("forget hello").await;
    assert!(answer.starts_with("Forgotten: hello by npub1"), "{answer}");
    look::wait_until("its announcement and state are gone", async || announced(&mirror, b).await == 0).await;
    let said = ada.answer_to(Protocol::Nip17, &format!("watch {}", owner.npub())).await;
    assert!(said.contains("I leave hello by") && said.contains("said: forget"), "{said}");
    let said = ada.answer_to(Protocol::Nip17, &format!("forget {}/hello undo", owner.npub())).await;
    assert!(said.starts_with("! hello by") && said.contains("only its maintainers"), "{said}");
    ada.resync("resync").await;
    assert_eq!(announced(&mirror, b).await, 0, "watched again is not wanted again");
    assert!(left_alone(&mirror.status_json().await, owner).contains(&owner.npub()));
    let status = ada.answer_to(Protocol::Nip17, "status hello").await;
    assert!(status.contains("I leave hello by"), "{status}");
    daemon.stop().await;

    // The machine is lost; what was said is not.
    let mirror = mirror.on_a_new_machine();
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    assert_eq!(announced(&mirror, b).await, 0);
    assert!(left_alone(&mirror.status_json().await, owner).contains("said: forget"));
    owner.work.commit("later.txt", "more");
    owner.update(&scene.a).await;
    ada.resync("resync").await;
    assert_eq!(announced(&mirror, b).await, 0);

    let answer = theirs.answer_to("forget hello undo").await;
    assert!(answer.starts_with("Taken back: hello"), "{answer}");
    look::wait_until("it is mirrored again", async || scene.is_copied_by(&mirror).await).await;
    look::wait_until("it is announced again", async || announced(&mirror, b).await == 2).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_mute_list_is_obeyed_as_long_as_it_stands() {
    let scene = Scene::set().await;
    let (b, owner) = (&scene.b, &scene.owner);
    let other = Owner::new("other").at_home_on(&scene.relay);
    other.publish(other.announcement().at(&scene.a), &scene.a).await;
    let mirror = scene.mirror(BINARY).watches(owner).watches(&other);
    mirror.once().await.expect_code(0);
    assert_eq!(announced(&mirror, b).await, 4);

    let bot = mirror.bot_pubkey().to_hex();
    let mute = owner.sign(10000, "", &[&["p", &bot]]);
    scene.relay.send(&mute).await.expect_accepted();
    for round in ["at first", "again"] {
        mirror.once().await.expect_code(0);
        let report = mirror.status_json().await;
        assert!(left_alone(&report, owner).contains("mute list"), "{round}: {report:#}");
        assert_eq!(report["totals"]["repos"], 1, "{round}");
        assert_eq!(announced(&mirror, b).await, 2, "{round}: the other's");
        assert_eq!(look::refs(&mirror.url_at(b, "other")).await, other.work.refs(), "{round}");
    }
    let table = mirror.status().await.stdout;
    assert!(table.contains("is left alone: its maintainer npub1"), "{table}");

    let mirror = mirror.on_a_new_machine();
    mirror.once().await.expect_code(0);
    assert_eq!(announced(&mirror, b).await, 2, "on a new machine");

    scene.relay.send(&owner.sign(10000, "", &[])).await.expect_accepted();
    mirror.once().await.expect_code(0);
    assert!(scene.is_copied_by(&mirror).await);
    assert_eq!(announced(&mirror, b).await, 4);
}

/// The next cycle is an hour away.
#[tokio::test]
async fn a_mute_list_is_heard_between_cycles_and_told_to_who_may_command() {
    let scene = Scene::set().await;
    let (b, owner) = (&scene.b, &scene.owner);
    let (mirror, ada) = scene.mirror(BINARY).watches(owner).commanded_at(&scene.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    assert_eq!(announced(&mirror, b).await, 2);

    // Somebody else's list is nobody's business.
    let bot = mirror.bot_pubkey();
    let mutes = |keys: &Keys| EventBuilder::new(Kind::MuteList, "").tag(Tag::public_key(bot)).finalize(keys);
    scene.relay.send(&mutes(&Keys::generate()).unwrap()).await.expect_accepted();
    scene.relay.send(&owner.sign(10000, "", &[&["p", &bot.to_hex()]])).await.expect_accepted();
    look::wait_until("its announcement and state are gone", async || announced(&mirror, b).await == 0).await;
    let told = async || {
        let heard = ada.heard().await.into_iter();
        heard.filter(|heard| heard.text.contains("is left alone from now on")).collect::<Vec<_>>()
    };
    look::wait_until("who may command hears of it", async || !told().await.is_empty()).await;
    let list = ada.answer_to(Protocol::Nip17, "list").await;
    assert!(list.contains("Left alone (1):\n• hello by npub1"), "{list}");
    assert!(list.contains("has this bot on the mute list"), "{list}");
    ada.resync("resync").await;
    assert_eq!(told().await.len(), 1, "once");

    scene.relay.send(&owner.sign(10000, "", &[])).await.expect_accepted();
    look::wait_until("it is announced again", async || announced(&mirror, b).await == 2).await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("mute list is about this bot").count(), 2, "{log}");
}

/// A server that was away when the maintainers spoke hears of it when it is back.
#[tokio::test]
async fn a_server_that_was_down_is_told_later() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    scene.b.stop().await;
    let mute = scene.owner.sign(10000, "", &[&["p", &mirror.bot_pubkey().to_hex()]]);
    scene.relay.send(&mute).await.expect_accepted();
    mirror.once().await;
    scene.b.resume().await;
    assert_eq!(announced(&mirror, &scene.b).await, 2);
    mirror.once().await.expect_code(0);
    assert_eq!(announced(&mirror, &scene.b).await, 0);
}

#[tokio::test]
async fn an_owner_is_not_answered_without_end() {
    let scene = Scene::set().await;
    let (mirror, ada) = scene.mirror(BINARY).watches(&scene.owner).commanded_at(&scene.relay).await;
    let theirs = OwnersChat { owner: &scene.owner.keys, bot: mirror.bot_pubkey(), relay: &scene.relay };
    theirs.introduce().await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    for number in 0..50 {
        theirs.say(&format!("forget number-{number}")).await;
    }
    ada.catch_up().await;
    look::wait_until("some are answered", async || theirs.heard().await.len() >= 30).await;
    ada.catch_up().await;
    assert_eq!(theirs.heard().await.len(), 30);
    daemon.stop().await;
}
