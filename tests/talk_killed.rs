//! Killed at any moment between a question and its answer, the bot answers once when it is back: never twice, and
//! never not at all.

use std::time::{Duration, Instant};

use grasp_mirror_testkit::{Chat, Mirror, Protocol, Question, TestRelay};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const KILLS: u32 = 10;

async fn expect_one_answer_each(ada: &Chat, asked: &[Question]) {
    for question in asked {
        ada.answers(question, 1).await;
    }
    ada.catch_up().await;
    for question in asked {
        ada.answers(question, 1).await;
    }
}

fn protocol(round: u32) -> Protocol {
    if round.is_multiple_of(2) { Protocol::Nip17 } else { Protocol::Nip04 }
}

#[tokio::test]
async fn killed_between_its_start_and_the_answer() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay);
    let ada = Chat::at(&mirror, &relay).await;
    let mirror = mirror.obeys(&ada);
    let mut asked = vec![ada.ask(Protocol::Nip17, "status nothing").await];
    let start = Instant::now();
    let daemon = mirror.start_daemon();
    ada.answers(&asked[0], 1).await;
    let whole = start.elapsed();
    daemon.kill();

    for round in 1..=KILLS {
        asked.push(ada.ask(protocol(round), &format!("status nothing-{round}")).await);
        let daemon = mirror.start_daemon();
        tokio::time::sleep(whole * round / KILLS).await;
        daemon.kill();
    }
    let daemon = mirror.daemon().await;
    expect_one_answer_each(&ada, &asked).await;
    daemon.stop().await;
}

#[tokio::test]
async fn killed_right_after_a_question() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay);
    let ada = Chat::at(&mirror, &relay).await;
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    let start = Instant::now();
    ada.answer_to(Protocol::Nip17, "status nothing").await;
    let whole = start.elapsed();
    daemon.kill();

    let mut asked = Vec::new();
    for round in 0..KILLS {
        let daemon = mirror.daemon().await;
        asked.push(ada.ask(protocol(round), &format!("status nothing-{round}")).await);
        tokio::time::sleep(whole * round / KILLS).await;
        daemon.kill();
    }
    let daemon = mirror.daemon().await;
    expect_one_answer_each(&ada, &asked).await;
    daemon.stop().await;
}

#[tokio::test]
async fn killed_while_the_answer_cannot_be_delivered() {
    let (inbox, home) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&inbox);
    let ada = Chat::new(&mirror).asks_at(&inbox).hears_at(&home);
    ada.introduce(&inbox).await;
    let ada = ada.hears_at(&inbox);
    let bob = Chat::at(&mirror, &inbox).await;
    let mirror = mirror.obeys(&ada).obeys(&bob).set("limits.connect_timeout_secs", 1);
    let mut asked = Vec::new();
    home.stop().await;
    for round in 0..4 {
        let daemon = mirror.daemon().await;
        asked.push(ada.ask(protocol(round), &format!("status nothing-{round}")).await);
        // Somebody else does not wait for it, and by then the bot has at least begun to answer.
        bob.catch_up().await;
        tokio::time::sleep(Duration::from_millis(300) * round).await;
        daemon.kill();
    }
    home.resume().await;
    let daemon = mirror.daemon().await;
    expect_one_answer_each(&ada, &asked).await;
    daemon.stop().await;
}
