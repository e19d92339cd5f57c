//! Servers and relays that never come to an end, fast or slow, cost a bounded amount of time and memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    future::pending,
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use grasp_mirror::{
    git::{
        Pack,
        wire::{self, GitHttp, PushError, RefUpdate, Room, WireError, http_client},
    },
    relay::{
        self, Admit, RelayError, Relays,
        nip11::{self, Nip11Error},
    },
    store::Store,
    transfer::guard::Guard,
};
use grasp_mirror_testkit::look::PATIENCE;
use nostr::prelude::{Event, EventBuilder, Filter, FinalizeEvent, Keys, Kind, RelayUrl, Timestamp};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use url::Url;

/// Answers every request with what `begins` says for it, and then `goes_on` again and again after `pause`.
async fn endless(
    begins: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    goes_on: Vec<u8>,
    pause: Duration,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begins, goes_on) = (Arc::new(begins), Arc::new(goes_on));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (begins, goes_on) = (Arc::clone(&begins), Arc::clone(&goes_on));
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let start = begins(&String::from_utf8_lossy(&request[..read]));
                let ends = start.ends_with(b"\n0000");
                if stream.write_all(&start).await.is_err() || ends {
                    return;
                }
                while stream.write_all(&goes_on).await.is_ok() {
                    sleep(pause).await;
                }
            });
        }
    });
    address
}

fn pkt(line: &[u8]) -> Vec<u8> {
    [format!("{:04x}", line.len() + 4).as_bytes(), line].concat()
}

/// The head of an answer of `kind`, and `body` without saying how long it will be.
fn answer(kind: &str, body: &[&[u8]]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), &body.concat()].concat()
}

fn git(limits: wire::Limits) -> GitHttp {
    GitHttp::new(http_client(Duration::from_secs(5), None).unwrap(), limits)
}

fn limits() -> wire::Limits {
    wire::Limits { stall: PATIENCE, total: PATIENCE, ..wire::Limits::default() }
}

fn repository(at: SocketAddr) -> Url {
    format!("http://{at}/x.git").parse().unwrap()
}

