//! What the bot was told outlives restarts and its disk: it stays paused, and what it is no longer to watch does not
//! come back because the operator's settings once named it. A name that is new there does.

use grasp_mirror_testkit::{Chat, Daemon, Mirror, Person, Protocol, Scene, TestRelay, look};
use nostr::{event::Kind, filter::Filter};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_paused_bot_stays_paused() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).set("bot.cycle_interval_secs", 1);
    let (mut mirror, ada) = mirror.commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.answer_to(Protocol::Nip17, "pause").await;
    ada.answer_to(Protocol::Nip17, &format!("watch {}", scene.owner.npub())).await;
    daemon.stop().await;
    let settings = Filter::new().author(mirror.bot_pubkey()).kind(Kind::from(30078));
    for event in scene.relay.served(settings.identifier("grasp-mirror/settings")).await {
        assert!(!event.content.contains("pause"), "its settings are nobody else's: {}", event.content);
    }
    for _ in 0..2 {
        let daemon = mirror.daemon().await;
        let status = ada.answer_to(Protocol::Nip17, "status").await;
        assert!(status.contains("Paused"), "{status}");
        let printed = mirror.status().await.stdout;
        assert!(printed.starts_with("Paused. Send the bot: resume\n\n"), "{printed}");
        assert!(look::ls_remote(&mirror.url_at(&scene.b, "hello")).await.is_empty());
        daemon.stop().await;
        mirror = mirror.on_a_new_machine();
    }
    let daemon = mirror.daemon().await;
    ada.answer_to(Protocol::Nip17, "resume").await;
    look::wait_until("it carries on", async || scene.is_copied_by(&mirror).await).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_seed_is_sown_once() {
    let relay = TestRelay::start().await;
    let [seed, kept, late] = [Person::new(), Person::new(), Person::new()];
    let mirror = Mirror::new(BINARY).uses(&relay).watches(&seed).watches(&kept);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    lists(&ada, &[&seed, &kept], &[]).await;
    let answer = ada.answer_to(Protocol::Nip17, &format!("unwatch {}", seed.npub())).await;
    assert!(answer.starts_with("No longer watching"), "{answer}");
    daemon.stop().await;

    let daemon = mirror.daemon().await;
    lists(&ada, &[&kept], &[&seed]).await;
    daemon.stop().await;
    let mirror = mirror.on_a_new_machine();
    let daemon = mirror.daemon().await;
    lists(&ada, &[&kept], &[&seed]).await;
    daemon.stop().await;

    let mirror = mirror.watches(&late);
    let mut daemon: Daemon = mirror.daemon().await;
    daemon.wait_log(&late.npub()).await;
    lists(&ada, &[&kept, &late], &[&seed]).await;
    daemon.stop().await;
}

async fn lists(ada: &Chat, there: &[&Person], gone: &[&Person]) {
    let list = ada.answer_to(Protocol::Nip17, "list").await;
    // As answers shorten them.
    let named = |who: &Person| list.contains(who.npub().get(..10).unwrap_or_default());
    assert!(there.iter().all(|who| named(who)) && !gone.iter().any(|who| named(who)), "{list}");
}
