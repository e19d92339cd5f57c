//! A pull request whose commit is nowhere to be had stays away, with what was said to it; the rest of the
//! conversation is mirrored, and later cycles send nothing in vain.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, free_port, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn nothing_is_sent_in_vain_for_a_lost_commit() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).relay(relay.url()), &a).await;
    let gone = format!("http://127.0.0.1:{}/gone.git", free_port());
    let request = owner.pull_request(&owner.coordinate(), &"1".repeat(40), &gone);
    let reply = owner.comment(&request, &request, "Nice");
    let reaction = owner.reaction(&reply, "+");
    let issue = owner.issue(&owner.coordinate(), "Something else");
    let comment = owner.comment(&issue, &issue, "Indeed");
    for event in [&request, &reply, &reaction, &issue, &comment] {
        relay.send(event).await.expect_accepted();
    }

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    for server in [&a, &b] {
        assert!(look::serves(server, &issue).await && look::serves(server, &comment).await);
        assert!(!look::serves(server, &request).await);
        server.proxy().reset();
    }
    let note = mirror.status_of(&owner.coordinate()).await["notes"][0].clone();
    assert!(note.as_str().is_some_and(|note| note.starts_with("1 pull request")), "{note}");

    mirror.once().await.expect_code(0);
    let note = mirror.status_of(&owner.coordinate()).await["notes"][0].clone();
    assert!(note.as_str().is_some_and(|note| note.starts_with("1 pull request")), "{note}");
    for server in [&a, &b] {
        let seen = server.proxy().seen();
        assert_eq!(seen.verb("EVENT"), Vec::<&str>::new());
        assert_eq!(seen.count("GET", "git-upload-pack") + seen.count("POST", "git-upload-pack"), 0);
    }
}
