//! The daemon runs cycles, is alone on its data folder, can be asked beside it, and stops when told.

use grasp_mirror_testkit::{Scene, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn it_runs_cycles_alone_on_its_folder_and_stops_when_told() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner).set("bot.cycle_interval_secs", 3600);
    let daemon = mirror.start_daemon();

    look::wait_until("the first cycle is over", async || mirror.status().await.code == 0).await;
    assert!(scene.is_copied_by(&mirror).await);
    let first = mirror.status_json().await["cycle"].clone();
    assert_eq!(first["trigger"], "start");
    assert!(first["next_at"].as_u64() >= first["finished_at"].as_u64());

    // A second one is told who holds the folder.
    let second = mirror.once().await.expect_code(1);
    let pid = daemon.pid().to_string();
    assert!(second.stderr.contains(&pid), "{}", second.stderr);

    // What the owner signs next is there when others have gone by.
    let mirror = mirror.set("bot.cycle_interval_secs", 1);
    mirror.write_config();
    daemon.reload();
    scene.owner.work.commit("later.txt", "more");
    let state = scene.owner.update(&scene.a).await;
    look::wait_until("later cycles have the new state", async || {
        mirror.status_json().await["cycle"]["number"].as_u64() > Some(2)
            && look::serves(&scene.b, &state).await
    })
    .await;
    assert!(scene.is_copied_by(&mirror).await);

    daemon.stop().await;
    mirror.once().await.expect_code(0);
}
