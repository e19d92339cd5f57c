//! Servers that also archive (GRASP-05), and something that is no GRASP server at all.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_server_that_archives_too_is_mirrored_to_and_a_plain_relay_is_not_used() {
    let archive =
        Server::builder().env("NGIT_ARCHIVE_ALL", "true").env("NGIT_ARCHIVE_READ_ONLY", "false").start();
    let (a, archive, relay) = tokio::join!(Server::start(), archive, TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a), &a).await;
    let mirror =
        Mirror::new(BINARY).knows(&a).knows(&archive).knows_url(relay.url()).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert!(look::serves(&archive, &published.state).await);
    let status = mirror.status_json().await;
    assert_eq!(status["totals"]["mirrors"], 2);
    assert_eq!(status["totals"]["servers"], 2);
    let unused =
        status["servers"].as_array().unwrap().iter().find(|server| server["url"] == relay.url()).unwrap();
    assert!(unused["unused"].as_str().unwrap().contains("no GRASP server"), "{status}");
    // All that is wanted is in sync; but what was configured as a server is none.
    mirror.verify().await.expect_code(2);
}
