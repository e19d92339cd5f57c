//! A repository over `limits.max_repo_bytes` is blocked, nothing of it is kept, and it is not downloaded again
//! every cycle only to be thrown away.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, noise_text};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const LIMIT: i64 = 50_000;

#[tokio::test]
async fn it_is_fetched_once_and_blocked_until_something_changes() {
    let (a, b) = tokio::join!(Server::builder().behind_proxy().start(), Server::start());
    let relay = TestRelay::start().await;
    let (owner, small) = (Owner::new("large").at_home_on(&relay), Owner::new("small").at_home_on(&relay));
    owner.work.commit("noise", &noise_text(200_000));
    owner.publish(owner.announcement().at(&a), &a).await;
    small.publish(small.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).watches(&small);
    let mirror = mirror.set("limits.max_repo_bytes", LIMIT);
    mirror.once().await.expect_code(2);
    assert_eq!(look::refs(&mirror.url_at(&b, "small")).await, small.work.refs());
    let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
    assert_eq!(problem["status"], "blocked", "{problem}");
    assert!(problem["reason"].as_str().is_some_and(|why| why.contains("limits.max_repo_bytes")), "{problem}");

    a.proxy().reset();
    mirror.once().await.expect_code(2);
    let seen = a.proxy().seen();
    // Its refs may be looked at, the data is not asked for.
    assert!(seen.count("POST", "large.git/git-upload-pack") < 2, "{:?}", seen.requests);
    assert!(seen.down_bytes < u64::try_from(LIMIT).unwrap(), "{} bytes", seen.down_bytes);
    assert_eq!(mirror.status_of(&owner.coordinate()).await["problems"][0]["status"], "blocked");

    let mirror = mirror.set("limits.max_repo_bytes", LIMIT * 10);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "large")).await, owner.work.refs());
}
