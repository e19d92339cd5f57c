//! An announcement may hold passwords, by mistake or on purpose: the bot does not pass them on, in no log,
//! reason or report. Neither does it its own key, or one that somebody sends it by mistake.

use grasp_mirror_testkit::{Mirror, Owner, Person, Protocol, Server, TestRelay, free_port};
use nostr::{filter::Filter, nips::nip19::ToBech32};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn passwords_in_addresses_are_not_passed_on() {
    let (a, relay, dead) = (Server::start().await, TestRelay::start().await, free_port());
    let owner = Owner::new("leaky").at_home_on(&relay);
    let announcement = owner
        .announcement()
        .clone_url(&format!("http://me:s3cr3t@127.0.0.1:{dead}/x.git"))
        .clone_url(&format!("http://127.0.0.1:{dead}/x.git?token=s3cr3t"))
        .clone_url(&format!("{}/no/such.git", a.http().replace("//", "//me:s3cr3t@")))
        .clone_url("ssh://me:s3cr3t@example.org/x.git")
        .clone_url("s3cr3t@example.org:x.git")
        .clone_url("git://example.org/\u{202e}x.git")
        .relay(&format!("ws://me:s3cr3t@127.0.0.1:{dead}"))
        .relay(relay.url());
    owner.announce(announcement, &relay).await;
    relay.send(&owner.state()).await.expect_accepted();

    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    let mut said = Vec::new();
    for args in [&["mirror-once", "-vv"][..], &["status", "--json"], &["verify", "--json"], &["plan"]] {
        let run = mirror.run(args).await;
        said.extend([run.stdout, run.stderr]);
    }
    let reason = mirror.status_of(&owner.coordinate()).await["problems"][0]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("ssh://example.org/x.git")), "{reason}");
    for event in relay.served(Filter::new().author(mirror.bot_pubkey())).await {
        said.push(event.content);
    }
    let key = mirror.keys.secret_key();
    for secret in ["s3cr3t", "\u{202e}", &key.to_bech32().unwrap(), &key.to_secret_hex()] {
        for text in &said {
            assert!(!text.contains(secret), "{secret:?} in:\n{text}");
        }
    }
}

#[tokio::test]
async fn secret_keys_are_neither_logged_nor_repeated() {
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(BINARY)
        .uses(&relay)
        .env("RUST_LOG", "debug,grasp_mirror=trace")
        .commanded_at(&relay)
        .await;
    let daemon = mirror.daemon().await;
    let sent = Person::new().nsec();
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        for command in ["watch ", "", "help ", "status x ", "why x y "] {
            let answer = ada.answer_to(protocol, &format!("{command}{sent}")).await;
            assert!(answer.contains("secret key"), "{command}: {answer}");
            assert!(!answer.contains(&sent), "{command}: {answer}");
        }
    }
    daemon.reload();
    ada.catch_up().await;
    let log = daemon.stop().await;
    let own = mirror.keys.secret_key();
    for secret in [&sent, &own.to_bech32().unwrap(), &own.to_secret_hex()] {
        assert!(!log.contains(secret.as_str()), "{secret} in:\n{log}");
    }
}

#[tokio::test]
async fn maintainers_keys_and_signers_secrets_are_neither_logged_nor_reported_nor_kept() {
    let (a, b, relay) = (Server::start().await, Server::start().await, TestRelay::start().await);
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let bunker =
        format!("bunker://{}?relay={}&secret=s3cr3t", Person::new().public_key().to_hex(), relay.url());
    let mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .uses(&relay)
        .watches(&owner)
        .env("MIRROR_SIGNER", &format!("{},{bunker}", owner.nsec()))
        .env("RUST_LOG", "debug,grasp_mirror=trace");
    let mut said = Vec::new();
    for args in
        [&["mirror-once"][..], &["status", "--json"], &["verify", "--json"], &["plan"], &["mirror-once"]]
    {
        let run = mirror.run(args).await;
        said.extend([run.stdout, run.stderr]);
    }
    for event in relay.served(Filter::new().author(mirror.bot_pubkey())).await {
        said.push(event.content);
    }
    assert!(said.iter().any(|text| text.contains("signed for a maintainer")));
    // Nor does the disk have them.
    for entry in std::fs::read_dir(mirror.data_dir().join("events")).unwrap() {
        said.push(String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).into_owned());
    }
    for secret in ["s3cr3t", &owner.nsec(), &owner.keys.secret_key().to_secret_hex()] {
        assert!(said.iter().all(|text| !text.contains(secret)), "{secret:?} was passed on");
    }
}
