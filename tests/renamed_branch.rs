//! The maintainer renames the branch that `HEAD` names. Git lets no push delete a server's current branch, so
//! the server takes the new branch, keeps the old one for now, and applies the state by itself some minutes
//! later. Until it has, the mirror is pending.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_renamed_default_branch_is_there_at_once_and_the_mirror_pending() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    owner.work.git(&["branch", "-m", "main", "trunk"]);
    owner.work.commit("new.txt", "something new");
    let state = owner.state();
    relay.send(&state).await.expect_accepted();
    a.send(&state).await.expect_accepted();
    // Git reports the refused deletion as a failure; the new branch is there all the same.
    let _ = owner.work.push_all(&owner.url_at(&a)).await;

    mirror.once().await.expect_code(2);
    let trunk = owner.work.rev("trunk");
    for url in [owner.url_at(&a), mirror.url_at(&b, "hello")] {
        assert_eq!(look::refs(&url).await.get("refs/heads/trunk"), Some(&trunk), "{url}");
    }
    let status = mirror.status_of(&owner.coordinate()).await;
    for problem in status["problems"].as_array().unwrap() {
        assert_eq!(problem["status"], "pending", "{status}");
        assert!(problem["reason"].as_str().unwrap().contains("current branch"), "{status}");
    }
    if std::env::var("LONG").is_ok() {
        tokio::time::sleep(std::time::Duration::from_secs(250)).await;
        mirror.once().await.expect_code(0);
    }
}
