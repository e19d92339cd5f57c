//! A server that cannot be worked with is asked ever less often, across restarts, and as late as it wants; `resync`, or
//! its coming back, ends that.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use grasp_mirror_testkit::{Daemon, Fault, Mirror, Owner, Protocol, Server, TestRelay, look};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const DOWN: &str = "the server is down";

/// One server with the owner's repository, and one behind a proxy for the bot's copy.
struct Stage {
    a: Server,
    b: Server,
    relay: TestRelay,
    owner: Owner,
}

impl Stage {
    async fn set() -> Self {
        let (a, b, relay) =
            tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
        let owner = Owner::new("hello").at_home_on(&relay);
        owner.publish(owner.announcement().at(&a), &a).await;
        Self { a, b, relay, owner }
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(BINARY).knows(&self.a).knows(&self.b).uses(&self.relay).watches(&self.owner)
    }

    /// What is wrong with the mirror on the second server.
    async fn problem(&self, mirror: &Mirror) -> Value {
        mirror.status_of(&self.owner.coordinate()).await["problems"][0].clone()
    }

    async fn is_in_sync(&self, mirror: &Mirror) {
        look::wait_until("all is in sync", async || {
            mirror.status_of(&self.owner.coordinate()).await["copies"] == 2
        })
        .await;
        assert_eq!(look::refs(&mirror.url_at(&self.b, "hello")).await, self.owner.work.refs());
    }
}

/// The values of a field in the lines that say that a server is down.
fn told(daemon: &Daemon, field: &str) -> Vec<u64> {
    let log = daemon.log();
    let down = log.lines().filter(|line| line.contains(DOWN));
    let value = |line: &str| {
        let (_, rest) = line.split_once(&format!("{field}="))?;
        rest.split_whitespace().next()?.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    down.filter_map(value).collect()
}

fn secs_until(problem: &Value) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    problem["retry_at"].as_u64().unwrap_or_default().saturating_sub(now)
}

