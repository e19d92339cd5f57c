//! Real `ngit-grasp` servers on loopback.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use nostr::{event::Event, filter::Filter, key::PublicKey, nips::nip19::ToBech32};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Address, Answer, Authority, Nginx, Proxy, look, process, tools, wire};

/// With thousands of repositories on a busy machine it takes its time.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// What RFC 3986 calls unreserved needs no encoding.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A loopback port that no other test gets as long as this process lives.
///
/// Below the range the kernel hands to outgoing connections, so that a server can come back on its port.
///
/// # Panics
///
/// When a thousand ports in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Whoever holds the UDP port with the same number has it, also before its server listens and while that is down.
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    for _ in 0..1000 {
        // Parallel test processes start at different places.
        let step = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 61;
        let port = 12_000 + u16::try_from(step % 20_000).unwrap();
        let Ok(hold) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().unwrap().push(hold);
            return port;
        }
    }
    panic!("no free loopback port");
}

/// How a server is started.
#[derive(Debug, Default)]
pub struct ServerBuilder {
    env: Vec<(String, String)>,
    behind_proxy: bool,
    path: String,
}

/// What stands in front of a server.
#[derive(Debug)]
enum Front {
    None,
    Proxy(Proxy),
    Nginx(Nginx),
}

impl ServerBuilder {
    /// One more setting, for example `NGIT_ARCHIVE_ALL=true`.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Puts a [`Proxy`] in front; the server's only known address is then the proxy's.
    #[must_use]
    pub fn behind_proxy(mut self) -> Self {
        self.behind_proxy = true;
        self
    }

    /// Puts the server below a path such as `/grasp`, behind a [`Proxy`] that takes the path off.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self.behind_proxy()
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When `ngit-grasp` is not installed or does not come up; with its log.
    pub async fn start(self) -> Server {
        let bind = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let front =
            if self.behind_proxy { Front::Proxy(Proxy::below(&self.path, bind).await) } else { Front::None };
        self.started(bind, front).await
    }

    /// The same behind a real reverse proxy, with a certificate by `authority`: at `wss://` and `https://`.
    ///
    /// # Panics
    ///
    /// When either does not come up; with its log.
    pub async fn start_behind_nginx(self, authority: &Authority) -> Server {
        let bind = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let nginx = Nginx::before(bind, authority).await;
        self.started(bind, Front::Nginx(nginx)).await
    }

    async fn started(self, bind: SocketAddr, front: Front) -> Server {
        let address = match &front {
            Front::None => bind,
            Front::Proxy(proxy) => proxy.address(),
            Front::Nginx(nginx) => nginx.address(),
        };
        let public = format!("{address}{}", self.path);
        let data = tempfile::tempdir().unwrap();
        let mut server = Server { child: None, data, bind, public, env: self.env, front };
        server.resume().await;
        server
    }
}

/// A running `ngit-grasp`; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    data: TempDir,
    bind: SocketAddr,
    /// Host, port and path, as announced.
    public: String,
    env: Vec<(String, String)>,
    front: Front,
}

