//! Where git data is to come from may be down, or want to be left alone: it is asked again, and not before.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Daemon, Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const FETCH: &str = "git-upload-pack";

/// The only source, a server that is to have what it has, and the daemon after its first cycle.
async fn scene() -> (Server, Server, TestRelay, Owner, Mirror, Daemon) {
    let (source, other, relay) =
        tokio::join!(Server::builder().behind_proxy().start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&source), &source).await;
    let mirror = Mirror::new(BINARY).knows(&source).knows(&other).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.retry_first_secs", 1);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    (source, other, relay, owner, mirror, daemon)
}

/// Why the copy on `server` is not in sync.
async fn reason(mirror: &Mirror, owner: &Owner, server: &Server) -> String {
    let repo = mirror.status_of(&owner.coordinate()).await;
    let problems = repo["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["server"] == server.url());
    problem.and_then(|problem| problem["reason"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_source_that_was_down_is_asked_again() {
    let (source, other, _relay, owner, mirror, daemon) = scene().await;
    source.proxy().fault_on(FETCH, Fault::Refuse);
    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(&source).await;
    look::wait_until("the copy fails", async || {
        reason(&mirror, &owner, &other).await.contains("no clone URL serves what was signed")
    })
    .await;
    source.proxy().heal();
    look::wait_until("the new state is there", async || look::serves(&other, &state).await).await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

#[tokio::test]
async fn a_source_that_wants_to_be_left_alone_is_left_alone() {
    let (source, other, _relay, owner, mirror, daemon) = scene().await;
    let asked = || source.proxy().seen().count("GET", FETCH);
    source.proxy().fault_on(FETCH, Fault::Later(429, 600));
    let before = asked();
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&source).await;
    // It is tried again all the same: another source may turn up.
    look::wait_until("the report says so", async || {
        reason(&mirror, &owner, &other).await.contains("wants to be left alone (for ")
    })
    .await;
    assert_eq!(asked(), before + 1);
    let reachable = |server: &serde_json::Value| server["url"] == source.url() && server["reachable"] == true;
    let status = mirror.status_json().await;
    assert!(status["servers"].as_array().unwrap().iter().any(reachable), "as a server it is as good as ever");
    daemon.stop().await;
}

#[tokio::test]
async fn a_source_that_is_gone_is_told_once_however_often_it_is_asked() {
    let (source, _other, _relay, owner, _mirror, daemon) = scene().await;
    let asked = || source.proxy().seen().count("GET", FETCH);
    source.proxy().fault_on(FETCH, Fault::Status(404));
    let before = asked();
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&source).await;
    look::wait_until("it is asked again and again", async || asked() >= before + 3).await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("no clone URL serves what was signed").count(), 1, "{log}");
}
