//! What a power cut leaves of files that were written a moment before: their names, and nothing in them. And what SIGKILL
//! leaves while refs are being moved: their lock.

use std::{collections::BTreeMap, fs, path::Path};

use grasp_mirror_testkit::{Scene, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

async fn branches_and_tags(copy: &Path) -> BTreeMap<String, String> {
    look::refs(&copy.display().to_string()).await
}

#[tokio::test]
async fn files_without_content_are_written_again_and_locks_go() {
    let scene = Scene::set().await;
    let Scene { a, owner, .. } = &scene;
    owner.work.git(&["branch", "old"]);
    owner.work.git(&["tag", "v1"]);
    owner.update(a).await;
    let mirror = scene.mirror(BINARY).watches(owner);
    mirror.once().await.expect_code(0);
    let copy = mirror.data_dir().join("git").join(owner.npub()).join("hello.git");
    assert_eq!(branches_and_tags(&copy).await, owner.work.refs());

    for name in ["HEAD", "config"] {
        assert!(copy.join(name).exists(), "{name}");
        fs::write(copy.join(name), "").unwrap();
    }
    for lock in ["HEAD.lock", "packed-refs.lock"] {
        fs::write(copy.join(lock), "").unwrap();
    }
    owner.work.commit("README.md", "# hello again\n");
    owner.update(a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(branches_and_tags(&copy).await, owner.work.refs());
    assert_eq!(fs::read_to_string(copy.join("HEAD")).unwrap(), "ref: refs/heads/main\n");
    look::clone(&copy.display().to_string()).await;
}

#[tokio::test]
async fn a_local_copy_that_does_not_follow_is_told() {
    let scene = Scene::set().await;
    let Scene { a, b, owner, .. } = &scene;
    let mirror = scene.mirror(BINARY).watches(owner);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let copy = mirror.data_dir().join("git").join(owner.npub()).join("hello.git");
    let before = branches_and_tags(&copy).await;
    assert_eq!(before, owner.work.refs());

    // As another git would that works in the same folder.
    let lock = copy.join("packed-refs.lock");
    fs::write(&lock, "").unwrap();
    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(a).await;
    look::wait_until("the other server has it", async || look::serves(b, &state).await).await;
    look::wait_until("it is told", async || {
        let said = mirror.status_of(&owner.coordinate()).await["notes"].to_string();
        said.contains("no complete local copy") && said.contains("packed-refs.lock")
    })
    .await;
    assert_eq!(branches_and_tags(&copy).await, before);

    fs::remove_file(&lock).unwrap();
    owner.work.commit("README.md", "# hello once more\n");
    owner.update(a).await;
    look::wait_until("it follows", async || branches_and_tags(&copy).await == owner.work.refs()).await;
    daemon.stop().await;
}
