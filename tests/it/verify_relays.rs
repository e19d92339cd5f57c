//! `verify` reads the relays, too, and says which does not answer; of those that reports go to, one is enough.

use grasp_mirror_testkit::{Mirror, TestRelay, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_server_that_is_down_is_told_with_the_reason() {
    let (relay, dead) = (TestRelay::start().await, free_port());
    let mirror = Mirror::new(BINARY).uses(&relay).knows_url(&format!("ws://127.0.0.1:{dead}"));
    let said = mirror.verify().await.expect_code(2).stdout;
    let row = said.lines().find(|line| line.contains(&dead.to_string())).unwrap_or_default();
    assert!(row.contains("down: "), "{said}");
    assert!(said.contains("refused") && said.contains("There is no mirror to compare"), "{said}");
}

#[tokio::test]
async fn a_relay_that_is_down_is_told() {
    let (relay, dead) = (TestRelay::start().await, format!("ws://127.0.0.1:{}", free_port()));
    let mirror = Mirror::new(BINARY).uses(dead.clone());
    let run = mirror.verify().await.expect_code(2);
    let row = |text: &str| text.lines().find(|line| line.contains(&dead)).map(str::to_owned);
    assert!(row(&run.stdout).is_some_and(|row| row.contains("refused")), "{}", run.stdout);

    let mirror = mirror.uses(&relay);
    let run = mirror.verify().await.expect_code(0);
    assert!(
        run.stdout.lines().any(|line| line.contains(relay.url()) && line.contains("answers")),
        "{}",
        run.stdout
    );
    let said = mirror.run(&["verify", "--json"]).await.expect_code(0).json();
    let relays: Vec<_> = said["relays"].as_array().into_iter().flatten().collect();
    assert_eq!(relays.len(), 2, "{said:#}");
    for found in relays {
        assert_eq!(
            (found["own"].as_bool(), found["ok"].as_bool()),
            (Some(true), Some(found["relay"] != dead)),
            "{said:#}"
        );
    }
}
