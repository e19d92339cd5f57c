//! A git server that takes every push and keeps nothing, so that only the client has work to do.
//!
//! At `/empty.git` is a repository without a ref, at `/behind.git` one with the refs it was started with. Protocol:
//! `gitprotocol-http(5)` and `gitprotocol-pack(5)`, the receiving half.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

const CAPABILITIES: &str =
    "report-status delete-refs side-band-64k quiet ofs-delta object-format=sha1 agent=sink";
const NOTHING: &str = "0000000000000000000000000000000000000000";

/// What a sink was sent, on all its addresses together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// HTTP requests.
    pub requests: u64,
    /// Bytes of their bodies, as they came.
    pub up_bytes: u64,
    /// Bytes of the answers' bodies.
    pub down_bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    refs: BTreeMap<String, String>,
    requests: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

/// The servers, all in this process; gone when dropped.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    /// Without TLS `http://`, else `https://`.
    scheme: &'static str,
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Sink {
    /// So many servers, whose repository `/behind.git` has these refs.
    ///
    /// # Panics
    ///
    /// When they cannot listen.
    pub async fn start(servers: usize, refs: BTreeMap<String, String>) -> Self {
        Self::listen(servers, refs, None).await
    }

    /// The same over TLS, with the certificate that signed itself as PEM beside it.
    ///
    /// # Panics
    ///
    /// When they cannot listen.
    pub async fn start_tls(servers: usize, refs: BTreeMap<String, String>) -> (Self, String) {
        let (config, certificate) = self_signed();
        let tls = TlsAcceptor::from(Arc::new(config));
        (Self::listen(servers, refs, Some(tls)).await, certificate)
    }

    async fn listen(servers: usize, refs: BTreeMap<String, String>, tls: Option<TlsAcceptor>) -> Self {
        let shared = Arc::new(Shared { refs, ..Shared::default() });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            addresses.push(listener.local_addr().unwrap());
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&shared), tls.clone())));
        }
        Self { shared, scheme, addresses, tasks }
    }

    /// The clone URL of `repository` (`empty`, `behind`) on each server.
    #[must_use]
    pub fn urls(&self, repository: &str) -> Vec<String> {
        self.addresses.iter().map(|address| format!("{}://{address}/{repository}.git", self.scheme)).collect()
    }

    /// What came since this was asked last.
    #[must_use]
    pub fn take(&self) -> Taken {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Taken {
            requests: take(&self.shared.requests),
            up_bytes: take(&self.shared.up_bytes),
            down_bytes: take(&self.shared.down_bytes),
        }
    }
}

/// A TLS configuration with a certificate that signed itself, and that as PEM.
fn self_signed() -> (ServerConfig, String) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (config, certified.cert.pem())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&shared), tls.clone()));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    stream.set_nodelay(true).ok();
    match tls {
        None => serve(stream, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    // A client that goes away is its own business.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (repository, service) = request.uri().path().split_once(".git/").unwrap_or_default();
        let nothing = BTreeMap::new();
        let refs = if repository == "/behind" { &self.refs } else { &nothing };
        let (kind, body) = match (request.method(), service) {
            (&Method::GET, "info/refs") if request.uri().query() == Some("service=git-receive-pack") => {
                ("application/x-git-receive-pack-advertisement", advertisement(refs))
            }
            (&Method::POST, "git-receive-pack") => {
                ("application/x-git-receive-pack-result", self.receive(request).await)
            }
            _ => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::NOT_FOUND;
                return answer;
            }
        };
        self.down_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        let mut answer = Response::new(Full::new(Bytes::from(body)));
        answer.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
        answer
    }

    /// Reads a push to its end, of which only the commands at its start are kept.
    async fn receive(&self, request: Request<Incoming>) -> Vec<u8> {
        let zipped = request.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        let mut body = request.into_body();
        let (mut start, mut commands) = (Vec::new(), None);
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(piece) = frame.into_data() else { continue };
            self.up_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if commands.is_none() {
                start.extend_from_slice(&piece);
                commands = if zipped { None } else { read_commands(&start) };
            }
        }
        if zipped {
            let mut plain = Vec::new();
            GzDecoder::new(start.as_slice()).read_to_end(&mut plain).ok();
            commands = read_commands(&plain);
        }
        // Git asks with a lone flush whether it may push at all.
        commands.filter(|commands| !commands.is_empty()).map_or_else(Vec::new, |commands| report(&commands))
    }
}

fn pkt(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

fn advertisement(refs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut body = format!("{}0000", pkt("# service=git-receive-pack\n"));
    if refs.is_empty() {
        body.push_str(&pkt(&format!("{NOTHING} capabilities^{{}}\0{CAPABILITIES}\n")));
    }
    for (number, (name, id)) in refs.iter().enumerate() {
        let capabilities = if number == 0 { format!("\0{CAPABILITIES}") } else { String::new() };
        body.push_str(&pkt(&format!("{id} {name}{capabilities}\n")));
    }
    body.push_str("0000");
    body.into_bytes()
}

/// What a push asks for.
#[derive(Debug, Default)]
struct Commands {
    names: Vec<String>,
    side_band: bool,
}

impl Commands {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The commands, once the flush behind them is there.
fn read_commands(mut bytes: &[u8]) -> Option<Commands> {
    let mut commands = Commands::default();
    loop {
        let length = std::str::from_utf8(bytes.get(..4)?).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(commands);
        }
        let line = String::from_utf8_lossy(bytes.get(4..length)?).into_owned();
        let (command, capabilities) = line.split_once('\0').unwrap_or((&line, ""));
        commands.side_band |= capabilities.contains("side-band-64k");
        commands.names.extend(command.split_whitespace().nth(2).map(str::to_owned));
        bytes = &bytes[length..];
    }
}

/// Everything went well.
fn report(commands: &Commands) -> Vec<u8> {
    let mut lines = pkt("unpack ok\n");
    for name in &commands.names {
        lines.push_str(&pkt(&format!("ok {name}\n")));
    }
    lines.push_str("0000");
    if commands.side_band {
        let parts = lines.as_bytes().chunks(60_000).map(|part| String::from_utf8_lossy(part).into_owned());
        lines = parts.map(|part| pkt(&format!("\u{1}{part}"))).collect::<String>() + "0000";
    }
    lines.into_bytes()
}
