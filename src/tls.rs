//! Whom the program believes on TLS connections: whom the machine believes, whatever is spoken over them.
//!
//! One setup for git, HTTP and WebSockets: a server's certificate is good for all of it or for none, the machine's
//! certificates are read once, and a connection goes on with the session of an earlier one where the server lets it.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, Error, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Who installs other certificates starts the program again.
static SETUP: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(Arc::new(config))
});

/// For WebSockets, which begin as HTTP/1.1: no other protocol is offered (RFC 7301).
///
/// # Errors
///
/// When this machine has no certificates.
pub fn for_websockets() -> Result<Arc<ClientConfig>, Error> {
    SETUP.clone()
}

/// For HTTP: version 2 where the server speaks it (RFC 7301).
///
/// # Errors
///
/// When this machine has no certificates.
pub fn for_http() -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::clone(&*for_websockets()?);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