impl Server {
    /// A plain GRASP-01 server on a free loopback port that talks to nobody by itself.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A server with other settings.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The address, `ws://127.0.0.1:port`; `wss://` behind nginx.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws{}://{}", self.secure(), self.public)
    }

    /// The address, `http://127.0.0.1:port`; `https://` behind nginx.
    #[must_use]
    pub fn http(&self) -> String {
        format!("http{}://{}", self.secure(), self.public)
    }

    fn secure(&self) -> &'static str {
        if matches!(self.front, Front::Nginx(_)) { "s" } else { "" }
    }

    /// The same URL for whoever trusts no authority of a test: past nginx.
    #[must_use]
    pub fn past_nginx(&self, url: &str) -> String {
        match url.strip_prefix(&format!("https://{}", self.public)) {
            Some(rest) => format!("http://{}{rest}", self.bind),
            None => url.to_owned(),
        }
    }

    /// `127.0.0.1:port`, with the path if there is one.
    #[must_use]
    pub fn authority(&self) -> String {
        self.public.clone()
    }

    /// The clone URL of a repository here.
    ///
    /// # Panics
    ///
    /// Never: every key has an npub.
    #[must_use]
    pub fn repo_url(&self, owner: &PublicKey, d: &str) -> String {
        format!("{}/{}/{}.git", self.http(), owner.to_bech32().unwrap(), utf8_percent_encode(d, RESERVED))
    }

    /// The folder with the bare repositories.
    #[must_use]
    pub fn git_folder(&self) -> PathBuf {
        self.data.path().join("git")
    }

    /// The proxy in front.
    ///
    /// # Panics
    ///
    /// When the server was not built with [`ServerBuilder::behind_proxy`].
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        let Front::Proxy(proxy) = &self.front else { panic!("a server built behind_proxy()") };
        proxy
    }

    /// The reverse proxy in front.
    ///
    /// # Panics
    ///
    /// When the server was not started with [`ServerBuilder::start_behind_nginx`].
    #[must_use]
    pub fn nginx(&self) -> &Nginx {
        let Front::Nginx(nginx) = &self.front else { panic!("a server started behind nginx") };
        nginx
    }

    /// Sends `event` as a client would.
    pub async fn send(&self, event: &Event) -> Answer {
        wire::send(event, self).await
    }

    /// What the server serves.
    pub async fn served(&self, filter: Filter) -> Vec<Event> {
        wire::fetch(self, filter).await
    }

    /// Starts the server (again) on its port, with its data.
    ///
    /// # Panics
    ///
    /// When it is running, or does not answer in time.
    pub async fn resume(&mut self) {
        assert!(self.child.is_none(), "{} is running", self.url());
        let child = self.spawn();
        self.child = Some(child);
        let start = Instant::now();
        while !answers(self.bind).await {
            let gone = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            assert!(
                !gone && start.elapsed() < STARTS_WITHIN,
                "ngit-grasp did not come up at {}:\n{}",
                self.bind,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&self) -> Child {
        let data = self.data.path();
        for folder in ["git", "relay"] {
            fs::create_dir_all(data.join(folder)).unwrap();
        }
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(tools::tool("ngit-grasp"));
        tools::isolate(&mut command, data);
        command
            .current_dir(data)
            .arg("serve")
            .env("NGIT_DOMAIN", &self.public)
            .env("NGIT_BIND_ADDRESS", self.bind.to_string())
            .env("NGIT_GIT_DATA_PATH", data.join("git"))
            .env("NGIT_RELAY_DATA_PATH", data.join("relay"))
            .env("NGIT_SYNC_PLUS_ENABLED", "false")
            .env("NGIT_USER_INDEX_RELAYS", "")
            .env("NGIT_SYNC_PLUS_FALLBACK_RELAYS", "")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("ngit-grasp starts")
    }

    /// Stops the server as an operator would; its data stay for [`Server::resume`].
    pub async fn stop(&mut self) {
        let Some(child) = self.child.as_mut() else { return };
        process::signal(child.id(), "TERM");
        process::ended(child, STOPS_WITHIN).await;
        self.kill();
    }

    /// Stops the server as a power cut would; its data stay for [`Server::resume`].
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Stops the server, takes everything it held, and starts it again at its address.
    ///
    /// # Panics
    ///
    /// When it does not come up again.
    pub async fn wipe(&mut self) {
        self.stop().await;
        for folder in ["git", "relay"] {
            fs::remove_dir_all(self.data().join(folder)).unwrap();
        }
        self.resume().await;
    }

    /// Restarts the server, and removes what pushes left behind whose client was killed.
    ///
    /// ngit-grasp 3.0.9 kills git when the client of a push goes away in its middle, and git then leaves the locks of the
    /// refs it was moving: no push moves them until the server's operator removes the locks.
    ///
    /// # Panics
    ///
    /// When it does not come up again.
    pub async fn unlock(&mut self) {
        let at_work = self.child.as_ref().map_or_else(Vec::new, |child| process::children(child.id()));
        self.stop().await;
        look::wait_until("its git processes have ended", async || {
            at_work.iter().all(|pid| process::stat(pid).is_none())
        })
        .await;
        remove_locks(&self.git_folder());
        self.resume().await;
    }

    fn log_file(&self) -> PathBuf {
        self.data.path().join("log")
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// User and system CPU time so far, with that of the git processes it has started.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        process::tree_cpu(self.child.as_ref().expect("a server that runs").id())
    }

    /// The folder with all its data.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.path()
    }
}

impl Address for Server {
    fn ws(&self) -> String {
        if matches!(self.front, Front::Nginx(_)) { format!("ws://{}", self.bind) } else { self.url() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            // Each of our short connections leaves a "broken pipe".
            let lines: Vec<_> =
                log.lines().filter(|line| !line.contains("websocket msg: IO error")).collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- the last lines of {} ---\n{tail}\n---", self.url());
        }
    }
}

fn remove_locks(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !path.ends_with(".lifecycle-locks") {
            remove_locks(&path);
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Whether a server answers NIP-11 at `address`.
async fn answers(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nAccept: application/nostr+json\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).contains("supported_grasps"))
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}
