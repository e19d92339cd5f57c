//! Every command, asked by direct message, does what it says and is answered in the protocol of the question.

use grasp_mirror_testkit::{Owner, Protocol, Scene, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn every_command_in_gift_wraps() {
    every_command(Protocol::Nip17).await;
}

#[tokio::test]
async fn every_command_in_kind_4() {
    every_command(Protocol::Nip04).await;
}

async fn every_command(protocol: Protocol) {
    let scene = Scene::set().await;
    // Nobody else asks so much in a minute that the bot must slow down.
    let mirror = scene.mirror(BINARY).set("limits.events_per_minute", 1000);
    let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    let asks = async |question: &str, parts: &[&str]| {
        let answer = ada.answer_to(protocol, question).await;
        for part in parts {
            assert!(answer.contains(part), "{question:?} was answered without {part:?}:\n{answer}");
        }
    };

    asks("version", &["grasp-mirror 0.1", "started"]).await;
    asks("  /HELP ", &["watch <npub", "why <repo> [server]", "resume"]).await;
    asks("help resync", &["resync [repo | npub]"]).await;
    asks("statsu", &["statsu", "Did you mean: status?"]).await;
    asks("watch", &["watch needs", "Usage: watch <npub"]).await;
    asks("watch nobody@example.invalid", &["nobody@example.invalid"]).await;
    asks("list", &["I watch nobody yet"]).await;
    asks("status", &["Nothing to mirror yet"]).await;
    asks(&format!("watch nostr:{}", scene.owner.npub()), &["Watching", "npub1"]).await;
    asks(&format!("!watch {}", scene.owner.npub()), &["Already watching"]).await;
    look::wait_until("the watched repository is on the other server", async || {
        scene.is_copied_by(&mirror).await
    })
    .await;

    let resync = ada.ask(protocol, "resync hello").await;
    let told = ada.answers(&resync, 2).await;
    let done = "2 of 2 mirrors of 1 repository in sync";
    assert_eq!(told.iter().filter(|answer| answer.text.contains(done)).count(), 1, "{told:#?}");
    asks("List", &["Authors (1)", "1 repository"]).await;
    asks("Status", &["✓ 2 of 2 mirrors in sync: 1 repository on 2 servers", "next check"]).await;
    asks("status HELLO", &["in sync on 2 of 2 servers"]).await;
    asks(
        "servers",
        &["2 servers", &scene.a.authority(), &scene.b.authority(), "1 of 1 in sync; 7 days: 100% up, "],
    )
    .await;
    asks(
        "why hello",
        &[&scene.a.authority(), "in sync (listed)", &scene.b.authority(), "in sync (namespace)"],
    )
    .await;
    asks(&format!("why hello {}", scene.b.authority()), &[&scene.b.authority(), "in sync (namespace)"]).await;
    asks("why hallo", &["hallo"]).await;

    // A name that fits two is answered with both.
    let twin = Owner::new("hello").at_home_on(&scene.relay);
    twin.announce(twin.announcement().at(&scene.a), &scene.relay).await;
    asks(&format!("watch {}", twin.npub()), &["Watching", "1 repository"]).await;
    let [one, other] = [&scene.owner, &twin].map(|owner| owner.npub().chars().take(10).collect::<String>());
    asks("Why hello", &[&one, &other]).await;
    asks(&format!("status {}/hello", scene.owner.npub()), &["in sync on 2 of 2 servers"]).await;
    asks(&format!("unwatch {}", twin.npub()), &["No longer watching"]).await;

    asks("pause", &["Paused"]).await;
    asks("Pause", &["Already paused"]).await;
    asks("/status", &["Paused"]).await;
    asks("resync", &["I am paused"]).await;
    scene.owner.work.commit("later.txt", "more");
    let state = scene.owner.update(&scene.a).await;
    ada.catch_up().await;
    assert!(!look::serves(&scene.b, &state).await, "paused, the bot writes to no server");
    asks("resume", &["Carrying on"]).await;
    look::wait_until("the new state is on the other server", async || look::serves(&scene.b, &state).await)
        .await;
    asks("Resume", &["I was not paused"]).await;
    asks(&format!("unwatch {}", scene.owner.npub()), &["No longer watching"]).await;
    asks("/list", &["I watch nobody yet"]).await;
    daemon.stop().await;
}
