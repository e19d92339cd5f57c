//! When something changes for the worse, the people who may command the bot hear of it, once; unless the operator
//! does not want that.

use grasp_mirror_testkit::{Chat, Heard, Mirror, Protocol, Scene, Server, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// What the bot said without having been asked.
async fn alerts(who: &Chat) -> Vec<Heard> {
    who.heard().await.into_iter().filter(|heard| heard.about.is_empty()).collect()
}

#[tokio::test]
async fn a_lost_server_is_told_once() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    let (ada, bob) = tokio::join!(Chat::at(&mirror, &scene.relay), Chat::at(&mirror, &scene.relay));
    let mirror = mirror.obeys(&ada).obeys(&bob);
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    assert_eq!(alerts(&ada).await, [], "all is well");

    scene.b.stop().await;
    ada.resync("resync").await;
    for who in [&ada, &bob] {
        look::wait_until("both hear that a server is lost", async || {
            alerts(who).await.iter().any(|alert| alert.text.contains(&scene.b.authority()))
        })
        .await;
    }
    // Neither what has not changed nor, within ten minutes, what has is worth another message.
    ada.resync("resync").await;
    scene.b.resume().await;
    ada.resync("resync").await;
    // Nor does it forget that when it starts anew.
    daemon.stop().await;
    scene.b.stop().await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    for who in [&ada, &bob] {
        who.catch_up().await;
        let alerts = alerts(who).await;
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
    }
    daemon.stop().await;
}

/// Of three servers two are chosen: the loss of the third is no loss of a copy.
#[tokio::test]
async fn fewer_copies_than_are_wanted_are_told_with_the_number() {
    for lose_a_copy in [true, false] {
        let (scene, mut c) = tokio::join!(Scene::set(), Server::start());
        let Scene { a, mut b, relay, owner } = scene;
        let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
        let (mirror, ada) = mirror.set("mirror.copies_wanted", 2).commanded_at(&relay).await;
        let daemon = mirror.daemon().await;
        ada.resync("resync").await;
        let repo = mirror.status_of(&owner.coordinate()).await;
        assert!(repo["copies"] == 2 && repo["wanted"] == 2, "{repo:#}");
        let on_b = look::refs(&mirror.url_at(&b, "hello")).await == owner.work.refs();
        let lost = if on_b == lose_a_copy { &mut b } else { &mut c };
        lost.stop().await;
        ada.resync("resync").await;
        look::wait_until("it is told", async || !alerts(&ada).await.is_empty()).await;
        let told = alerts(&ada).await.into_iter().map(|alert| alert.text).collect::<Vec<_>>().join("\n");
        assert!(told.contains(&lost.authority()), "{told}");
        assert_eq!(told.contains("has 1 copy, 2 wanted"), lose_a_copy, "{told}");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn an_operator_can_do_without() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner).set("bot.alerts", false);
    let ada = Chat::at(&mirror, &scene.relay).await;
    let daemon = mirror.obeys(&ada).daemon().await;
    ada.resync("resync").await;
    scene.b.stop().await;
    ada.resync("resync").await;
    ada.catch_up().await;
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(status.contains("1 of 2 mirrors in sync"), "{status}");
    assert_eq!(alerts(&ada).await, []);
    daemon.stop().await;
}
