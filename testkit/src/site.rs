//! What the bot shows by HTTP, asked byte by byte: nothing in between corrects a request or hides a header.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::look::PATIENCE;

/// The daemon's HTTP side.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Where it listens.
    pub address: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head in {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }
}

impl Site {
    /// Opens a connection and sends `bytes`.
    ///
    /// # Panics
    ///
    /// When nobody listens.
    pub async fn open(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Sends `head`, which ends with an empty line, and reads until the end.
    ///
    /// # Panics
    ///
    /// When no whole answer comes.
    pub async fn send(&self, head: &str) -> Reply {
        let mut stream = self.open(head).await;
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
        Reply::read(&answer)
    }

    /// Asks with another method, or for another host.
    pub async fn ask(&self, method: &str, path: &str, host: &str) -> Reply {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &self.address.to_string()).await
    }

    /// The page's address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Listens to what changes.
    pub async fn events(&self) -> Events {
        let head = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        Events { stream: self.open(&head).await, heard: String::new() }
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    stream: TcpStream,
    heard: String,
}

impl Events {
    /// Reads until `part` was heard; returns all that was heard so far.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub async fn hear(&mut self, part: &str) -> &str {
        let reading = async {
            while !self.heard.contains(part) {
                let mut buffer = [0; 4096];
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "the stream ended before {part:?}: {}", self.heard);
                self.heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        };
        let heard = timeout(PATIENCE, reading).await;
        assert!(heard.is_ok(), "{part:?} was not heard: {}", self.heard);
        &self.heard
    }
}
