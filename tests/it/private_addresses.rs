//! An address that only an event names must be a public one: the bot does not knock inside the operator's
//! network for strangers, neither for git data nor for events, nor for anyone to deliver an answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use grasp_mirror::{
    git::wire::{GitHttp, Limits, WireError, http_client},
    transfer::guard::Guard,
};
use grasp_mirror_testkit::{
    Chat, Mirror, Owner, Protocol, Server, TestRelay,
    look::{self, PATIENCE},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use url::Url;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn only_configured_addresses_may_be_private() {
    let start = || Server::builder().behind_proxy().start();
    let (a, inside, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let port = inside.authority().rsplit(':').next().map(str::to_owned).unwrap_or_default();
    let listing = owner
        .announcement()
        .at(&inside)
        .clone_url(&format!("http://localhost:{port}/x.git"))
        .clone_url(&format!("http://[::ffff:127.0.0.1]:{port}/x.git"))
        .clone_url(&format!("http://0x7f.1:{port}/x.git"))
        .relay(&format!("ws://localhost:{port}"));
    owner.publish(listing.clone(), &inside).await;
    inside.proxy().drop_connections();
    inside.proxy().reset();

    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&owner);
    let mirror = mirror.set("network.allow_private_addresses", false);
    relay.send(&owner.state()).await.expect_accepted();
    mirror.once().await.expect_code(2);
    assert_eq!(inside.proxy().seen().connections, 0, "{:?}", inside.proxy().seen());
    let problem = mirror.status_of(&owner.coordinate()).await["problems"][0].clone();
    let told = problem["reason"].as_str().is_some_and(|why| why.contains("allow_private_addresses"));
    assert!(told, "{problem}");

    // What the operator configured is fine wherever it is.
    owner.publish(listing.at(&a), &a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&a)).await, owner.work.refs());
    assert_eq!(inside.proxy().seen().connections, 0);
}

#[tokio::test]
async fn no_answer_is_delivered_to_a_private_address() {
    let (relay, inside) = tokio::join!(TestRelay::start(), TestRelay::start());
    let knocks = inside.proxied().await;
    let mirror = Mirror::new(BINARY).uses(&relay).set("network.allow_private_addresses", false);
    let mallory = Chat::new(&mirror).asks_at(&relay).hears_at(&knocks);
    mallory.introduce(&relay).await;
    let ada = Chat::at(&mirror, &relay).await;
    let mut daemon = mirror.obeys(&mallory).obeys(&ada).daemon().await;
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        mallory.ask(protocol, "version").await;
    }
    // The operator's own relay is fine wherever it is.
    ada.catch_up().await;
    assert!(daemon.is_running());
    daemon.stop().await;
    assert_eq!(knocks.seen().connections, 0);
}

/// Answers everything with `answer`, and counts who came.
async fn canned(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, knocks) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&knocks);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, knocks)
}

#[tokio::test]
async fn a_redirect_does_not_lead_to_another_port_of_a_host_the_operator_named() {
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (inside, knocks) = canned(gone.to_owned()).await;
    let listed = |guard: Guard, at: SocketAddr| async move {
        let client = http_client(PATIENCE, Some(Arc::new(guard))).unwrap();
        let url: Url = format!("http://localhost:{}/x.git", at.port()).parse().unwrap();
        GitHttp::new(client, Limits::default()).ls_refs(&url).await.unwrap_err()
    };
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1", "LOCALHOST"] {
        let to = format!("http://{host}:{}/x.git/info/refs", inside.port());
        let moved =
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let (outside, _) = canned(moved).await;
        let named: Url = format!("http://localhost:{}", outside.port()).parse().unwrap();
        let error = listed(Guard::new(false, [named]), outside).await.to_string();
        assert!(error.contains("redirect to where requests may not go"), "{host}: {error}");
        assert_eq!(knocks.load(Ordering::Relaxed), 0, "{host}");
    }
    // Where private addresses are allowed it is followed.
    let to = format!("http://127.0.0.1:{}/x.git/info/refs", inside.port());
    let (outside, _) =
        canned(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")).await;
    let error = listed(Guard::new(true, []), outside).await;
    assert!(matches!(error, WireError::RepositoryUnknown { .. }), "{error}");
    assert_eq!(knocks.load(Ordering::Relaxed), 1);
    // A name that is not trusted is not connected to, whoever forgot to check it.
    let error = listed(Guard::new(false, []), inside).await;
    assert!(matches!(error, WireError::Unreachable { .. }), "{error}");
    assert_eq!(knocks.load(Ordering::Relaxed), 1);
}
