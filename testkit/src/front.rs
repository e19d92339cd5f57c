//! What most GRASP servers have in front: a reverse proxy that speaks TLS and HTTP/2 to clients, and HTTP/1.1 to the
//! server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, TRANSFER_ENCODING},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::Server;

/// A TLS configuration with a certificate that signed itself, and that as PEM.
pub(crate) fn self_signed() -> (ServerConfig, String) {
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

/// The proxy; gone when dropped.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    certificate: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// In front of `server`, for its HTTP alone.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn of(server: &Server) -> Self {
        let (mut config, certificate) = self_signed();
        // Who does not speak it is turned away.
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::default(), Arc::default());
        let task = tokio::spawn(accept(
            listener,
            tls,
            server.authority(),
            Arc::clone(&connections),
            Arc::clone(&requests),
        ));
        Self { address, certificate, connections, requests, task }
    }

    /// The same repository as at `url`, by way of this proxy.
    ///
    /// # Panics
    ///
    /// When `url` is no URL.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let path = url.parse::<Uri>().unwrap().path().to_owned();
        format!("https://{}{path}", self.address)
    }

    /// What clients have to trust, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Connections of clients so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    server: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let (tls, server, requests) = (tls.clone(), server.clone(), Arc::clone(&requests));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| {
                requests.fetch_add(1, Ordering::Relaxed);
                forward(server.clone(), request)
            });
            // A client that goes away is its own business.
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// Bodies go through as they come, both ways.
async fn forward(server: String, mut request: Request<Incoming>) -> std::io::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(std::io::Error::other)?;
    request.headers_mut().insert(HOST, server.parse().map_err(std::io::Error::other)?);
    *request.version_mut() = hyper::Version::HTTP_11;
    let stream = TokioIo::new(TcpStream::connect(&server).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let mut answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
    answer.headers_mut().remove(CONNECTION);
    answer.headers_mut().remove(TRANSFER_ENCODING);
    *answer.version_mut() = hyper::Version::HTTP_2;
    Ok(answer)
}
