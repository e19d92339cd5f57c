//! Names that come from outside cannot forge a line of the log, nor colour or turn round what a person reads.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

fn is_clean(text: &str) -> bool {
    let harmful = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    !text.chars().any(harmful) && !text.lines().any(|line| line.starts_with("WARN forged"))
}

#[tokio::test]
async fn one_event_is_one_clean_line() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("x\nWARN forged\u{1b}[31m\u{202e}evil").at_home_on(&relay);
    let announcement =
        owner.announcement().clone_url("ftp://h/\u{1b}[31m\u{202e}\nWARN forged").relay(relay.url());
    owner.announce(announcement, &relay).await;
    relay.send(&owner.state()).await.expect_accepted();

    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    for args in [&["mirror-once", "-vv"][..], &["plan"], &["verify"], &["status"]] {
        let run = mirror.run(args).await;
        assert!(is_clean(&run.stdout), "{args:?}: {:?}", run.stdout);
        assert!(is_clean(&run.stderr), "{args:?}: {:?}", run.stderr);
    }
    // And it is not mirrored: such a name cannot be told from another.
    let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
    assert_eq!(problem["status"], "blocked", "{problem}");
}
