//! Before the disk is full nothing more is fetched, and the report says why; what needs no room goes on.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn below_the_floor_nothing_is_fetched_and_the_report_says_why() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.disk_floor_bytes", 1_i64 << 60);
    let run = mirror.run(&["mirror-once", "-v"]).await.expect_code(2);
    assert!(!run.stderr.contains(" fetched "), "{}", run.stderr);
    assert!(look::refs(&mirror.url_at(&b, "hello")).await.is_empty());
    let repo = mirror.status_of(&owner.coordinate()).await;
    let problem = &repo["problems"][0];
    let reason = problem["reason"].as_str().unwrap_or_default();
    assert_eq!(problem["status"], "failing", "{repo:#}");
    assert!(reason.contains("is full") && reason.contains("limits.disk_floor_bytes"), "{reason}");

    let mirror = mirror.set("limits.disk_floor_bytes", 0);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    // There is no room any more, but none is needed either.
    owner.work.tag("v1");
    owner.update(&a).await;
    let mirror = mirror.set("limits.disk_floor_bytes", 1_i64 << 60);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
