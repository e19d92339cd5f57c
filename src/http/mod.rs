//! What the daemon shows by HTTP: the dashboard, its data, health checks and metrics. Nothing can be changed here.
//!
//! The daemon hands over its [`Picture`] whenever that changes, and a [`Library`] for what lies in the store. Clients
//! are bounded in every direction: so many connections and event streams at a time; a time for the head of a request, for
//! reading an answer, and for keeping a connection, so that everybody who waits has a turn; and so much memory.

mod assets;
mod gate;
mod live;
mod paced;
mod routes;

use std::{collections::BTreeMap, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use grasp_mirror_commands::Nip05;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::paced::Paced;
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl},
    plan::progress::Progress,
    report::{page::Page, picture::Picture, scoreboard::Scoreboard},
};

/// How much is borne with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections at a time. Further ones wait until one is closed.
    pub connections: usize,
    /// How long a client may take for the head of a request, all of it, and between two requests.
    pub head: Duration,
    /// How long a client may take to read an answer, all of it, or what is new in a stream of events.
    pub answer: Duration,
    /// How long a client may keep a connection. The answer that it is reading then is the last; a stream of events goes on.
    pub connection: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connections: 128,
            head: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            connection: Duration::from_secs(600),
        }
    }
}

/// What the kernel may keep for a client that does not read, in bytes.
const UNREAD_MAX: u32 = 128 * 1_024;

/// Connections that wait to be accepted.
const WAITING: u32 = 1_024;

/// The longest head of a request, in bytes, and the most headers.
const HEAD_MAX: usize = 16 * 1_024;
const HEADERS_MAX: usize = 64;

/// What is known beside the picture. Answers are for people: a problem is a sentence.
pub trait Library: Send + Sync + 'static {
    /// All that is known of a repository that is in the picture.
    fn page(&self, picture: Picture, coordinate: Coordinate) -> BoxFuture<'_, Result<Option<Page>, String>>;

    /// How these servers did.
    fn scoreboards(
        &self,
        servers: Vec<ServerUrl>,
    ) -> BoxFuture<'_, Result<BTreeMap<ServerUrl, Scoreboard>, String>>;

    /// How far the running cycle is.
    fn progress(&self) -> BoxFuture<'_, Result<Option<Progress>, String>>;
}

/// Under which names the daemon is asked.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The bot's own name, for `/.well-known/nostr.json`.
    pub nip05: Option<Nip05>,
    /// The bot's relays, for the same.
    pub relays: Vec<String>,
    /// Names that a reverse proxy may pass on.
    pub hosts: Vec<String>,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; set another address in [http] listen, or \"\" to turn it off")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// A socket that listens, and answers nobody yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    patience: Patience,
}

impl Bound {
    /// Takes the address. Port 0 takes any that is free.
    ///
    /// # Errors
    ///
    /// [`ListenError`] when it is taken, or not this machine's.
    pub async fn to(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, patience: Patience::default() })
    }

    /// Bears with so much.
    #[must_use]
    pub fn with(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(
        self,
        picture: watch::Receiver<Picture>,
        names: watch::Receiver<Names>,
        library: Arc<dyn Library>,
    ) {
        let live = live::Live::new(picture.borrow().clone());
        let loopback = self.address.ip().is_loopback();
        let router = routes::router(Arc::clone(&live), names, Arc::clone(&library), loopback);
        let free = Arc::new(Semaphore::new(self.patience.connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(live.follow(picture, library));
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    // Without file handles this would turn for ever.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let patience = self.patience;
            let service = TowerToHyperService::new(router.clone());
            tasks.spawn(async move {
                let _permit = permit;
                if let Err(error) = connection(stream, service, patience).await {
                    tracing::trace!(%error, "a connection broke");
                }
            });
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A daemon that was killed gets its port back at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(UNREAD_MAX)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    patience: Patience,
) -> Result<(), hyper::Error> {
    let stream = TokioIo::new(Paced::new(stream, patience.answer));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX);
    let mut connection = pin!(builder.serve_connection(stream, service));
    match timeout(patience.connection, connection.as_mut()).await {
        Ok(end) => end,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
