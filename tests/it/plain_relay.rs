//! A relay that does not know NIP-77 says so in words of its own, or says nothing: it is read by pages, and asked no more
//! than it takes to know.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use grasp_mirror::{
    relay::{Learned, Limits, Relays},
    transfer::guard::Guard,
};
use grasp_mirror_testkit::{Mirror, Person};
use nostr::prelude::{Filter, Keys, Kind, RelayUrl};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, tungstenite::Message};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const WORDS: &str = "command NEG-OPEN is unknown to me";

/// It has nothing, and takes everything. What it does not know it answers with `words`, and counts.
async fn serve(stream: TcpStream, words: Option<&str>, unknown: Arc<AtomicUsize>) {
    // Some ask by HTTP what it is.
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let Ok(said) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
        let answer = match said[0].as_str() {
            Some("REQ") => json!(["EOSE", said[1]]),
            Some("EVENT") => json!(["OK", said[1]["id"], true, ""]),
            Some("NEG-OPEN") => {
                unknown.fetch_add(1, Ordering::Relaxed);
                let Some(words) = words else { continue };
                json!(["NOTICE", words])
            }
            _ => continue,
        };
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
    }
}

/// Its address, and how often it was asked in NIP-77.
async fn relay(words: Option<&'static str>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, unknown) = (format!("ws://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&unknown);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, words, Arc::clone(&counted)));
        }
    });
    (url, unknown)
}

#[tokio::test]
async fn its_words_are_enough() {
    let (url, _) = relay(Some(WORDS)).await;
    let run = Mirror::new(BINARY).uses(url).watches(&Person::new()).run(&["mirror-once", "-v"]).await;
    let run = run.expect_code(0);
    let told: Vec<_> = run.stderr.lines().filter(|line| line.contains("no negentropy")).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains(WORDS)), "{}", run.stderr);
}

#[tokio::test]
async fn one_that_says_nothing_is_asked_in_two_runs_and_then_no_more() {
    let (url, asked) = relay(None).await;
    let (url, learned) = (RelayUrl::parse(&url).unwrap(), Arc::<Learned>::default());
    let limits = Limits {
        connect_timeout: Duration::from_secs(30),
        stall_timeout: Duration::from_secs(30),
        events_per_minute: NonZeroU32::MIN,
        max_events: 100,
        rest: None,
    };
    let new = || Relays::that_keep_nothing(Arc::new(Guard::new(true, [])), Keys::generate(), limits);
    // As a daemon's cycles have them, and as its jobs do.
    let (cycles, job) = (new().beside(&learned), new().beside(&learned));
    let notes = || Filter::new().kind(Kind::TextNote);
    for (run, relays) in [&cycles, &cycles, &cycles, &job].into_iter().enumerate() {
        relays.start_over().await;
        for _ in 0..2 {
            assert!(relays.compare(&url, notes(), &[]).await.unwrap().is_none());
            assert!(relays.read(&url, vec![notes()]).await.unwrap().is_empty());
        }
        assert_eq!(asked.load(Ordering::Relaxed), (run + 1).min(2), "once a run, and in two runs");
    }
}
