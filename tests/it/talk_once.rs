//! However often a question is delivered, it is done and answered once.

use grasp_mirror_testkit::{Chat, Mirror, Protocol, Question, TestRelay};
use nostr::types::Timestamp;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn each_question_is_answered_once() {
    let (one, two) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&one).uses(&two);
    let ada = Chat::new(&mirror).asks_at(&one).asks_at(&two).hears_at(&one).hears_at(&two);
    ada.introduce(&one).await;
    let mirror = mirror.obeys(&ada);
    let mut daemon = mirror.daemon().await;

    // Each goes to both relays.
    let mut asked = Vec::new();
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        asked.push(ada.ask(protocol, "pause").await);
    }
    // The same rumor in three wraps.
    let rumor = ada.rumor("help pause", Timestamp::now());
    let wraps: Vec<Question> = (0..3).map(|_| ada.wrap(rumor.clone())).collect();
    for wrap in &wraps {
        ada.send(wrap).await;
    }
    asked.extend(wraps);

    for _ in 0..2 {
        for question in &asked {
            ada.answers(question, 1).await;
        }
        ada.catch_up().await;
        // A relay sends all it has again.
        daemon.stop().await;
        daemon = mirror.daemon().await;
        // Another wrap of what is long answered.
        ada.send(&ada.wrap(rumor.clone())).await;
        ada.catch_up().await;
    }
    for question in &asked {
        ada.answers(question, 1).await;
    }
    daemon.stop().await;
}
