//! The daemon runs cycles, is alone on its data folder, can be asked beside it, and stops when told.

use std::time::Duration;

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn it_runs_cycles_alone_on_its_folder_and_stops_when_told() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .watches(&owner)
        .set("bot.cycle_interval_secs", 2);
    let daemon = mirror.start_daemon();

    look::wait_until(Duration::from_secs(20), "the first cycle is over", async || {
        mirror.status().await.code == 0
    })
    .await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let first = mirror.status_json().await["cycle"].clone();
    assert_eq!(first["trigger"], "start");
    assert!(first["next_at"].as_u64() > first["finished_at"].as_u64());

    // A second one is told who holds the folder.
    let second = mirror.once().await.expect_code(1);
    let pid = daemon.pid().to_string();
    assert!(second.stderr.contains(&pid), "{}", second.stderr);

    // What the owner signs next arrives with a later cycle.
    owner.work.commit("later.txt", "more");
    let state = owner.update(&a).await;
    look::wait_until(Duration::from_secs(20), "a later cycle brings the new state", async || {
        look::serves(&b, &state).await || mirror.status_json().await["cycle"]["number"].as_u64() > Some(20)
    })
    .await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    daemon.stop().await;
    mirror.once().await.expect_code(0);
}
