//! Killed at any moment between a question and its answer, the bot answers once when it is back: never twice, and
//! never not at all.

use std::time::{Duration, Instant};

use grasp_mirror_testkit::{Chat, Mirror, Protocol, Question, Scene, TestRelay};

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

/// Kills the bot at ten moments between the question and the answer; when it `starts`, it was asked while down.
async fn killed_at_any_moment(starts: bool) {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY).uses(&relay).commanded_at(&relay).await;
    let mut asked = Vec::new();
    let mut whole = Duration::ZERO;
    for round in 0..=KILLS {
        let text = format!("status nothing-{round}");
        let daemon = if starts { None } else { Some(mirror.daemon().await) };
        let question = ada.ask(protocol(round), &text).await;
        let start = Instant::now();
        let daemon = daemon.unwrap_or_else(|| mirror.start_daemon());
        if round == 0 {
            ada.answers(&question, 1).await;
            whole = start.elapsed();
        } else {
            tokio::time::sleep(whole * round / KILLS).await;
        }
        daemon.kill();
        asked.push(question);
    }
    let daemon = mirror.daemon().await;
    expect_one_answer_each(&ada, &asked).await;
    daemon.stop().await;
}

#[tokio::test]
async fn killed_between_its_start_and_the_answer() {
    killed_at_any_moment(true).await;
}

#[tokio::test]
async fn killed_between_the_question_and_the_answer() {
    killed_at_any_moment(false).await;
}

/// Its start is told once and its end once, in whichever life.
#[tokio::test]
async fn killed_in_the_middle_of_a_resync() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    let (mirror, ada) = mirror.commanded_at(&scene.relay).await;
    let daemon = mirror.daemon().await;
    let resync = ada.ask(Protocol::Nip17, "resync").await;
    let start = Instant::now();
    ada.answers(&resync, 2).await;
    let whole = start.elapsed();
    daemon.kill();
    for round in 0..KILLS / 2 {
        let daemon = mirror.daemon().await;
        let resync = ada.ask(protocol(round), "resync").await;
        tokio::time::sleep(whole * round * 2 / KILLS).await;
        daemon.kill();
        let daemon = mirror.daemon().await;
        ada.answers(&resync, 2).await;
        ada.catch_up().await;
        ada.answers(&resync, 2).await;
        daemon.kill();
    }
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
