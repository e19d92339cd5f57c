//! What is no error: a repository without a state, and one whose large files lie elsewhere (LFS).

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_empty_repository_is_reported_and_wants_nothing() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("empty").at_home_on(&relay);
    owner.announce(owner.announcement().at(&a), &relay).await;
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let status = mirror.status_json().await;
    assert_eq!(status["totals"]["repos"], 1);
    assert_eq!(status["totals"]["mirrors"], 0);
    assert!(status["repos"][0]["notes"][0].as_str().unwrap().starts_with("empty"), "{status}");
}

#[tokio::test]
async fn lfs_objects_are_not_mirrored_and_the_report_says_so() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("pictures").at_home_on(&relay);
    owner.work.commit(".gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n");
    owner.work.commit("a.png", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(mirror.status_of(&owner.coordinate()).await["notes"][0], "LFS objects not mirrored");
    assert_eq!(look::refs(&mirror.url_at(&b, "pictures")).await, owner.work.refs());
}
