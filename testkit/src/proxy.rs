//! A TCP proxy that counts, reads along, and misbehaves on demand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::{
    Address,
    sniff::{Found, Sniffer},
};

/// What a server behind a [`Proxy`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Resets the connection.
    Refuse,
    /// Takes everything, answers nothing.
    Hang,
    /// Passes nothing on until all is well again, and then goes on as if nothing had been.
    Hold,
    /// Answers with bytes that mean nothing.
    Garbage,
    /// Answers with this HTTP status and nothing else.
    Status(u16),
    /// Answers with this HTTP status, and wants to be asked again after so many seconds (`Retry-After`).
    Later(u16, u64),
    /// Breaks the connection after this many bytes of the request.
    CutUp(u64),
    /// Breaks the connection after this many bytes of the answer.
    CutDown(u64),
    /// Passes everything on, and holds back the answer.
    Mute,
    /// Passes on this many bytes a second, each way.
    Slow(u64),
}

/// What went through a [`Proxy`] since it started or was last reset.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections taken.
    pub connections: u64,
    /// HTTP requests by method and path (with its query).
    pub requests: BTreeMap<(String, String), u64>,
    /// How often it was asked who it is (NIP-11).
    pub introductions: u64,
    /// Nostr messages from clients, as sent.
    pub messages: Vec<String>,
    /// Bytes from clients.
    pub up_bytes: u64,
    /// Bytes to clients.
    pub down_bytes: u64,
}

impl Seen {
    /// How many requests with this method had `part` in their path.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> u64 {
        self.requests.iter().filter(|((m, path), _)| m == method && path.contains(part)).map(|(_, n)| n).sum()
    }

    /// The Nostr messages that begin with this verb (`EVENT`, `REQ`, …).
    #[must_use]
    pub fn verb(&self, verb: &str) -> Vec<&str> {
        let start = format!("[\"{verb}\"");
        let spaceless = |text: &str| text.replace("[ ", "[");
        self.messages.iter().map(String::as_str).filter(|text| spaceless(text).starts_with(&start)).collect()
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    seen: Mutex<Seen>,
    /// A path that is taken off every request, as a reverse proxy does for a server below a path.
    below: String,
    /// Each with the part of a path it is meant for; the last match counts.
    faults: Mutex<Vec<(String, Fault)>>,
    /// What it says of itself (NIP-11) in the place of what is behind it.
    introduction: Mutex<Option<String>>,
    /// Counts up when all is well again.
    heals: watch::Sender<u64>,
    /// Counts up when live connections are to be dropped.
    drops: watch::Sender<u64>,
    /// Whether answers are held back.
    silent: watch::Sender<bool>,
}

/// The proxy; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A proxy on a free loopback port before `upstream`, which need not listen yet.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::below("", upstream).await
    }

    /// The same, with `upstream` appearing below `path` (such as `/grasp`).
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn below(path: &str, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", crate::free_port())).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream,
            seen: Mutex::default(),
            below: path.to_owned(),
            faults: Mutex::default(),
            introduction: Mutex::default(),
            heals: watch::Sender::new(0),
            drops: watch::Sender::new(0),
            silent: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went through so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        *lock(&self.shared.seen) = Seen::default();
    }

    /// Every new connection suffers from `fault`.
    pub fn fault(&self, fault: Fault) {
        self.fault_on("", fault);
    }

    /// Every new request whose path (with its query) holds `part` suffers from `fault`.
    pub fn fault_on(&self, part: &str, fault: Fault) {
        lock(&self.shared.faults).push((part.to_owned(), fault));
    }

    /// Answers for a relay that has no relay information document (NIP-11).
    pub fn introduce(&self, document: &str) {
        *lock(&self.shared.introduction) = Some(document.to_owned());
    }

    /// All is well again for new connections, and for what was held.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
        self.shared.heals.send_modify(|generation| *generation += 1);
    }

    /// Holds back all answers, also on live connections, or lets them through again.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// Drops every live connection.
    pub fn drop_connections(&self) {
        self.shared.drops.send_modify(|generation| *generation += 1);
    }
}

