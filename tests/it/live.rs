//! Between cycles: what is heard of a repository is followed at once, from whichever server or relay it comes.

use std::time::Instant;

use grasp_mirror_testkit::{Fault, Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// The daemon after its first cycle, with the next one an hour away.
async fn listening(mirror: &Mirror) -> grasp_mirror_testkit::Daemon {
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    daemon
}

/// A server that alone sees what the owner says, behind a proxy, another one, and the daemon that listens.
async fn heard_through_a_proxy() -> (Server, Server, TestRelay, Owner, Mirror, grasp_mirror_testkit::Daemon) {
    let (a, b, relay) =
        tokio::join!(Server::builder().behind_proxy().start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let daemon = listening(&mirror).await;
    (a, b, relay, owner, mirror, daemon)
}

#[tokio::test]
async fn a_state_that_one_server_saw_reaches_all_and_the_report_says_so() {
    let (a, b, c, relay) =
        tokio::join!(Server::start(), Server::start(), Server::start(), TestRelay::start());
    // At home nowhere: no relay ever sees what it signs.
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    let daemon = listening(&mirror).await;

    let mut took = Vec::new();
    for number in 0..5 {
        owner.work.commit("README.md", &format!("# hello {number}\n"));
        let state = owner.update(&a).await;
        let start = Instant::now();
        look::wait_until("the new state is everywhere", async || {
            look::serves(&b, &state).await && look::serves(&c, &state).await
        })
        .await;
        took.push(start.elapsed());
        for server in [&b, &c] {
            assert_eq!(look::refs(&mirror.url_at(server, "hello")).await, owner.work.refs());
        }
        look::wait_until("the report says so", async || {
            let repo = mirror.status_of(&owner.coordinate()).await;
            repo["state"] == state.id.to_hex() && repo["copies"] == 3
        })
        .await;
    }
    took.sort();
    println!("from the owner's push to the last server: {took:?}");
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

#[tokio::test]
async fn what_people_say_is_carried_on_and_a_new_repository_is_found() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let daemon = listening(&mirror).await;

    let issue = owner.issue(&owner.coordinate(), "Something is wrong");
    a.send(&issue).await.expect_accepted();
    look::wait_until("the issue is on the other server", async || look::serves(&b, &issue).await).await;
    // Its answer names the issue only.
    let comment = owner.comment(&issue, &issue, "It is");
    a.send(&comment).await.expect_accepted();
    look::wait_until("so is the answer", async || look::serves(&b, &comment).await).await;

    let state_of = |name: &str| owner.sign_state(name, &owner.work);
    let (announcement, state) = (
        owner.sign_announcement(grasp_mirror_testkit::Announcement::new(owner.public_key(), "second").at(&a)),
        state_of("second"),
    );
    a.send(&announcement).await.expect_accepted();
    a.send(&state).await.expect_accepted();
    let url = a.repo_url(&owner.public_key(), "second");
    owner.work.push_all(&url).await.unwrap_or_else(|said| panic!("{said}"));
    look::wait_until("a new repository is mirrored", async || look::serves(&b, &state).await).await;
    assert_eq!(look::refs(&mirror.url_at(&b, "second")).await, owner.work.refs());
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

#[tokio::test]
async fn a_mirror_that_failed_is_tried_again_by_itself() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.retry_first_secs", 1);
    b.proxy().fault_on("git-receive-pack", Fault::Status(500));
    let daemon = listening(&mirror).await;
    assert_eq!(mirror.status_of(&owner.coordinate()).await["copies"], 1);

    b.proxy().heal();
    look::wait_until("it is in sync", async || mirror.status_of(&owner.coordinate()).await["copies"] == 2)
        .await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

#[tokio::test]
async fn what_was_missed_while_a_connection_was_lost_is_asked_for() {
    let (a, b, _relay, owner, mirror, daemon) = heard_through_a_proxy().await;

    // Nothing that the bot has open survives, and it hears nothing of what happens meanwhile.
    a.proxy().silence(true);
    a.proxy().drop_connections();
    a.proxy().silence(false);
    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(&a).await;
    look::wait_until("the new state is there", async || look::serves(&b, &state).await).await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

/// Its connections are gone when it wakes up, and what was said meanwhile may bear an older date.
#[tokio::test]
async fn what_was_said_while_the_machine_slept_is_asked_for() {
    let (a, b, _relay, owner, _mirror, daemon) = heard_through_a_proxy().await;

    daemon.sleep();
    a.proxy().drop_connections();
    let stranger = grasp_mirror_testkit::Person::new();
    stranger.signed_ago(5 * 3_600);
    let issue = stranger.issue(&owner.coordinate(), "Written on a train");
    a.send(&issue).await.expect_accepted();
    daemon.wake();
    look::wait_until("the issue is on the other server", async || look::serves(&b, &issue).await).await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}

/// A server that has an owner's state by way of a copy serves it at once where it is listed at last, and leaves the
/// owner's own path empty until the next state.
#[tokio::test]
async fn a_server_that_is_listed_late_is_not_believed_and_gets_the_next_state() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let daemon = listening(&mirror).await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    let (late, _) = owner.announce(owner.announcement().at(&a).at(&b), &a).await;
    look::wait_until("the report says what is wrong", async || {
        let repo = mirror.status_of(&owner.coordinate()).await;
        repo["copies"] == 1
            && repo["problems"][0]["reason"].as_str().is_some_and(|why| why.contains("newer state"))
    })
    .await;
    assert!(look::serves(&b, &late).await && look::ls_remote(&owner.url_at(&b)).await.is_empty());

    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    look::wait_until("the next state is at the owner's own path", async || {
        look::refs(&owner.url_at(&b)).await == owner.work.refs()
            && mirror.status_of(&owner.coordinate()).await["copies"] == 2
    })
    .await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
}