#[tokio::test]
async fn cycles_come_and_go_and_the_waits_double() {
    let stage = Stage::set().await;
    stage.b.proxy().fault(Fault::Status(503));
    let mirror = stage.mirror().set("bot.cycle_interval_secs", 1).set("limits.retry_first_secs", 1);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("failures=4").await;
    let waits = told(&daemon, "next_try_secs");
    assert!(waits.len() >= 4, "{}", daemon.log());
    for (wait, full) in waits.iter().zip([1, 2, 4, 8]) {
        assert!(*wait <= full && *wait >= full - full / 4, "{waits:?}");
    }
    // However long each takes: sooner or later the wait is longer.
    look::wait_until("a cycle goes by in which it is not asked", async || {
        daemon.log().matches("cycle done").count() > told(&daemon, "failures").len()
    })
    .await;
    // A server that answers is asked like any other.
    stage.b.proxy().heal();
    stage.is_in_sync(&mirror).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_changes_nothing_and_a_resync_does() {
    let stage = Stage::set().await;
    stage.b.proxy().fault(Fault::Status(503));
    let mirror = stage.mirror().set("bot.cycle_interval_secs", 1).set("limits.retry_first_secs", 3600);
    let (mirror, ada) = mirror.commanded_at(&stage.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let before = stage.problem(&mirror).await;
    assert_eq!(before["status"], "unreachable", "{before}");
    assert!(secs_until(&before) > 2_400, "{before}");
    let why = ada.answer_to(Protocol::Nip17, "why hello").await;
    assert!(why.contains("HTTP 503") && why.contains("next try in"), "{why}");
    daemon.stop().await;

    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    assert!(!daemon.log().contains(DOWN), "asked again at once:\n{}", daemon.log());
    let after = stage.problem(&mirror).await;
    assert_eq!((&after["retry_at"], &after["reason"]), (&before["retry_at"], &before["reason"]));

    ada.resync("resync hello").await;
    assert_eq!(told(&daemon, "failures"), [1], "begins anew:\n{}", daemon.log());
    stage.b.proxy().heal();
    ada.resync("resync hello").await;
    stage.is_in_sync(&mirror).await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_that_comes_back_is_heard_long_before_its_next_try() {
    let stage = Stage::set().await;
    stage.b.proxy().fault(Fault::Refuse);
    let mirror = stage.mirror().set("limits.retry_first_secs", 3600);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    assert!(secs_until(&stage.problem(&mirror).await) > 2_400);
    stage.b.proxy().heal();
    stage.is_in_sync(&mirror).await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_that_says_when_is_left_alone_until_then() {
    let stage = Stage::set().await;
    stage.b.proxy().fault(Fault::Later(429, 1200));
    let mirror = stage.mirror().set("bot.cycle_interval_secs", 1).set("limits.retry_first_secs", 1);
    let (mirror, ada) = mirror.commanded_at(&stage.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let problem = stage.problem(&mirror).await;
    let wait = secs_until(&problem);
    assert!(wait > 1_100 && wait <= 1_200, "{problem}");
    // It is listened to again, and still not asked.
    stage.b.proxy().heal();
    look::wait_until("it is listened to", async || !stage.b.proxy().seen().verb("REQ").is_empty()).await;
    let from = daemon.log().matches("cycle done").count();
    look::wait_until("cycles go by", async || daemon.log().matches("cycle done").count() > from + 2).await;
    assert_eq!(stage.problem(&mirror).await["retry_at"], problem["retry_at"]);
    ada.resync("resync").await;
    stage.is_in_sync(&mirror).await;
    daemon.stop().await;
}

#[tokio::test]
async fn git_that_says_when_is_left_alone_until_then_whatever_happens() {
    let stage = Stage::set().await;
    stage.b.proxy().fault_on("git-receive-pack", Fault::Later(503, 1200));
    let mirror = stage.mirror().set("bot.cycle_interval_secs", 1).set("limits.retry_first_secs", 1);
    let (mirror, ada) = mirror.commanded_at(&stage.relay).await;
    let daemon = mirror.daemon().await;
    look::wait_until("it was refused", async || {
        daemon.log().contains("cycle done") && stage.problem(&mirror).await["status"] == "failing"
    })
    .await;
    let problem = stage.problem(&mirror).await;
    let wait = secs_until(&problem);
    assert!(wait > 1_100 && wait <= 1_200, "{problem}");
    stage.b.proxy().heal();
    stage.b.proxy().reset();
    stage.owner.work.commit("README.md", "# hello again\n");
    let state = stage.owner.update(&stage.a).await;
    look::wait_until("the new state was looked at", async || {
        mirror.status_of(&stage.owner.coordinate()).await["state"] == state.id.to_hex()
    })
    .await;
    assert_eq!(stage.b.proxy().seen().count("GET", "git-receive-pack"), 0);
    assert_eq!(stage.problem(&mirror).await["retry_at"], problem["retry_at"]);
    ada.resync("resync").await;
    stage.is_in_sync(&mirror).await;
    daemon.stop().await;
}

/// A cycle leaves to the next one what it does not come to in its time, here a second: so somebody's word that nothing is to
/// be left alone goes along.
#[tokio::test]
async fn a_resync_that_has_not_time_enough_goes_on() {
    let mut stage = Stage::set().await;
    stage.a = Server::builder().behind_proxy().start().await;
    let owner = &stage.owner;
    owner.publish(owner.announcement().at(&stage.a), &stage.a).await;
    stage.b.proxy().fault_on("git-receive-pack", Fault::Later(503, 1200));
    let mirror = stage.mirror().set("bot.cycle_interval_secs", 1).set("limits.stall_timeout_secs", 600);
    let (mirror, ada) = mirror.commanded_at(&stage.relay).await;
    let daemon = mirror.daemon().await;
    look::wait_until("it was refused", async || {
        daemon.log().contains("cycle done") && stage.problem(&mirror).await["status"] == "failing"
    })
    .await;
    stage.b.proxy().heal();
    let source = stage.a.proxy();
    source.fault_on("git-upload-pack", Fault::Hold);
    source.reset();
    ada.ask(Protocol::Nip17, "resync").await;
    look::wait_until("its refs are compared", async || source.seen().count("GET", "git-upload-pack") > 0)
        .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    source.heal();
    stage.is_in_sync(&mirror).await;
    assert!(daemon.log().contains("unfinished=true"), "{}", daemon.log());
    daemon.stop().await;
}

#[tokio::test]
async fn nor_is_anything_else_brought_there_before() {
    leaves_alone_what_one_mirror_heard(false).await;
}

#[tokio::test]
async fn nor_after_a_restart() {
    leaves_alone_what_one_mirror_heard(true).await;
}

async fn leaves_alone_what_one_mirror_heard(restarts: bool) {
    let stage = Stage::set().await;
    let other = Owner::new("other").at_home_on(&stage.relay);
    other.publish(other.announcement().at(&stage.a), &stage.a).await;
    let mirror = stage.mirror().watches(&other).set("bot.cycle_interval_secs", 1);
    let (mirror, ada) = mirror.commanded_at(&stage.relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    stage.is_in_sync(&mirror).await;
    look::wait_until("the other one is in sync", async || {
        mirror.status_of(&other.coordinate()).await["copies"] == 2
    })
    .await;
    stage.b.proxy().fault_on("git-receive-pack", Fault::Later(503, 1200));
    stage.owner.work.commit("README.md", "# hello again\n");
    stage.owner.update(&stage.a).await;
    look::wait_until("it was refused", async || stage.problem(&mirror).await["status"] == "failing").await;
    stage.b.proxy().heal();
    if restarts {
        daemon.stop().await;
        daemon = mirror.daemon().await;
        daemon.wait_log("cycle done").await;
    }
    stage.b.proxy().reset();

    other.work.commit("README.md", "# other again\n");
    let state = other.update(&stage.a).await;
    let problem = async || mirror.status_of(&other.coordinate()).await["problems"][0].clone();
    look::wait_until("it waits, too", async || {
        mirror.status_of(&other.coordinate()).await["state"] == state.id.to_hex()
            && problem().await["status"] == "failing"
    })
    .await;
    let problem = problem().await;
    assert!(problem["reason"].as_str().unwrap().contains("503"), "{problem}");
    let wait = secs_until(&problem);
    assert!(wait > 1_000 && wait <= 1_201, "{problem}");
    let seen = stage.b.proxy().seen();
    assert_eq!(seen.count("GET", "git-receive-pack") + seen.count("POST", "git-receive-pack"), 0);
    assert!(seen.verb("EVENT").is_empty(), "{:?}", seen.messages);

    ada.resync("resync other").await;
    assert_eq!(look::refs(&mirror.url_at(&stage.b, "other")).await, other.work.refs());
    daemon.stop().await;
}