impl Address for Proxy {
    fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Shared {
    /// `GET /grasp/x HTTP/1.1` becomes `GET /x HTTP/1.1`.
    fn take_path_off(&self, head: Vec<u8>) -> Vec<u8> {
        let Some(at) = head.iter().position(|byte| *byte == b' ').map(|space| space + 1) else { return head };
        match head[at..].strip_prefix(self.below.as_bytes()) {
            Some(rest) if !self.below.is_empty() => {
                let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
                [&head[..at], slash, rest].concat()
            }
            _ => head,
        }
    }

    async fn hold(&self, path: &str) {
        let mut heals = self.heals.subscribe();
        while self.fault_for(Some(path)) == Some(Fault::Hold) && heals.changed().await.is_ok() {}
    }

    fn fault_for(&self, path: Option<&str>) -> Option<Fault> {
        lock(&self.faults).iter().rev().find_map(|(part, fault)| {
            let meant = if part.is_empty() { true } else { path.is_some_and(|path| path.contains(part)) };
            meant.then_some(*fault)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        lock(&shared.seen).connections += 1;
        let (shared, mut drops) = (Arc::clone(&shared), shared.drops.subscribe());
        connections.spawn(async move {
            tokio::select! {
                _ = carry(client, &shared) => {}
                _ = drops.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Limits of the request under way; both directions look at them.
#[derive(Debug, Default, Clone, Copy)]
struct Limits {
    up_left: Option<u64>,
    down_left: Option<u64>,
    bytes_per_sec: Option<u64>,
    mute: bool,
}

async fn carry(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    match shared.fault_for(None) {
        Some(Fault::Refuse) => return client.set_zero_linger(),
        Some(Fault::Hang) => return swallow(&mut client).await,
        Some(Fault::Garbage) => return garbage(&mut client).await,
        _ => {}
    }
    let server = TcpStream::connect(shared.upstream).await?;
    let limits = Mutex::new(Limits::default());
    let (mut from_client, to_client) = client.split();
    let (from_server, to_server) = {
        // `server` lives as long as this connection.
        server.into_split()
    };
    let to_client = tokio::sync::Mutex::new(to_client);
    let down = async { down(from_server, &to_client, shared, &limits).await };
    let up = async { up(&mut from_client, to_server, &to_client, shared, &limits).await };
    tokio::pin!(up, down);
    tokio::select! {
        // A client may close its half and still read.
        ended = &mut up => match ended {
            Ok(End::Client) => down.await,
            Ok(End::Broken) => Ok(()),
            Err(error) => Err(error),
        },
        ended = &mut down => ended,
    }
}

enum End {
    Client,
    Broken,
}

async fn up(
    client: &mut (impl AsyncRead + Unpin),
    mut server: impl AsyncWrite + Unpin,
    to_client: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
    shared: &Shared,
    limits: &Mutex<Limits>,
) -> std::io::Result<End> {
    let mut sniffer = Sniffer::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            server.shutdown().await.ok();
            return Ok(End::Client);
        }
        lock(&shared.seen).up_bytes += read as u64;
        sniffer.feed(&buffer[..read]);
        while let Some((mut piece, found)) = sniffer.step() {
            match found {
                Some(Found::Message(text)) => lock(&shared.seen).messages.push(text),
                Some(Found::Request { method, path }) => {
                    piece = shared.take_path_off(piece);
                    let asks = String::from_utf8_lossy(&piece).contains("application/nostr+json");
                    lock(&shared.seen).introductions += u64::from(asks);
                    let introduction = lock(&shared.introduction).clone().filter(|_| asks);
                    if let Some(document) = introduction {
                        introduce(&mut *to_client.lock().await, &document).await?;
                        return Ok(End::Broken);
                    }
                    let fault = shared.fault_for(Some(&path));
                    *lock(&shared.seen).requests.entry((method, path.clone())).or_default() += 1;
                    match fault {
                        Some(Fault::Hold) => shared.hold(&path).await,
                        Some(Fault::Refuse) => return Ok(End::Broken),
                        Some(Fault::Hang) => {
                            swallow(client).await?;
                            return Ok(End::Broken);
                        }
                        Some(Fault::Garbage) => {
                            garbage(&mut *to_client.lock().await).await?;
                            return Ok(End::Broken);
                        }
                        Some(Fault::Status(_) | Fault::Later(..)) => {
                            refuse(&mut *to_client.lock().await, fault).await?;
                            // Whoever is still sending would otherwise see a reset instead of the answer.
                            tokio::time::timeout(Duration::from_secs(5), swallow(client)).await.ok();
                            return Ok(End::Broken);
                        }
                        Some(Fault::CutUp(bytes)) => {
                            *lock(limits) = Limits { up_left: Some(bytes), ..Limits::default() };
                        }
                        Some(Fault::CutDown(bytes)) => {
                            *lock(limits) = Limits { down_left: Some(bytes), ..Limits::default() };
                        }
                        Some(Fault::Mute) => *lock(limits) = Limits { mute: true, ..Limits::default() },
                        Some(Fault::Slow(rate)) => {
                            *lock(limits) = Limits { bytes_per_sec: Some(rate), ..Limits::default() };
                        }
                        None => *lock(limits) = Limits::default(),
                    }
                }
                None => {}
            }
            let now = *lock(limits);
            let cut = take(&mut piece, now.up_left);
            lock(limits).up_left = now.up_left.map(|left| left.saturating_sub(piece.len() as u64));
            write(&mut server, &piece, now.bytes_per_sec).await?;
            if cut {
                return Ok(End::Broken);
            }
        }
    }
}

async fn down(
    mut server: impl AsyncRead + Unpin,
    to_client: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
    shared: &Shared,
    limits: &Mutex<Limits>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        if read == 0 {
            return to_client.lock().await.shutdown().await;
        }
        let mut piece = buffer[..read].to_vec();
        shared.silent.subscribe().wait_for(|silent| !silent).await.ok();
        let now = *lock(limits);
        if now.mute {
            continue;
        }
        let cut = take(&mut piece, now.down_left);
        lock(limits).down_left = now.down_left.map(|left| left.saturating_sub(piece.len() as u64));
        lock(&shared.seen).down_bytes += piece.len() as u64;
        write(&mut *to_client.lock().await, &piece, now.bytes_per_sec).await?;
        if cut {
            return Ok(());
        }
    }
}

/// Shortens `piece` to what is left; says whether anything had to go.
fn take(piece: &mut Vec<u8>, left: Option<u64>) -> bool {
    let Some(left) = left else { return false };
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let cut = piece.len() > left;
    piece.truncate(left);
    cut
}

async fn write(to: &mut (impl AsyncWrite + Unpin), piece: &[u8], rate: Option<u64>) -> std::io::Result<()> {
    let Some(rate) = rate else { return to.write_all(piece).await };
    // Ten times a second.
    let portion = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
    for part in piece.chunks(portion) {
        to.write_all(part).await?;
        to.flush().await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn swallow(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while from.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn garbage(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    to.write_all(&[0x00, 0xff, 0x13, 0x37, b'\r', b'\n', 0xfe, 0x80].repeat(32)).await?;
    to.shutdown().await
}

async fn introduce(client: &mut (impl AsyncWrite + Unpin), document: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/nostr+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        document.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(document.as_bytes()).await?;
    client.flush().await
}

async fn refuse(to: &mut (impl AsyncWrite + Unpin), fault: Option<Fault>) -> std::io::Result<()> {
    let (code, later) = match fault {
        Some(Fault::Later(code, secs)) => (code, format!("Retry-After: {secs}\r\n")),
        Some(Fault::Status(code)) => (code, String::new()),
        _ => (500, String::new()),
    };
    let answer = format!(
        "HTTP/1.1 {code} Fault\r\n{later}Content-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nfault\n"
    );
    to.write_all(answer.as_bytes()).await?;
    to.shutdown().await
}
