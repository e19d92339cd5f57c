//! The HTTP client the git requests go through.

use std::{sync::Arc, time::Duration};

use grasp_mirror_commands::with_causes;
use reqwest::{Client, ClientBuilder, dns::Resolve, redirect};
use url::Url;

use crate::tls;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// For how long a connection that nobody uses is kept. Reverse proxies close theirs after a minute or so, and a request
/// that crosses the closing is lost.
const IDLE: Duration = Duration::from_secs(20);

/// Connections kept for each server.
const IDLE_CONNECTIONS: usize = 8;

/// Between two pings on a connection of HTTP/2 that is waited on: a server takes its time to unpack a push, and
/// middleboxes forget connections on which nothing moves. (TCP keep-alive, which reqwest turns on, is not enough for
/// those that end connections on both sides.)
const PING: Duration = Duration::from_secs(20);

/// Decides where requests may go.
///
/// As a resolver it sees names only, and neither ports nor bare addresses; those of a redirect it is asked about.
pub trait Gate: Resolve {
    /// Whether a redirect to `next` may be followed, as far as can be said before its name is looked up.
    fn permits(&self, next: &Url) -> bool;
}

/// A client for git requests: rustls, at most five redirects, never from https to http.
///
/// With a `gate` (an address guard) no proxy of the environment is used, since names would then be resolved
/// elsewhere, and every redirect has to pass it. The address in the first URL is the caller's to check.
///
/// Answers may be compressed (gzip); what they inflate to is what limits count.
///
/// # Errors
///
/// When TLS cannot be set up on this machine.
pub fn http_client(connect_timeout: Duration, gate: Option<Arc<dyn Gate>>) -> Result<Client, ClientError> {
    Ok(http_client_builder(connect_timeout, gate).tls_backend_preconfigured(tls::for_http()?).build()?)
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody can be believed.
    #[error("{0}; are the system's CA certificates installed (ca-certificates)?")]
    Tls(#[from] rustls::Error),
    /// Something else.
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
}

/// That client before it is built: for whoever trusts other certificates than this machine does.
pub fn http_client_builder(connect_timeout: Duration, gate: Option<Arc<dyn Gate>>) -> ClientBuilder {
    // Fails only when a provider is installed already, which then is the one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let doorkeeper = gate.clone();
    let policy = redirect::Policy::custom(move |attempt| {
        match redirect_refusal(attempt.previous(), attempt.url(), doorkeeper.as_deref()) {
            None => attempt.follow(),
            Some(reason) => attempt.error(reason),
        }
    });
    let mut builder = Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(policy)
        .referer(false)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .user_agent(concat!("git/grasp-mirror-", env!("CARGO_PKG_VERSION")));
    if let Some(gate) = gate {
        builder = builder.dns_resolver(gate as Arc<dyn Resolve>).no_proxy();
    }
    builder
}

/// Why a redirect is not followed; `previous` begins with the URL first asked for.
fn redirect_refusal(previous: &[Url], next: &Url, gate: Option<&dyn Gate>) -> Option<&'static str> {
    if previous.len() > MAX_REDIRECTS {
        Some("more than 5 redirects")
    } else if next.scheme() != "https" && previous.iter().any(|url| url.scheme() == "https") {
        Some("a redirect from https to http")
    } else if gate.is_some_and(|gate| !gate.permits(next)) {
        Some("a redirect to where requests may not go")
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use reqwest::dns::{Name, Resolving};

    use super::*;

    /// Lets nobody leave the host `a`.
    struct OnlyA;

    impl Gate for OnlyA {
        fn permits(&self, next: &Url) -> bool {
            next.host_str() == Some("a")
        }
    }

    impl Resolve for OnlyA {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(async { Err("not in this test".into()) })
        }
    }

    fn refusal(previous: &[&str], next: &str, gate: Option<&dyn Gate>) -> Option<&'static str> {
        let previous: Vec<Url> = previous.iter().map(|url| url.parse().unwrap()).collect();
        redirect_refusal(&previous, &next.parse().unwrap(), gate)
    }

    #[test]
    fn only_harmless_redirects_are_followed() {
        assert_eq!(refusal(&["http://a/"], "https://b/", None), None);
        assert_eq!(refusal(&["http://a/"], "http://b/", None), None);
        assert!(refusal(&["https://a/"], "http://a/", None).is_some());
        assert!(refusal(&["https://a/"; 6], "https://a/", None).is_some());
        assert_eq!(refusal(&["https://a/"; 5], "https://a/", None), None);
        assert_eq!(refusal(&["http://a/"], "https://a/", Some(&OnlyA)), None);
        assert!(refusal(&["http://a/"], "http://b/", Some(&OnlyA)).is_some());
    }

    #[test]
    fn a_client_can_be_built_twice() {
        assert!(http_client(Duration::from_secs(1), None).is_ok());
        assert!(http_client(Duration::from_secs(1), None).is_ok());
    }
}
