//! A server that is slow to take a push holds back neither other repositories nor what is signed next.

use grasp_mirror_testkit::{
    Announcement, Chat, Daemon, Fault, Mirror, Owner, Protocol, Server, TestRelay, look,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// So long a server may take to answer a push.
const STALL_SECS: u32 = 600;
/// Only the push itself, not the question before it.
const PUSH: &str = "hello.git/git-receive-pack";

/// A repository on one server, a slow server behind a proxy, and a fast one.
struct Scene {
    a: Server,
    slow: Server,
    fast: Server,
    relay: TestRelay,
    owner: Owner,
    mirror: Mirror,
    ada: Chat,
}

impl Scene {
    async fn new() -> Self {
        let (a, slow, fast, relay) = tokio::join!(
            Server::start(),
            Server::builder().behind_proxy().start(),
            Server::start(),
            TestRelay::start()
        );
        let owner = Owner::new("hello");
        owner.publish(owner.announcement().at(&a), &a).await;
        let mirror = Mirror::new(BINARY).knows(&a).knows(&slow).knows(&fast).uses(&relay).watches(&owner);
        let mirror = mirror.set("limits.stall_timeout_secs", STALL_SECS);
        let (mirror, ada) = mirror.commanded_at(&relay).await;
        Self { a, slow, fast, relay, owner, mirror, ada }
    }

    async fn listening(&self) -> Daemon {
        let mut daemon = self.mirror.daemon().await;
        daemon.wait_log("cycle done").await;
        daemon.wait_idle().await;
        daemon
    }

    async fn pushes(&self, count: u64) {
        let proxy = self.slow.proxy();
        look::wait_until("a push is on its way", async || proxy.seen().count("POST", PUSH) >= count).await;
    }

    /// The slow server takes what was pushed to it.
    async fn recovers(&self) {
        self.slow.proxy().heal();
        look::wait_until("the slow server has it, too", async || {
            look::refs(&self.mirror.url_at(&self.slow, "hello")).await == self.owner.work.refs()
        })
        .await;
    }
}

#[tokio::test]
async fn a_push_that_takes_long_holds_back_no_other_repository() {
    let scene = Scene::new().await;
    let Scene { a, slow, owner, .. } = &scene;
    let announcement = owner.sign_announcement(Announcement::new(owner.public_key(), "second").at(a));
    for event in [&announcement, &owner.sign_state("second", &owner.work)] {
        a.send(event).await.expect_accepted();
    }
    let second = a.repo_url(&owner.public_key(), "second");
    owner.work.push_all(&second).await.unwrap_or_else(|said| panic!("{said}"));
    let daemon = scene.listening().await;

    slow.proxy().fault_on(PUSH, Fault::Hold);
    let before = slow.proxy().seen().count("POST", PUSH);
    owner.work.commit("README.md", "# hello again\n");
    owner.update(a).await;
    scene.pushes(before + 1).await;

    let state = owner.sign_state("second", &owner.work);
    a.send(&state).await.expect_accepted();
    owner.work.push_all(&second).await.unwrap_or_else(|said| panic!("{said}"));
    look::wait_until("the other one is followed", async || look::serves(slow, &state).await).await;
    let issue = owner.issue(&owner.coordinate().replace(":hello", ":second"), "Something is wrong");
    a.send(&issue).await.expect_accepted();
    look::wait_until("so is what is said of it", async || look::serves(slow, &issue).await).await;

    scene.recovers().await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
    drop(scene.relay);
}

#[tokio::test]
async fn a_newer_state_does_not_wait_for_a_push_of_the_older_one() {
    let scene = Scene::new().await;
    let Scene { a, slow, fast, owner, .. } = &scene;
    let daemon = scene.listening().await;

    slow.proxy().fault_on(PUSH, Fault::Hold);
    for number in 0..3 {
        let pushes = slow.proxy().seen().count("POST", PUSH);
        owner.work.commit("README.md", &format!("# hello {number}\n"));
        let state = owner.update(a).await;
        look::wait_until("the fast server has it", async || look::serves(fast, &state).await).await;
        if number == 0 {
            scene.pushes(pushes + 1).await;
        }
    }
    // It was not broken off, and nothing else was sent beside it.
    assert_eq!(slow.proxy().seen().count("POST", PUSH), 2, "the first one, and the one that is under way");
    let issue = owner.issue(&owner.coordinate(), "Nobody waits for long");
    a.send(&issue).await.expect_accepted();
    look::wait_until("the fast server has it", async || look::serves(fast, &issue).await).await;

    scene.recovers().await;
    look::wait_until("the report says so", async || {
        scene.mirror.status_of(&owner.coordinate()).await["copies"] == 3
    })
    .await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

#[tokio::test]
async fn a_newer_state_does_not_wait_for_a_cycle() {
    let mut scene = Scene::new().await;
    let daemon = scene.listening().await;
    scene.slow.wipe().await;
    let Scene { a, slow, fast, owner, ada, .. } = &scene;
    let before = slow.proxy().seen().count("POST", PUSH);
    slow.proxy().fault_on(PUSH, Fault::Hold);
    let question = ada.ask(Protocol::Nip17, "resync hello").await;
    scene.pushes(before + 1).await;

    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(a).await;
    look::wait_until("the fast server has it", async || look::serves(fast, &state).await).await;
    let answers = ada.answers(&question, 2).await;
    assert_eq!(answers.len(), 2, "the cycle has come to its end, too: {answers:?}");
    scene.recovers().await;
    daemon.stop().await;
}
