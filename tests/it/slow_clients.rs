//! Who neither reads nor comes to the point is hung up on, and others are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{net::SocketAddr, time::Duration};

use grasp_mirror::{http::Patience, report::picture::Picture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{interval, timeout},
};

use super::dashboard::Gallery;

const SOON: Duration = Duration::from_secs(30);
/// Places for all; whoever keeps one keeps it from others.
const PLACES: usize = 2;
/// What a client has for the head of a request, and for reading.
const LIMIT: Duration = Duration::from_millis(500);

/// A large page, shown as long as its picture is kept.
async fn served() -> (SocketAddr, watch::Sender<Picture>) {
    let patience = Patience { connections: PLACES, head: LIMIT, reads: LIMIT };
    Gallery::of(2_000, true).open_with(patience).await
}

/// A client that has little room for what it does not read.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

fn request(address: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")
}

/// All that comes until the server hangs up, which it has to.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // Reset or closed: both are an end.
    let _ = timeout(SOON, stream.read_to_end(&mut all)).await.unwrap();
    all
}

async fn answer(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = connect(address).await;
    stream.write_all(request(address, path).as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn who_never_reads_is_dropped_and_others_are_served() {
    /// More than the kernel keeps for somebody.
    const ANSWERS: usize = 60;
    let (address, _picture) = served().await;
    let one = answer(address, "/api/mirrors.json").await.len();
    assert!(one * ANSWERS > 16 << 20, "{one}");
    let mut deaf = Vec::new();
    for _ in 0..PLACES {
        let mut stream = connect(address).await;
        let all = request(address, "/api/mirrors.json").repeat(ANSWERS);
        stream.write_all(all.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    let ready = answer(address, "/readyz").await;
    assert!(ready.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&ready));
    let mut cut_short = 0;
    for stream in &mut deaf {
        cut_short += usize::from(read_to_end(stream).await.len() < one * ANSWERS);
    }
    assert!(cut_short > 0, "all was sent: nobody had to be dropped for the others to be served");
}

#[tokio::test]
async fn who_sends_byte_after_byte_is_dropped_and_others_are_served() {
    let (address, _picture) = served().await;
    let mut slow = Vec::new();
    for _ in 0..PLACES {
        let mut stream = connect(address).await;
        slow.push(tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            // Each byte comes in good time, and the head never ends.
            let mut ticks = interval(LIMIT / 10);
            let endless = async {
                loop {
                    ticks.tick().await;
                    if write.write_all(b"G").await.is_err() {
                        return;
                    }
                }
            };
            let mut end = Vec::new();
            tokio::select! {
                _ = read.read_to_end(&mut end) => {}
                () = endless => {}
            }
        }));
    }
    let ready = answer(address, "/readyz").await;
    assert!(ready.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&ready));
    for one in slow {
        timeout(SOON, one).await.unwrap().unwrap();
    }
}