const UPLOAD: &str = "application/x-git-upload-pack-advertisement";
const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn headers_without_end() {
    let at = endless(|_| b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: and more\r\n".repeat(100), NOW).await;
    let error = git(limits()).ls_refs(&repository(at)).await.unwrap_err();
    assert!(matches!(error, WireError::Broken { .. }), "{error}");
    let at = endless(|_| b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: and more\r\n".to_vec(), SOON).await;
    let slow = wire::Limits { stall: Duration::from_millis(500), ..limits() };
    let error = git(slow).ls_refs(&repository(at)).await.unwrap_err();
    assert!(matches!(error, WireError::TimedOut { stalled: true, .. }), "{error}");
}

#[tokio::test]
async fn lists_without_end() {
    let reference = pkt(b"1111111111111111111111111111111111111111 refs/heads/x\n");
    let begins = |_: &str| answer(UPLOAD, &[&pkt(b"# service=git-upload-pack\n")]);
    let at = endless(begins, reference.repeat(1000), NOW).await;
    let error = git(limits()).ls_refs(&repository(at)).await.unwrap_err();
    assert!(matches!(error, WireError::TooLarge { unit: "bytes", .. }), "{error}");
    // Nor a byte now and then, for as long as one likes.
    let at = endless(begins, b"0".to_vec(), SOON).await;
    let slow = wire::Limits { total: Duration::from_secs(1), ..limits() };
    let error = git(slow).ls_refs(&repository(at)).await.unwrap_err();
    assert!(matches!(error, WireError::TimedOut { stalled: false, .. }), "{error}");
}

#[tokio::test]
async fn progress_without_end() {
    let begins = |request: &str| {
        if request.starts_with("GET") {
            let lines = [pkt(b"version 2\n"), pkt(b"fetch\n"), b"0000".to_vec()].concat();
            answer(UPLOAD, &[&pkt(b"# service=git-upload-pack\n"), b"0000", &lines])
        } else {
            answer("application/x-git-upload-pack-result", &[&pkt(b"packfile\n")])
        }
    };
    let progress = pkt(b"\x02Counting objects: 1\r").repeat(1000);
    let at = endless(begins, progress.clone(), NOW).await;
    let into = tempfile::tempdir().unwrap();
    let wants = ["1".repeat(40).parse().unwrap()];
    let room = Room::up_to(1 << 20);
    let error = git(limits()).fetch_pack(&repository(at), &wants, &[], room, into.path()).await.unwrap_err();
    assert!(matches!(error, WireError::TooLarge { unit: "bytes", .. }), "{error}");
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);

    let begins = |request: &str| {
        if request.starts_with("GET") {
            let first = pkt(
                b"0000000000000000000000000000000000000000 capabilities^{}\0report-status side-band-64k\n",
            );
            let kind = "application/x-git-receive-pack-advertisement";
            answer(kind, &[&pkt(b"# service=git-receive-pack\n"), b"0000", &first, b"0000"])
        } else {
            answer("application/x-git-receive-pack-result", &[])
        }
    };
    let at = endless(begins, progress, NOW).await;
    let http = git(limits());
    let server = http.receive_pack_refs(&repository(at)).await.unwrap();
    let new = "1".repeat(40).parse().unwrap();
    let old = "0".repeat(40).parse().unwrap();
    let command = RefUpdate { name: "refs/heads/x".to_owned(), old, new };
    let error: PushError = http.push(&server, &[command], &Pack::Empty).await.unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}

#[tokio::test]
async fn introductions_without_end() {
    let client = http_client(Duration::from_secs(5), None).unwrap();
    let ask_within = async |limit: Duration, at: SocketAddr| {
        let base: Url = format!("http://{at}").parse().unwrap();
        nip11::ask(&client, &base, limit).await
    };
    let ask = async |at: SocketAddr| ask_within(PATIENCE, at).await;
    let begins = |_: &str| answer("application/nostr+json", &[b"{\"name\":\""]);
    let long = ask(endless(begins, vec![b'x'; 4096], NOW).await).await;
    assert!(matches!(&long, Err(Nip11Error::NoDocument(why)) if why.contains("too long")), "{long:?}");
    let slow = ask_within(Duration::from_secs(1), endless(begins, b"x".to_vec(), SOON).await).await;
    assert!(matches!(slow, Err(Nip11Error::Down { .. })), "{slow:?}");
    let heads =
        ask(endless(|_| b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: x\r\n".repeat(99), NOW).await).await;
    assert!(heads.is_err());
    let deep = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 200001\r\nConnection: close\r\n\r\n{{\"supported_grasps\":{}",
        "[".repeat(199_981)
    );
    let deep = ask(endless(move |_| deep.clone().into_bytes(), b"\n".to_vec(), SOON).await).await;
    assert!(matches!(deep, Err(Nip11Error::NoDocument(_))), "{deep:?}");
}

/// Relays as the bot uses them, with a store of their own, that wait for so long.
async fn relays(connect_timeout: Duration, stall_timeout: Duration) -> (Relays, Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let limits = relay::Limits {
        connect_timeout,
        stall_timeout,
        events_per_minute: NonZeroU32::MIN,
        max_events: 100_000,
        rest: None,
    };
    (Relays::new(store.database(), Arc::new(Guard::new(true, [])), Keys::generate(), limits), store, dir)
}

/// A relay that answers the first request of each connection with what `talks` does.
async fn relay<F>(talks: impl Fn(WebSocketStream<TcpStream>, String) -> F + Send + Sync + 'static) -> RelayUrl
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = RelayUrl::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let talks = Arc::new(talks);
        while let Ok((stream, _)) = listener.accept().await {
            let talks = Arc::clone(&talks);
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    let Ok(text) = message.to_text() else { continue };
                    let Ok(request) = serde_json::from_str::<serde_json::Value>(text) else { continue };
                    if request[0] == "REQ" {
                        let id = request[1].as_str().unwrap_or_default().to_owned();
                        return talks(socket, id).await;
                    }
                }
            });
        }
    });
    url
}

fn note(author: &Keys, number: u64) -> Event {
    EventBuilder::new(Kind::TextNote, "x")
        .custom_created_at(Timestamp::from_secs(1_790_000_000 + number))
        .finalize(author)
        .unwrap()
}

fn event(subscription: &str, event: &Event) -> Message {
    Message::text(format!("[\"EVENT\",\"{subscription}\",{}]", event.as_json()))
}

