//! Servers and relays as they are in the world: behind a reverse proxy, with TLS, HTTP/2 and WebSockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;

use grasp_mirror_testkit::{Authority, Mirror, Owner, Protocol, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn all_that_goes_without_tls_goes_with_it() {
    let authority = Authority::new();
    let server = || Server::builder().start_behind_nginx(&authority);
    let (a, b, c, relay) = tokio::join!(server(), server(), server(), TestRelay::start());
    let inbox = relay.behind_nginx(&authority).await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).at(&b), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&inbox).watches(&owner);
    // This program believes whom the machine believes.
    let (mirror, ada) = mirror.env("SSL_CERT_FILE", &authority.file()).commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    let told = ada.answer_to(Protocol::Nip17, "status").await;
    assert!(told.contains("3 of 3"), "{told}");

    owner.work.commit("README.md", "# hello again\n");
    let state = owner.update(&a).await;
    for server in [&b, &c] {
        look::wait_until("the change is there", async || look::serves(server, &state).await).await;
    }
    let copies = [(&b, owner.url_at(&b)), (&c, mirror.url_at(&c, "hello"))];
    for (server, url) in copies {
        assert_eq!(look::refs(&server.past_nginx(&url)).await, owner.work.refs());
    }

    daemon.stop().await;
}

#[tokio::test]
async fn requests_share_a_connection_and_others_go_on_with_its_session() {
    let authority = Authority::new();
    // Sessions go by the name of the host, which all servers of a test have in common: so one of them.
    let behind = Server::builder().start_behind_nginx(&authority);
    let (a, b, relay) = tokio::join!(Server::start(), behind, TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).at(&b), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.env("SSL_CERT_FILE", &authority.file()).once().await.expect_code(0);
    // Each with its protocol, whether the session was known, and the connection.
    let requests = b.nginx().requests();
    let (git, websockets): (Vec<_>, Vec<_>) = requests.iter().partition(|line| line.contains("HTTP/2.0"));
    assert!(
        git.iter().any(|line| line.contains("POST") && line.contains("/git-receive-pack")),
        "{requests:#?}"
    );
    let connections: BTreeSet<&str> = git.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(connections.len(), 1, "{requests:#?}");
    assert!(!websockets.is_empty(), "{requests:#?}");
    assert!(websockets.iter().all(|line| line.starts_with("HTTP/1.1 r ")), "{requests:#?}");
}

#[tokio::test]
async fn a_certificate_that_the_machine_does_not_believe_is_named() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b, relay) = tokio::join!(
        Server::builder().start_behind_nginx(&ours),
        Server::builder().start_behind_nginx(&theirs),
        TestRelay::start()
    );
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).at(&b), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.env("SSL_CERT_FILE", &ours.file());
    mirror.once().await.expect_code(2);
    let status = mirror.status_of(&owner.coordinate()).await;
    assert_eq!((&status["copies"], status["problems"].as_array().map(Vec::len)), (&1.into(), Some(1)));
    let problem = &status["problems"][0];
    assert_eq!((&problem["server"], &problem["status"]), (&b.url().into(), &"unreachable".into()));
    let reason = problem["reason"].as_str().unwrap();
    assert!(reason.contains("invalid peer certificate: UnknownIssuer"), "{reason}");
}
