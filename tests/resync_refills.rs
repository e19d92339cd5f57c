//! A server that lost git data and still serves the state looks as if nothing were missing; `resync` compares the
//! refs themselves, and what is missing comes back.

use std::fs;

use grasp_mirror_testkit::{Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn git_data_that_is_gone_comes_back_though_the_state_is_served() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let (mirror, ada) =
        Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let url = mirror.url_at(&b, "hello");
    let whole = owner.work.refs();
    let all = ada.ask(Protocol::Nip17, "resync").await;
    ada.answers(&all, 2).await;
    assert_eq!(look::refs(&url).await, whole);

    // Git's own storage is emptied under the server: its database does not know.
    let refs = b.git_folder().join(mirror.npub()).join("hello.git/refs/heads");
    fs::remove_dir_all(&refs).unwrap();
    fs::create_dir(&refs).unwrap();
    assert_ne!(look::refs(&url).await, whole);
    let resync = ada.ask(Protocol::Nip17, "resync hello").await;
    let answers = ada.answers(&resync, 2).await;
    assert!(answers.iter().any(|answer| answer.text.contains("1 repaired")), "{answers:#?}");
    assert_eq!(look::refs(&url).await, whole);
    daemon.stop().await;
}
