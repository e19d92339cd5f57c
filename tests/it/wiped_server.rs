//! A server that lost everything at the same address gets everything back: git data, conversation, commits of
//! pull requests.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn the_next_run_heals_it() {
    let (a, mut b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a), &a).await;
    let coordinate = owner.coordinate();
    let issue = owner.issue(&coordinate, "Something");
    owner.work.branch("change");
    let commit = owner.work.commit("change", "1\n");
    owner.work.switch("main");
    let request = owner.pull_request(&coordinate, &commit, &owner.url_at(&a));
    let again = owner.sign(
        1619,
        "",
        &[
            &["a", &coordinate],
            &["E", &request.id.to_hex()],
            &["P", &owner.public_key().to_hex()],
            &["c", &commit],
            &["clone", &owner.url_at(&a)],
        ],
    );
    a.send(&issue).await.expect_accepted();
    let mut commits = Vec::new();
    for event in [&request, &again] {
        a.send(event).await.expect_accepted();
        let name = format!("refs/nostr/{}", event.id.to_hex());
        owner.work.push(&owner.url_at(&a), &format!("change:{name}")).await.unwrap_or_else(|e| panic!("{e}"));
        commits.push(name);
    }
    owner.work.delete_branch("change");

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let url = mirror.url_at(&b, "hello");
    for round in ["at first", "after the loss"] {
        mirror.once().await.expect_code(0);
        for event in [&published.announcement, &published.state, &issue, &request, &again] {
            assert!(look::serves(&b, event).await, "{round}: kind {}", event.kind);
        }
        assert_eq!(look::refs(&url).await, owner.work.refs(), "{round}");
        let listed = look::ls_remote(&url).await;
        for name in &commits {
            assert_eq!(listed.get(name), Some(&commit), "{round}: {name}");
        }
        look::clone(&url).await;

        b.wipe().await;
    }
}
