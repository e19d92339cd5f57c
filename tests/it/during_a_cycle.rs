//! A cycle that waits for a server keeps nobody else waiting: questions are answered, and `pause`, `deny`
//! and `unwatch` end what they are about at once.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn the_bot_listens_while_a_push_hangs() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let (mirror, ada) = mirror.set("limits.stall_timeout_secs", 600).commanded_at(&relay).await;
    b.proxy().fault_on("git-receive-pack", Fault::Hang);
    let pushes = || b.proxy().seen().requests.keys().any(|(_, path)| path.contains("git-receive-pack"));
    let hangs = async || look::wait_until("the bot pushes to B", async || pushes()).await;
    let daemon = mirror.daemon().await;
    hangs().await;
    let resync = ada.ask(Protocol::Nip17, "resync").await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for text in ["status", "why hello", "list"] {
            ada.answer_to(protocol, text).await;
        }
    }
    assert_eq!(ada.answers_now(&resync).await.len(), 1, "it waits for its turn");

    // Told to pause, it does not wait for the push; whoever waits for a resync hears so.
    ada.answer_to(Protocol::Nip17, "pause").await;
    ada.answers(&resync, 2).await;
    b.proxy().heal();
    b.proxy().reset();
    ada.catch_up().await;
    assert!(!pushes(), "{:?}", b.proxy().seen().requests);
    b.proxy().fault_on("git-receive-pack", Fault::Hang);
    ada.answer_to(Protocol::Nip17, "resume").await;
    hangs().await;

    // Nor when it may not push there any more, or nothing of the owner's anywhere.
    for about in [b.url(), owner.npub()] {
        ada.answer_to(Protocol::Nip17, &format!("deny {about}")).await;
        ada.resync("resync").await;
        b.proxy().reset();
        ada.resync("resync").await;
        assert!(!pushes(), "{:?}", b.proxy().seen().requests);
        ada.answer_to(Protocol::Nip17, &format!("allow {about}")).await;
        hangs().await;
    }

    // Neither does it when it is no longer to mirror what it pushes.
    ada.answer_to(Protocol::Nip17, &format!("unwatch {}", owner.npub())).await;
    let resync = ada.ask(Protocol::Nip17, "Resync").await;
    ada.answers(&resync, 1).await;
    b.proxy().heal();
    b.proxy().reset();
    ada.answer_to(Protocol::Nip17, &format!("watch {}", owner.npub())).await;
    look::wait_until("it is mirrored after all", async || {
        look::refs(&mirror.url_at(&b, "hello")).await == owner.work.refs()
    })
    .await;
    daemon.stop().await;
}

/// Neither does a job that follows between cycles what was heard; only the rule ends it here.
#[tokio::test]
async fn a_job_is_dropped_when_a_rule_forbids_what_it_pushes() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let (mirror, ada) = mirror.set("limits.stall_timeout_secs", 600).commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let pushes = || b.proxy().seen().requests.keys().any(|(_, path)| path.contains("git-receive-pack"));
    for about in [b.url(), owner.npub()] {
        daemon.wait_idle().await;
        let before = look::refs(&mirror.url_at(&b, "hello")).await;
        assert_eq!(before, owner.work.refs());
        b.proxy().fault_on("git-receive-pack", Fault::Hang);
        b.proxy().reset();
        owner.work.commit("README.md", &format!("# hello, {about}\n"));
        let state = owner.update(&a).await;
        look::wait_until("a job pushes to B", async || pushes()).await;

        ada.answer_to(Protocol::Nip17, &format!("deny {about}")).await;
        look::wait_until("its mirror is blocked", async || {
            let repo = mirror.status_of(&owner.coordinate()).await;
            let mut problems = repo["problems"].as_array().into_iter().flatten();
            problems.any(|problem| problem["server"] == b.url() && problem["status"] == "blocked")
        })
        .await;
        b.proxy().heal();
        b.proxy().reset();
        ada.resync("resync").await;
        assert!(!pushes(), "{:?}", b.proxy().seen().requests);
        assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, before);

        ada.answer_to(Protocol::Nip17, &format!("allow {about}")).await;
        look::wait_until("it gets there after all", async || look::serves(&b, &state).await).await;
    }
    daemon.stop().await;
}
