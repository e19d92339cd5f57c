//! The daemon reports, and listens, before it puts its local copies in order: that may take long.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;

use grasp_mirror_testkit::{Scene, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_cycle_is_over_before_packs_are_joined() {
    let scene = Scene::set().await;
    for number in 0..9 {
        scene.owner.work.commit("README.md", &format!("# {number}\n"));
    }
    scene.owner.update(&scene.a).await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    let copy = mirror.data_dir().join("git").join(scene.owner.npub()).join("hello.git");
    let git = async |args: &[&str]| {
        let mut git = tools::git(&copy);
        git.args(args);
        tools::must(git).await
    };
    let packs = copy.join("objects/pack");
    let count = || {
        let files = fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|it| it == "pack")).count()
    };
    // As if each object had come by itself.
    for line in git(&["rev-list", "--objects", "--all"]).await.lines() {
        let one = packs.join("one");
        fs::write(&one, line).unwrap();
        let mut pack = tools::git(&copy);
        pack.args(["pack-objects", "-q", "objects/pack/pack"]).stdin(fs::File::open(&one).unwrap());
        tools::must(pack).await;
        fs::remove_file(&one).unwrap();
    }
    let scattered = count();

    let mut daemon = mirror.daemon().await;
    daemon.wait_log("joined packs").await;
    let log = daemon.log();
    assert!(log.find("cycle done").unwrap() < log.find("joined packs").unwrap(), "{log}");
    assert!(count() < scattered, "{} of {scattered}", count());
    git(&["fsck", "--strict"]).await;
    daemon.stop().await;
}
