//! A server that is slow keeps nobody waiting but itself, and what it has is not sent to it again.

use std::{collections::BTreeSet, process::Stdio};

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Bytes a second that the slow server takes: an event or two.
const SLOW: Fault = Fault::Slow(2_000);

/// More mirrors than are walked at one server at the same time; what they need fits into a minute's allowance.
const MANY: usize = 24;

#[tokio::test]
async fn the_fast_server_is_done_while_the_slow_one_is_at_work_and_a_kill_costs_nothing_twice() {
    let (a, fast, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let slow = Server::builder().behind_proxy().start().await;
    let mut mirror =
        Mirror::new(BINARY).knows(&a).knows(&fast).knows(&slow).uses(&relay).set("limits.transfers", 2);
    mirror = mirror.set("limits.stall_timeout_secs", 600);
    let mut owners = Vec::new();
    for number in 0..12 {
        let owner = Owner::new(&format!("repository-{number}")).at_home_on(&relay);
        owner.publish(owner.announcement().at(&a), &a).await;
        mirror = mirror.watches(&owner);
        owners.push(owner);
    }
    let has = async |server: &Server| {
        let mut has = BTreeSet::new();
        for owner in &owners {
            if look::refs(&mirror.url_at(server, &owner.d)).await == owner.work.refs() {
                has.insert(owner.d.clone());
            }
        }
        has
    };
    slow.proxy().fault_on("/", SLOW);
    // However long all else takes here, this one is still at work when the process is killed.
    slow.proxy().fault_on("/repository-7.git/git-receive-pack", Fault::Hold);
    let mut run = mirror.command(&["mirror-once"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    look::wait_until("the fast server has everything", async || has(&fast).await.len() == 12).await;
    look::wait_until("the slow one has something", async || !has(&slow).await.is_empty()).await;
    look::wait_until("status tells how far it is", async || {
        let progress = mirror.status_json().await["progress"].clone();
        progress["servers"].as_array().is_some_and(|servers| {
            servers
                .iter()
                .any(|server| server["url"] == slow.url().as_str() && server["left"].as_u64() > Some(0))
        })
    })
    .await;
    assert!(mirror.status().await.stdout.contains("A check is running"));
    run.kill().unwrap();
    run.wait().unwrap();
    let before = has(&slow).await;
    assert!(!before.contains("repository-7"), "nothing was held back");

    slow.proxy().heal();
    slow.proxy().drop_connections();
    slow.proxy().reset();
    mirror.once().await.expect_code(0);
    assert_eq!(has(&slow).await.len(), 12);
    let bot = mirror.bot_pubkey().to_hex();
    let seen = slow.proxy().seen();
    for d in &before {
        let again = |message: &&&str| message.contains(&bot) && message.contains(&format!("[\"d\",\"{d}\"]"));
        assert_eq!(seen.verb("EVENT").iter().find(again), None, "{d} was there already");
        assert_eq!(seen.count("POST", &format!("/{d}.git/git-receive-pack")), 0, "{d} was there already");
    }
    assert!(mirror.status_json().await["progress"].is_null());
}

#[tokio::test]
async fn the_daemon_reports_what_waits_for_its_turn_and_goes_on_at_once() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let slow = Server::builder().behind_proxy().start().await;
    let mut mirror =
        Mirror::new(BINARY).knows(&a).knows(&slow).uses(&relay).set("bot.cycle_interval_secs", 4);
    let mut owners = Vec::new();
    for number in 0..MANY {
        let owner = Owner::new(&format!("repository-{number}")).at_home_on(&relay);
        owner.publish(owner.announcement().at(&a).at(&slow), &a).await;
        mirror = mirror.watches(&owner);
        owners.push(owner);
    }
    slow.proxy().fault_on("/", SLOW);
    let daemon = mirror.start_daemon();
    let mut waited = None;
    look::wait_until("a report says that some wait for their turn", async || {
        let status = mirror.status_json().await;
        let problems = status["repos"].as_array().into_iter().flatten();
        let problems = problems.flat_map(|repo| repo["problems"].as_array().into_iter().flatten());
        waited = problems
            .filter(|problem| {
                problem["reason"].as_str().is_some_and(|reason| reason.starts_with("waits its turn"))
            })
            .map(|problem| (problem["status"].clone(), problem["retry_at"].clone()))
            .next();
        waited.is_some()
    })
    .await;
    assert_eq!(waited, Some(("pending".into(), serde_json::Value::Null)));
    slow.proxy().heal();
    slow.proxy().drop_connections();
    look::wait_until("later cycles bring the rest", async || mirror.status().await.code == 0).await;
    for owner in &owners {
        assert_eq!(look::refs(&owner.url_at(&slow)).await, owner.work.refs());
    }
    daemon.stop().await;
}
