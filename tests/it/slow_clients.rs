//! Who neither reads nor comes to the point is hung up on, also who does both by and by, and who never leaves; others are
//! served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{net::SocketAddr, time::Duration};

use grasp_mirror::{http::Patience, report::picture::Picture};
use grasp_mirror_testkit::Site;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{interval, timeout},
};

use super::gallery::Gallery;

const SOON: Duration = Duration::from_secs(30);
/// Places for all; whoever keeps one keeps it from others.
const PLACES: usize = 2;
/// What a client has for the head of a request, and for reading an answer.
const LIMIT: Duration = Duration::from_secs(3);
/// For a test that is not about it.
const LONG: Duration = Duration::from_secs(3_600);

const BORNE_WITH: Patience = Patience { connections: PLACES, head: LIMIT, answer: LIMIT, connection: LONG };

/// A page that is larger than what the kernel keeps for somebody; shown as long as its picture is kept.
async fn served(patience: Patience) -> (SocketAddr, watch::Sender<Picture>) {
    Gallery::of(5_000, true).open_with(patience).await
}

/// A client that has little room for what it does not read.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16_384).unwrap();
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

/// How long the page is, by its own head.
async fn length_of_the_page(address: SocketAddr) -> usize {
    let mut stream = connect(address).await;
    stream.write_all(request(address, "/api/mirrors.json").replace("GET", "HEAD").as_bytes()).await.unwrap();
    let head = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.unwrap().parse().unwrap();
    assert!(length > 1 << 20, "{length}");
    length
}

async fn others_are_served(address: SocketAddr) {
    let ready = answer(address, "/readyz").await;
    assert!(ready.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&ready));
}

#[tokio::test]
async fn who_never_reads_is_dropped() {
    let (address, _picture) = served(BORNE_WITH).await;
    let whole = length_of_the_page(address).await;
    let mut deaf = Vec::new();
    for _ in 0..PLACES {
        let mut stream = connect(address).await;
        stream.write_all(request(address, "/api/mirrors.json").as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    others_are_served(address).await;
    for stream in &mut deaf {
        assert!(read_to_end(stream).await.len() < whole, "all of it was sent");
    }
}

/// Never silent for long, and never done.
#[tokio::test]
async fn who_reads_by_and_by_is_dropped() {
    let (address, _picture) = served(BORNE_WITH).await;
    let whole = length_of_the_page(address).await;
    let mut slow = Vec::new();
    for _ in 0..PLACES {
        let mut stream = connect(address).await;
        stream.write_all(request(address, "/api/mirrors.json").as_bytes()).await.unwrap();
        slow.push(tokio::spawn(async move {
            let (mut ticks, mut some, mut sum) = (interval(LIMIT / 25), [0; 16_384], 0);
            loop {
                ticks.tick().await;
                match stream.read(&mut some).await {
                    Ok(length @ 1..) => sum += length,
                    _ => return sum,
                }
            }
        }));
    }
    others_are_served(address).await;
    for one in slow {
        let read = timeout(SOON, one).await.unwrap().unwrap();
        assert!(read < whole, "all of it was sent");
    }
}

#[tokio::test]
async fn who_sends_byte_after_byte_is_dropped() {
    let (address, _picture) = served(BORNE_WITH).await;
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
    others_are_served(address).await;
    for one in slow {
        timeout(SOON, one).await.unwrap().unwrap();
    }
}

/// Asks again and again, each time as one should.
async fn stay(address: SocketAddr) {
    let mut stream = connect(address).await;
    let (mut ticks, mut some) = (interval(LIMIT / 10), [0; 16_384]);
    loop {
        ticks.tick().await;
        if stream.write_all(request(address, "/readyz").as_bytes()).await.is_err()
            || !matches!(stream.read(&mut some).await, Ok(1..))
        {
            return;
        }
    }
}

#[tokio::test]
async fn who_never_leaves_makes_room_and_who_listens_to_events_does_not() {
    let patience = Patience { head: LONG, answer: LONG, connection: LIMIT, ..BORNE_WITH };
    let (address, picture) = served(patience).await;
    let mut listener = Site { address }.events().await;
    listener.hear("event: edition").await;
    let staying = tokio::spawn(stay(address));
    others_are_served(address).await;
    timeout(SOON, staying).await.unwrap().unwrap();
    // It came before the one that is gone.
    picture.send_modify(|picture| picture.paused = true);
    listener.hear("event: changed").await;
}
