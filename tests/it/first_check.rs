//! Until its first check is over, the bot says that it does not know yet, and not that there is nothing.

use grasp_mirror_testkit::{Fault, Mirror, Owner, Protocol, Server, TestRelay};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn what_is_not_known_yet_is_not_called_nothing() {
    let (a, relay) = tokio::join!(Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.announce(owner.announcement().at(&a), &relay).await;
    a.proxy().fault(Fault::Hang);
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay);
    let mirror = mirror.set("limits.connect_timeout_secs", 300).set("limits.stall_timeout_secs", 600);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let servers = ada.answer_to(Protocol::Nip17, "servers").await;
    assert_eq!(servers, format!("1 server:\n- {}: not asked yet", a.authority()));
    let watching = format!("watch {}", owner.npub());
    ada.answer_to(Protocol::Nip17, &watching).await;
    for question in ["why hello", "status hello"] {
        let answer = ada.answer_to(Protocol::Nip17, question).await;
        assert!(answer.ends_with("\nIts first check is not over."), "{question}: {answer}");
    }
    let told = mirror.status().await.expect_code(2).stdout;
    assert!(told.contains("No cycle has come to its end yet."), "{told}");
    daemon.stop().await;
}
