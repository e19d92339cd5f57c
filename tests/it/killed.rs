//! Killed at any moment, the bot carries on with its next run, and nothing it left behind is broken.

use std::{process::Stdio, time::Duration};

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn the_run_after_a_kill_finishes_the_work() {
    let (a, mut b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("large", &"All work and no play\n".repeat(100_000));
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    for wait_ms in [50, 150, 250, 350, 450, 600] {
        let mut run = mirror.command(&["mirror-once"]);
        let mut run =
            run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{e}"));
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        run.kill().ok();
        run.wait().ok();
    }
    b.unlock().await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let folder = mirror.data_dir().join("git").join(owner.npub()).join("hello.git");
    let mut check = tools::git(&folder);
    check.args(["fsck", "--full", "--strict"]);
    tools::must(check).await;
    let incoming = std::fs::read_dir(folder.join("incoming")).map_or(0, Iterator::count);
    assert!(incoming <= 1, "{incoming} folders of killed runs are left");
}
