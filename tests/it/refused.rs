//! A server that does not want a repository is asked once: the report has its words, and later cycles leave it
//! alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror::store::{Store, records::Records};
use grasp_mirror_testkit::{Mirror, Owner, Person, Server, TestRelay};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_refusal_for_good_is_told_and_not_tried_again() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let choosy = Server::builder().env("NGIT_REPOSITORY_WHITELIST", &Person::new().npub()).behind_proxy();
    let choosy = choosy.start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&choosy).uses(&relay).watches(&owner);
    let mut since = None;
    for asked in [1, 0, 0] {
        choosy.proxy().reset();
        mirror.once().await.expect_code(2);
        let seen = choosy.proxy().seen();
        assert_eq!((seen.verb("EVENT").len(), seen.count("POST", "git-receive-pack")), (asked, 0));
        let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
        assert_eq!((&problem["status"], &problem["retry_at"]), (&"refused".into(), &().into()), "{problem}");
        assert!(problem["reason"].as_str().is_some_and(|words| words.contains("whitelist")), "{problem}");
        assert_eq!(*since.get_or_insert(problem["since"].clone()), problem["since"]);
    }

    // What is said of an announcement that a newer one has replaced is not kept for good.
    owner.announce(owner.announcement().at(&a).described("hello", "changed"), &a).await.1.expect_accepted();
    choosy.proxy().reset();
    mirror.once().await.expect_code(2);
    assert_eq!(choosy.proxy().seen().verb("EVENT").len(), 1);
    let records = Records::new(Store::open(&mirror.data_dir()).await.unwrap(), mirror.keys.clone());
    let record = records.read::<Value>(&format!("mirrors/{}", owner.coordinate())).await.unwrap().unwrap();
    let refused = &record["mirrors"][choosy.url()]["refused"];
    assert_eq!(refused.as_object().unwrap().len(), 1, "{record:#}");
}
