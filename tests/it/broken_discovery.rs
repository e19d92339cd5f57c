//! A server that breaks off while it tells what there is has not said that there is nothing.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn an_unfinished_answer_is_not_an_empty_one() {
    let a = Server::builder().behind_proxy().start().await;
    let (b, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);

    // Enough for the information document, but the announcements are cut off. Only A has them.
    a.proxy().fault_on("/", Fault::CutDown(1_500));
    mirror.once().await.expect_code(2);
    let status = mirror.status_json().await;
    assert_eq!(status["totals"]["repos"], 0, "it was cut off: {status:#}");
    let server =
        |url: String| status["servers"].as_array().unwrap().iter().find(|s| s["url"] == url).cloned();
    assert_eq!(server(a.url()).unwrap()["reachable"], false, "{status:#}");
    assert_eq!(server(b.url()).unwrap()["reachable"], true, "{status:#}");

    a.proxy().heal();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}
