//! A state that takes most of a repository away is held: servers keep what they have until somebody decides. What is
//! taken away then is kept here, and can be given back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{path::Path, time::Duration};

use grasp_mirror_testkit::{Fault, Mirror, Owner, Protocol, Scene, Server, TestRelay, look, send, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// Three more branches, with a commit each, and a tag.
fn grow(owner: &Owner) {
    let work = &owner.work;
    for name in ["one", "two", "three"] {
        work.switch("main");
        work.branch(name);
        work.commit(&format!("{name}.txt"), name);
    }
    work.switch("main");
}

fn shrink(owner: &Owner) {
    for name in ["one", "two", "three"] {
        owner.work.delete_branch(name);
    }
}

/// Why the mirrors of the owner's repository are blocked; all for the same reason.
async fn blocked(mirror: &Mirror, owner: &Owner) -> String {
    let status = mirror.status_of(&owner.coordinate()).await;
    let problems = status["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{status:#}");
    assert!(problems.iter().all(|problem| problem["status"] == "blocked"), "{status:#}");
    assert!(problems.iter().all(|problem| problem["reason"] == problems[0]["reason"]), "{status:#}");
    problems[0]["reason"].as_str().unwrap().to_owned()
}

async fn git(folder: &Path, args: &[&str]) -> String {
    let mut git = tools::git(folder);
    git.args(args);
    tools::must(git).await.trim().to_owned()
}

#[tokio::test]
async fn a_message_approves_and_what_was_taken_away_comes_back_when_it_is_asked_for() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    grow(owner);
    owner.update(&scene.a).await;
    let (mirror, ada) = scene.mirror(BINARY).watches(owner).commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    ada.resync("resync").await;
    let (url, before) = (mirror.url_at(&scene.b, "hello"), owner.work.refs());
    assert_eq!(look::refs(&url).await, before);
    let then = now();
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    shrink(owner);
    owner.update(&scene.a).await;
    ada.resync("resync").await;
    assert_eq!(look::refs(&url).await, before, "the server keeps what it has");
    let reason = blocked(&mirror, owner).await;
    assert!(reason.starts_with("held until 2") && reason.contains("removes 3 of 4"), "{reason}");
    assert!(reason.ends_with("send: approve hello, or reject hello"), "{reason}");
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains("blocked") && why.contains("approve hello, or reject hello"), "{why}");
    look::wait_until("people are told", async || {
        ada.heard().await.iter().any(|heard| heard.about.is_empty() && heard.text.contains("I hold it until"))
    })
    .await;

    let done = ada.resync("approve hello").await;
    assert!(done.contains("2 of 2 mirrors"), "{done}");
    assert_eq!(look::refs(&url).await, owner.work.refs());
    let archive = ada.answer_to(Protocol::Nip17, "archive hello").await;
    for name in ["one", "two", "three"] {
        let tip: String = before[&format!("refs/heads/{name}")].chars().take(12).collect();
        assert!(archive.contains(&format!(" {name}: was {tip}, kept until ")), "{archive}");
    }

    // Beside the daemon.
    let kept = mirror.run(&["archive", "hello", "--json"]).await.expect_code(0).json();
    assert_eq!(kept["kept"].as_array().unwrap().len(), 3, "{kept}");
    let into = mirror.home().join("restored");
    let (at, folder) = (then.to_string(), into.display().to_string());
    let restore = ["restore", "hello", "--at", &at, "--into", &folder];
    let said = mirror.run(&restore).await.expect_code(0).stdout;
    assert!(said.contains("exactly what was here"), "{said}");
    git(&into, &["fsck", "--full", "--strict"]).await;
    assert_eq!(git(&into, &["status", "--porcelain", "--branch"]).await, "## main");
    let refs = git(&into, &["for-each-ref", "--format=%(refname) %(objectname)"]).await;
    let expected: Vec<String> = before.iter().map(|(name, id)| format!("{name} {id}")).collect();
    assert_eq!(refs.lines().collect::<Vec<_>>(), expected);
    let again = mirror.run(&restore).await.expect_code(1).stderr;
    assert!(again.contains("is not empty"), "{again}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_rejected_state_is_not_followed_and_a_newer_one_is() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    grow(owner);
    owner.update(&scene.a).await;
    let mirror = scene.mirror(BINARY).watches(owner);
    mirror.once().await.expect_code(0);
    let (url, before) = (mirror.url_at(&scene.b, "hello"), owner.work.refs());
    mirror.run(&["approve", "hello"]).await.expect_code(2);

    shrink(owner);
    owner.update(&scene.a).await;
    mirror.once().await.expect_code(2);
    mirror.run(&["reject", "hello"]).await.expect_code(0);
    mirror.once().await.expect_code(2);
    let reason = blocked(&mirror, owner).await;
    assert!(reason.starts_with("rejected: ") && reason.contains("approve hello"), "{reason}");
    assert_eq!(look::refs(&url).await, before);

    // It removes three of four as well.
    owner.work.commit("more", "1");
    owner.update(&scene.a).await;
    mirror.once().await.expect_code(2);
    assert!(blocked(&mirror, owner).await.starts_with("held until "), "a newer one is judged anew");
    mirror.run(&["approve", "hello"]).await.expect_code(0);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, owner.work.refs());
}

