//! What goes over the connection, and what happens when one breaks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

use super::{
    tests::{Request, client, limits, read, serve, url},
    *,
};
use crate::{git::Pack, model::refs::ObjectId};

const LISTING: &str = "001f# service=git-receive-pack\n0000\
    0068aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa refs/heads/main\0report-status ofs-delta object-format=sha1\n0000";

const REPORT: &str = "000eunpack ok\n0014ok refs/heads/x\n0000";

fn answer(kind: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-{kind}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A server that does with its `n`th connection what `with` says; how many there were.
async fn connections<F, A>(with: F) -> (Url, Arc<AtomicUsize>)
where
    F: Fn(usize, TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = url(&format!("http://{}", listener.local_addr().unwrap()), "a.git");
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(with(counted.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (at, taken)
}

/// Pushes `bytes` as a new ref to `at`.
async fn push(http: &GitHttp, at: Url, bytes: usize) -> Result<Pushed, PushError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pack");
    std::fs::write(&file, vec![1; bytes]).unwrap();
    let capabilities = ["report-status".to_owned()].into();
    let server = Advertisement { url: at, refs: [].into(), also_has: Vec::new(), capabilities };
    let null = ObjectId::null(gix_hash::Kind::Sha1);
    let command = RefUpdate { name: "refs/heads/x".to_owned(), old: null, new: ObjectId::Sha1([1; 20]) };
    http.push(&server, &[command], &Pack::stored(&file).unwrap()).await
}

#[tokio::test]
async fn a_compressed_listing_is_asked_for_and_read_within_its_limit() {
    let at = serve(|request: Request| async move {
        assert!(request.header("accept-encoding").contains("gzip"), "{}", request.headers);
        let bomb = [LISTING.as_bytes(), &vec![b' '; 40 << 20]].concat();
        let body = gzip(if request.line.contains("bomb") { &bomb } else { LISTING.as_bytes() });
        answer("advertisement", "Content-Encoding: gzip\r\n", &body)
    })
    .await;
    let http = client(limits());
    assert_eq!(http.receive_pack_refs(&url(&at, "a.git")).await.unwrap().refs.len(), 1);
    let error = http.receive_pack_refs(&url(&at, "bomb.git")).await.unwrap_err();
    assert!(matches!(error, WireError::TooLarge { unit: "bytes", .. }), "{error}");
}

#[tokio::test]
async fn a_push_says_its_length_and_neither_chunks_nor_expects() {
    let at = serve(|request: Request| async move {
        let length: usize = request.header("content-length").parse().unwrap();
        assert!(length > 3 << 20 && request.body.len() == length);
        assert_eq!((request.header("transfer-encoding"), request.header("expect")), ("", ""));
        answer("result", "", REPORT.as_bytes())
    })
    .await;
    push(&client(limits()), url(&at, "a.git"), 3 << 20).await.unwrap();
}

#[tokio::test]
async fn a_push_that_is_cut_is_sent_once_more_and_no_oftener() {
    for lasting in [false, true] {
        let (at, taken) = connections(move |number, mut stream| async move {
            if number == 0 || lasting {
                let mut some = vec![0; 1 << 20];
                stream.read_exact(&mut some).await.unwrap();
                return;
            }
            let request = read(&mut stream).await.unwrap();
            assert!(request.body.len() > 24 << 20, "all of it, from its beginning");
            stream.write_all(&answer("result", "", REPORT.as_bytes())).await.unwrap();
        })
        .await;
        let pushed = push(&client(limits()), at, 24 << 20).await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
        match pushed {
            Ok(pushed) => assert!(!lasting && pushed.bytes_sent > 24 << 20),
            Err(error) => assert!(lasting && matches!(error, WireError::Broken { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_push_that_may_have_arrived_is_not_sent_again() {
    for silent in [false, true] {
        let (at, taken) = connections(move |_, mut stream| async move {
            read(&mut stream).await.unwrap();
            if silent {
                std::future::pending::<()>().await;
            }
        })
        .await;
        let http = client(Limits { stall: Duration::from_secs(4), ..limits() });
        let error = push(&http, at, 1 << 20).await.unwrap_err();
        assert!(matches!(error, WireError::Unanswered { .. }), "{error}");
        assert_eq!(taken.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_nothing_but_another() {
    for crossing in [false, true] {
        let (at, taken) = connections(move |number, mut stream| async move {
            loop {
                if read(&mut stream).await.is_none() || crossing && number == 0 && served(&mut stream).await {
                    return;
                }
                stream.write_all(&answer("advertisement", "", LISTING.as_bytes())).await.unwrap();
                if !crossing && number == 0 {
                    return;
                }
            }
        })
        .await;
        let http = client(limits());
        http.receive_pack_refs(&at).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        http.receive_pack_refs(&at).await.unwrap();
        http.receive_pack_refs(&at).await.unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), 2, "kept while it lasts, and replaced once");
    }
}

/// Answers one request, and takes the next one without answering, as a server does that closes in that moment.
async fn served(stream: &mut TcpStream) -> bool {
    stream.write_all(&answer("advertisement", "", LISTING.as_bytes())).await.unwrap();
    read(stream).await;
    true
}

#[tokio::test]
async fn all_pushes_together_keep_to_the_cap() {
    let at = serve(|_| async { answer("result", "", REPORT.as_bytes()) }).await;
    let http = client(Limits { upload_bytes_per_sec: 100_000, ..limits() });
    let started = std::time::Instant::now();
    let pushes = (0..4).map(|_| push(&http, url(&at, "a.git"), 20_000));
    for pushed in futures::future::join_all(pushes).await {
        pushed.unwrap();
    }
    // A sixteenth of a second's worth may go at once.
    assert!(started.elapsed() > Duration::from_millis(700), "{:?}", started.elapsed());
}
