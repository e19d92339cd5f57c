//! Real nginx in front of servers and relays, as most of them have it: TLS, HTTP/2, and WebSockets passed through.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{Address, free_port, look, tools};

/// What a server's operator would have, and what its client's machine must trust.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// One that nobody trusts yet.
    ///
    /// # Panics
    ///
    /// When there is no temporary folder to be had.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        // By which clients tell one from another.
        params.distinguished_name.push(DnType::CommonName, dir.path().to_str().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// Its own certificate, for `SSL_CERT_FILE`.
    #[must_use]
    pub fn file(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    /// Writes a certificate for this machine, and its key.
    fn certify(&self, into: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(into.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(into.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

/// A running nginx; killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    home: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// In front of `upstream`, which need not listen yet.
    ///
    /// # Panics
    ///
    /// When nginx is not installed or does not come up; with its log.
    pub async fn before(upstream: SocketAddr, authority: &Authority) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let home = tempfile::tempdir().unwrap();
        authority.certify(home.path());
        fs::write(home.path().join("nginx.conf"), configuration(address, upstream)).unwrap();
        let mut command = Command::new(tools::nginx());
        tools::isolate(&mut command, home.path());
        command.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(home.path());
        let child = command.stdin(Stdio::null()).spawn().expect("nginx starts");
        let mut nginx = Self { child, home, address };
        look::wait_until("nginx listens", async || {
            let ended = nginx.child.try_wait().unwrap();
            assert!(ended.is_none(), "nginx did not come up:\n{}", nginx.read("error.log"));
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        nginx
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A line for each request that has ended: its protocol, `r` when the connection goes on with the TLS session of an
    /// earlier one (else `.`), the number of the connection, method and path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.read("access.log").lines().map(str::to_owned).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }
}

impl Address for Nginx {
    fn ws(&self) -> String {
        format!("wss://{}", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- nginx at {} ---\n{}---", self.address, self.read("error.log"));
        }
    }
}

/// As the manual of nginx has it for WebSockets, and without a limit on what is pushed.
fn configuration(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    log_format of_tests '$server_protocol $ssl_session_reused $connection $request_method $request_uri';
    access_log access.log of_tests;
    client_max_body_size 0;
    map $http_upgrade $wanted {{ default upgrade; '' close; }}
    server {{
        listen {address} ssl http2;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        ssl_session_cache shared:tests:1m;
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $wanted;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"
    )
}