#[tokio::test]
async fn an_empty_state_is_held_and_followed_when_it_is_approved() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    let mirror = scene.mirror(BINARY).watches(owner);
    mirror.once().await.expect_code(0);
    let (url, before) = (mirror.url_at(&scene.b, "hello"), owner.work.refs());

    let empty = owner.sign(30618, "", &[&["d", "hello"]]);
    for to in [scene.a.url(), scene.relay.url().to_owned()] {
        send(&empty, to).await;
    }
    mirror.once().await.expect_code(2);
    assert!(blocked(&mirror, owner).await.contains("removes 1 of 1"));
    assert_eq!(look::refs(&url).await, before);

    mirror.run(&["approve", "hello"]).await.expect_code(0);
    mirror.once().await.expect_code(0);
    assert!(look::refs(&url).await.is_empty());
    assert!(look::refs(&owner.url_at(&scene.a)).await.is_empty());
    mirror.once().await.expect_code(0);
    let archive = mirror.run(&["archive", "hello"]).await.expect_code(0).stdout;
    assert!(archive.contains(" main: was "), "{archive}");
}

#[tokio::test]
async fn an_operator_can_do_without() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    grow(owner);
    owner.update(&scene.a).await;
    let mirror = scene.mirror(BINARY).watches(owner).set("mirror.hold_hours", 0);
    mirror.once().await.expect_code(0);
    shrink(owner);
    owner.update(&scene.a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&scene.b, "hello")).await, owner.work.refs());
}

#[tokio::test]
async fn the_end_of_a_hold_is_followed_though_no_cycle_is_due() {
    let scene = Scene::set().await;
    let owner = &scene.owner;
    grow(owner);
    owner.update(&scene.a).await;
    // Less than half a minute.
    let mirror = scene.mirror(BINARY).watches(owner).set("mirror.hold_hours", 0.007);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let (url, before) = (mirror.url_at(&scene.b, "hello"), owner.work.refs());
    assert_eq!(look::refs(&url).await, before);
    daemon.wait_idle().await;

    shrink(owner);
    owner.update(&scene.a).await;
    look::wait_until("it is held, and the server keeps what it has", async || {
        look::refs(&url).await == before
            && mirror.status_of(&owner.coordinate()).await["problems"][1]["status"] == "blocked"
    })
    .await;
    look::wait_until("its time is over", async || look::refs(&url).await == owner.work.refs()).await;
    look::wait_until("the report says so", async || {
        mirror.status_of(&owner.coordinate()).await["copies"] == 2
    })
    .await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

/// What rests is still in every report, and what is said by the command line about it is found.
#[tokio::test]
async fn what_is_held_stays_in_sight_while_others_are_walked() {
    let scene = Scene::set().await;
    let mut owner = scene.owner;
    owner.d = "second".to_owned();
    owner.publish(owner.announcement().at(&scene.a), &scene.a).await;
    let second = owner.coordinate();
    owner.d = "hello".to_owned();
    grow(&owner);
    owner.update(&scene.a).await;
    let mirror = Mirror::new(BINARY).knows(&scene.a).knows(&scene.b).uses(&scene.relay).watches(&owner);
    let mirror = mirror.set("bot.cycle_interval_secs", 1);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    shrink(&owner);
    owner.update(&scene.a).await;
    let reason = async || {
        let status = mirror.status_of(&owner.coordinate()).await;
        status["problems"][0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    look::wait_until("it is held", async || reason().await.starts_with("held until ")).await;

    let number = async || mirror.status_json().await["cycle"]["number"].as_u64().unwrap_or_default();
    for _ in 0..2 {
        let issue = owner.issue(&second, "Something");
        scene.a.send(&issue).await.expect_accepted();
        look::wait_until("the other one is walked", async || look::serves(&scene.b, &issue).await).await;
        let from = number().await;
        look::wait_until("cycles go by", async || number().await >= from + 3).await;
        assert_eq!(mirror.status_json().await["totals"]["repos"], 2);
        assert!(reason().await.starts_with("held until "));
    }
    mirror.run(&["reject", "hello"]).await.expect_code(0);
    look::wait_until("the no is heard", async || reason().await.starts_with("rejected: ")).await;
    mirror.run(&["approve", "hello"]).await.expect_code(0);
    let url = mirror.url_at(&scene.b, "hello");
    look::wait_until("so is the yes", async || look::refs(&url).await == owner.work.refs()).await;
    daemon.stop().await;
}

#[tokio::test]
async fn it_is_too_late_for_a_no_when_a_kill_left_the_state_with_a_server() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    grow(&owner);
    owner.update(&a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    shrink(&owner);
    owner.work.commit("more", "1");
    owner.update(&a).await;
    mirror.once().await.expect_code(2);
    mirror.run(&["approve", "hello"]).await.expect_code(0);
    b.proxy().reset();

    b.proxy().fault_on("git-receive-pack", Fault::Hang);
    let daemon = mirror.daemon().await;
    look::wait_until("it is pushed", async || b.proxy().seen().count("GET", "git-receive-pack") > 0).await;
    daemon.kill();
    b.proxy().heal();
    let said = mirror.run(&["reject", "hello"]).await.expect_code(2);
    assert!(said.stdout.contains("Too late"), "{}{}", said.stdout, said.stderr);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}
