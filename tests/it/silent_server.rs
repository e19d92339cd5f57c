//! A server that leaves pushes without an answer holds up neither other repositories nor the cycle.

#![allow(clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const PUSH: &str = "/git-receive-pack";
const LISTING: &str = "service=git-upload-pack";

/// A server to begin with, one that a proxy may silence, a relay, and repositories on the first.
struct Scene {
    a: Server,
    silent: Server,
    relay: TestRelay,
    owners: Vec<Owner>,
}

impl Scene {
    async fn new(repositories: usize) -> Self {
        let (a, silent, relay) =
            tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
        let mut owners = Vec::new();
        for number in 0..repositories {
            let owner = Owner::new(&format!("repository-{number}")).at_home_on(&relay);
            owner.publish(owner.announcement().at(&a), &a).await;
            owners.push(owner);
        }
        Self { a, silent, relay, owners }
    }

    fn mirror(&self, stall_secs: u32) -> Mirror {
        let mirror = Mirror::new(BINARY).knows(&self.a).knows(&self.silent).uses(&self.relay);
        let mirror = mirror.set("limits.stall_timeout_secs", stall_secs);
        self.owners.iter().fold(mirror, |mirror, owner| mirror.watches(owner))
    }
}

#[tokio::test]
async fn what_is_signed_meanwhile_is_brought_to_the_others_at_once() {
    // More than are followed at the same time.
    let scene = Scene::new(7).await;
    let other = Server::start().await;
    let mirror = scene.mirror(600).knows(&other);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    scene.silent.proxy().fault_on(PUSH, Fault::Hold);
    let mut states = Vec::new();
    for owner in &scene.owners {
        owner.work.commit("README.md", "# again\n");
        states.push(owner.update(&scene.a).await);
    }
    for state in &states {
        look::wait_until("it is on the other server", async || look::serves(&other, state).await).await;
    }
    scene.silent.proxy().heal();
    for state in &states {
        look::wait_until("it is on this one, too", async || look::serves(&scene.silent, state).await).await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn not_every_mirror_waits_for_the_same_server_in_vain() {
    // More than are pushed to one server at the same time, and so few that their events fit into a minute's allowance.
    let scene = Scene::new(13).await;
    let mirror = scene.mirror(5);
    scene.silent.proxy().fault_on(PUSH, Fault::Hang);
    mirror.once().await.expect_code(2);
    let pushes = scene.silent.proxy().seen().count("POST", PUSH);
    assert!(pushes < 13, "{pushes}");
    let status = mirror.status_json().await;
    let repos = status["repos"].as_array().into_iter().flatten();
    let problems: Vec<_> = repos.flat_map(|repo| repo["problems"].as_array().into_iter().flatten()).collect();
    assert_eq!(problems.len(), 13, "{status:#}");
    assert!(problems.iter().all(|problem| problem["status"] == "failing"), "{status:#}");
    let reasons = problems.iter().filter_map(|problem| problem["reason"].as_str());
    let (left_alone, asked): (Vec<_>, Vec<_>) =
        reasons.partition(|reason| reason.starts_with("left alone for a while, since it does not answer: "));
    assert!(!left_alone.is_empty() && !asked.is_empty(), "{status:#}");

    scene.silent.proxy().heal();
    scene.silent.proxy().drop_connections();
    mirror.set("limits.stall_timeout_secs", 600).once().await.expect_code(0);
}

#[tokio::test]
async fn no_mirror_is_said_to_be_in_sync_with_what_its_server_was_not_seen_to_serve() {
    let scene = Scene::new(1).await;
    let other = Server::start().await;
    let mirror = scene.mirror(600).knows(&other).set("limits.retry_first_secs", 1);
    let owner = &scene.owners[0];
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    for fault in [None, Some(Fault::Refuse)] {
        match fault {
            None => scene.silent.proxy().silence(true),
            Some(fault) => {
                scene.silent.proxy().fault(fault);
                scene.silent.proxy().drop_connections();
            }
        }
        owner.work.commit("README.md", &format!("# {fault:?}\n"));
        let state = owner.update(&scene.a).await;
        look::wait_until("it is on the other server", async || look::serves(&other, &state).await).await;
        look::wait_until("it is told who lacks it", async || {
            let repo = mirror.status_of(&owner.coordinate()).await;
            let lacks = |problem: &serde_json::Value| {
                problem["server"] == scene.silent.url() && problem["status"] == "unreachable"
            };
            let problems = repo["problems"].as_array().is_some_and(|problems| problems.iter().any(lacks));
            // Never before that.
            assert!(problems || repo["state"] != state.id.to_hex(), "{repo:#}");
            problems && repo["copies"] == 2
        })
        .await;
        scene.silent.proxy().heal();
        scene.silent.proxy().silence(false);
        look::wait_until("it is on this one, too", async || look::serves(&scene.silent, &state).await).await;
        look::wait_until("that is told", async || mirror.status().await.code == 0).await;
        daemon.wait_idle().await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn not_every_look_in_depth_waits_for_the_same_server_in_vain() {
    // More than are looked at in depth at the same time.
    let scene = Scene::new(13).await;
    let (mirror, ada) = scene.mirror(5).commanded_at(&scene.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    scene.silent.proxy().fault_on(LISTING, Fault::Hang);
    scene.silent.proxy().reset();
    ada.resync("resync").await;
    let listings = scene.silent.proxy().seen().count("GET", LISTING);
    assert!((1..13).contains(&listings), "{listings}");
    daemon.stop().await;
}
