//! A relay that does not know NIP-77 says so in words of its own. It is believed at once, and read by pages.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use futures::{SinkExt, StreamExt};
use grasp_mirror_testkit::{Mirror, Person};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, tungstenite::Message};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const WORDS: &str = "command NEG-OPEN is unknown to me";

/// It has nothing, and takes everything.
async fn serve(stream: TcpStream) {
    // Some ask by HTTP what it is.
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let Ok(said) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
        let answer = match said[0].as_str() {
            Some("REQ") => json!(["EOSE", said[1]]),
            Some("EVENT") => json!(["OK", said[1]["id"], true, ""]),
            Some("CLOSE") => continue,
            _ => json!(["NOTICE", WORDS]),
        };
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn its_words_are_enough() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let run = Mirror::new(BINARY).uses(url).watches(&Person::new()).run(&["mirror-once", "-v"]).await;
    let run = run.expect_code(0);
    let told: Vec<_> = run.stderr.lines().filter(|line| line.contains("no negentropy")).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains(WORDS)), "{}", run.stderr);
}