#[tokio::test]
async fn handshakes_without_end() {
    let (relays, _store, _dir) = relays(Duration::from_secs(1), PATIENCE).await;
    let upgrade = |_: &str| b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for pause in [NOW, SOON] {
        let at = endless(upgrade, b"X-More: and more\r\n".to_vec(), pause).await;
        let url = RelayUrl::parse(&format!("ws://{at}")).unwrap();
        let started = Instant::now();
        let read = relays.read(&url, vec![Filter::new().kind(Kind::TextNote)]).await;
        assert!(matches!(read, Err(RelayError::Unreachable { .. })), "{read:?}");
        assert!(started.elapsed() < PATIENCE);
    }
    // A redirect is not followed.
    let elsewhere = endless(|_| Vec::new(), b"x".to_vec(), SOON).await;
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: ws://{elsewhere}\r\nContent-Length: 0\r\n\r\n");
    let at = endless(move |_| moved.clone().into_bytes(), Vec::new(), SOON).await;
    let url = RelayUrl::parse(&format!("ws://{at}")).unwrap();
    let read = relays.read(&url, vec![Filter::new().kind(Kind::TextNote)]).await;
    assert!(matches!(read, Err(RelayError::Unreachable { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_never_silent_and_never_done() {
    let stall = Duration::from_secs(2);
    let (relays, _store, _dir) = relays(PATIENCE, stall).await;
    let one = note(&Keys::generate(), 1);
    let sends = one.clone();
    let (closing, mut closed) = mpsc::channel(1);
    let url = relay(move |mut socket, id| {
        let (one, closing) = (sends.clone(), closing.clone());
        async move {
            loop {
                tokio::select! {
                    Some(Ok(said)) = socket.next() => {
                        if said.to_text().is_ok_and(|said| said.contains("CLOSE") && said.contains(&id)) {
                            let _ = closing.send(()).await;
                        }
                    }
                    () = sleep(Duration::from_millis(100)) => {}
                }
                if socket.send(event(&id, &one)).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let read = relays.serves(&url, &[one.id]).await;
    let told = read.unwrap_err().to_string();
    assert!(told.contains("not done after 20 s"), "{told}");
    assert!(timeout(PATIENCE, closed.recv()).await.is_ok(), "it is told to leave off");
}

/// A read that may bring anybody's events lets none in when it was given up, either.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_read_was_given_up_is_not_taken() {
    let (relays, store, _dir) = relays(PATIENCE, PATIENCE).await;
    let author = Keys::generate();
    let writes = author.clone();
    let (sending, mut sent) = mpsc::channel(1);
    let url = relay(move |mut socket, id| {
        let (author, sending) = (writes.clone(), sending.clone());
        async move {
            for number in 0.. {
                if socket.send(event(&id, &note(&author, number))).await.is_err() {
                    break;
                }
                let _ = sending.send(number).await;
            }
        }
    })
    .await;
    let admit: Admit = Arc::new(|_| false);
    let reading = relays.read_through(&url, vec![Filter::new().author(author.public_key())], admit);
    let before = async { while sent.recv().await.is_some_and(|number| number < 50) {} };
    tokio::select! {
        read = reading => panic!("{read:?}"),
        () = before => {}
    }
    while sent.recv().await.is_some_and(|number| number < 500) {}
    assert_eq!(store.query(Filter::new().author(author.public_key())).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_for_is_not_taken() {
    let (relays, store, _dir) = relays(PATIENCE, Duration::from_secs(5)).await;
    let (author, other) = (Keys::generate(), Keys::generate());
    let (asked, unasked) = (note(&author, 1), note(&other, 2));
    let (sends, besides) = (asked.clone(), unasked.clone());
    let url = relay(move |mut socket, id| {
        let messages = [
            event(&id, &besides),
            event("another", &besides),
            event(&id, &sends),
            Message::text(format!("[\"EOSE\",\"{id}\"]")),
        ];
        async move {
            for message in messages {
                let _ = socket.send(message).await;
            }
            pending::<()>().await;
        }
    })
    .await;
    // The second page is never answered.
    let read = relays.read(&url, vec![Filter::new().author(author.public_key())]).await;
    assert!(read.is_err());
    assert_eq!(store.query(Filter::new().author(author.public_key())).await.unwrap(), [asked]);
    assert_eq!(store.query(Filter::new().author(other.public_key())).await.unwrap(), []);
}
