//! What was asked while the bot was down is done when it is back, unless it is older than a day.

use std::time::Duration;

use grasp_mirror_testkit::{Mirror, Protocol, TestRelay, look};
use nostr::types::Timestamp;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_question_waits_for_the_bot_but_not_for_ever() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    mirror.daemon().await.stop().await;

    let ago = |hours: u32| Timestamp::now() - HOUR * hours;
    let mut fresh = Vec::new();
    let mut stale = Vec::new();
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        fresh.push(ada.question_at(protocol, "help list", Timestamp::now()));
        fresh.push(ada.question_at(protocol, "help help", ago(23)));
        stale.push(ada.question_at(protocol, "pause", ago(25)));
    }
    for question in fresh.iter().chain(&stale) {
        ada.send(question).await;
    }
    let daemon = mirror.daemon().await;
    for question in &fresh {
        ada.answers(question, 1).await;
    }
    // The same when the bot is up.
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        let late = ada.question_at(protocol, "pause", ago(26));
        ada.send(&late).await;
        stale.push(late);
    }
    ada.catch_up().await;
    for question in &stale {
        assert_eq!(ada.answers_now(question).await, []);
    }
    let status = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(!status.contains("Paused"), "{status}");
    daemon.stop().await;
}

#[tokio::test]
async fn however_much_was_asked_all_of_it_is_answered() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay).set("limits.events_per_minute", 1000);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let mut asked = Vec::new();
    for number in 0..70 {
        let question =
            ada.question_at(Protocol::Nip04, &format!("status nothing-{number}"), Timestamp::now());
        relay.receive(question.event.clone()).await;
        asked.push(question);
    }
    let daemon = mirror.daemon().await;
    look::wait_until("each is answered", async || {
        let answered: Vec<_> = ada.heard().await.into_iter().flat_map(|answer| answer.about).collect();
        asked.iter().all(|question| answered.contains(&question.id))
    })
    .await;
    assert_eq!(ada.heard().await.len(), asked.len());
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_asked_first_is_done_first() {
    let (one, two) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&one).uses(&two);
    let (mirror, ada) = mirror.commanded_at(&one).await;
    let now = Timestamp::now();
    let at =
        |protocol, text, secs_ago: u64| ada.question_at(protocol, text, now - Duration::from_secs(secs_ago));
    // Neither a wrap's own date nor the relay that brings it says when it was asked.
    let rumor = |text, secs_ago: u64| ada.rumor(text, now - Duration::from_secs(secs_ago));
    let pause = ada.wrap_dated(rumor("pause", 50), now - Duration::from_secs(60));
    let resume = ada.wrap_dated(rumor("resume", 40), now - HOUR);
    two.send(&resume.event).await.expect_accepted();
    one.send(&pause.event).await.expect_accepted();
    let again = at(Protocol::Nip04, "pause", 30);
    two.send(&again.event).await.expect_accepted();
    let daemon = mirror.daemon().await;
    for (question, part) in [(&pause, "Paused"), (&resume, "Carrying on"), (&again, "Paused")] {
        let answer = ada.answers(question, 1).await.swap_remove(0).text;
        assert!(answer.starts_with(part), "{answer}");
    }
    daemon.stop().await;
}
