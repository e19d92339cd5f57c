//! `SIGHUP`: configuration and `.env` are read again. With a mistake in them, the old ones stay.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;

use grasp_mirror_testkit::{Chat, Mirror, Protocol, Scene, TestRelay, look};
use nostr::{event::Kind, filter::Filter};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn new_settings_count_and_broken_ones_do_not() {
    let scene = Scene::set().await;
    let mirror = Mirror::new(BINARY).knows(&scene.a).uses(&scene.relay);
    let (ada, bob) = tokio::join!(Chat::at(&mirror, &scene.relay), Chat::at(&mirror, &scene.relay));
    let mirror = mirror.obeys(&ada);
    let mut daemon = mirror.daemon().await;
    ada.catch_up().await;

    for (file, broken, part) in [
        (mirror.config_file(), "[bot]\nname = \"x\"\nrelay = []\n", "relay"),
        (mirror.env_file(), "MIRROR_ALLOWED_NPUBS=nobody\n", "MIRROR_ALLOWED_NPUBS"),
    ] {
        fs::write(file, broken).unwrap();
        daemon.reload();
        daemon.wait_log(part).await;
        ada.catch_up().await;
        mirror.write_config();
    }

    // Another commander, another server, another author.
    let mirror = mirror.obeys_nobody().obeys(&bob).knows(&scene.b).watches(&scene.owner);
    mirror.write_config();
    daemon.reload();
    look::wait_until("the new author is on the new server", async || scene.is_copied_by(&mirror).await).await;
    let late = ada.ask(Protocol::Nip17, "pause").await;
    bob.catch_up().await;
    let list = bob.answer_to(Protocol::Nip04, "list").await;
    assert!(list.contains("Authors (1)"), "{list}");
    assert_eq!(ada.answers_now(&late).await, []);

    // Another pace: the default is an hour.
    let mirror = mirror.set("bot.cycle_interval_secs", 1);
    mirror.write_config();
    let number = async || mirror.status_json().await["cycle"]["number"].as_u64();
    let before = number().await;
    daemon.reload();
    look::wait_until("it is quicker", async || number().await > before.map(|number| number + 3)).await;

    // Another inbox.
    let inbox = TestRelay::start().await;
    let eve = Chat::new(&mirror).asks_at(&inbox).hears_at(&inbox);
    let mirror = mirror.obeys(&eve).inbox(&inbox);
    mirror.write_config();
    daemon.reload();
    eve.answer_to(Protocol::Nip17, "version").await;
    look::wait_until("people are told of the new inbox", async || {
        let told = Filter::new().author(mirror.bot_pubkey()).kind(Kind::InboxRelays);
        scene.relay.served(told).await.iter().any(|list| list.as_json().contains(inbox.url()))
    })
    .await;
    daemon.stop().await;
}
