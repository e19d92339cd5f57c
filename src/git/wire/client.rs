//! The HTTP client the git requests go through.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, dns::Resolve, redirect};
use url::{Host, Url};

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

/// A client for git requests: rustls, at most five redirects, never from https to http.
///
/// With a `resolver` (an address guard) no proxy of the environment is used, since names would then be
/// resolved elsewhere, and a redirect to another host given as a bare address is refused, since a
/// resolver never gets to see those. Addresses in the first URL are the caller's to check.
///
/// Answers may be compressed (gzip); what they inflate to is what limits count.
///
/// # Errors
///
/// When TLS cannot be set up on this machine.
pub fn http_client(
    connect_timeout: Duration,
    resolver: Option<Arc<dyn Resolve>>,
) -> Result<Client, reqwest::Error> {
    // Fails only when a provider is installed already, which then is the one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let guarded = resolver.is_some();
    let policy = redirect::Policy::custom(move |attempt| {
        match redirect_refusal(attempt.previous(), attempt.url(), guarded) {
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
    if let Some(resolver) = resolver {
        builder = builder.dns_resolver(resolver).no_proxy();
    }
    builder.build()
}

/// Why a redirect is not followed; `previous` begins with the URL first asked for.
fn redirect_refusal(previous: &[Url], next: &Url, guarded: bool) -> Option<&'static str> {
    let literal = matches!(next.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
    let other_host = previous.first().is_none_or(|first| first.host() != next.host());
    if previous.len() > MAX_REDIRECTS {
        Some("more than 5 redirects")
    } else if next.scheme() != "https" && previous.iter().any(|url| url.scheme() == "https") {
        Some("a redirect from https to http")
    } else if guarded && literal && other_host {
        Some("a redirect to a bare address")
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal(previous: &[&str], next: &str, guarded: bool) -> Option<&'static str> {
        let previous: Vec<Url> = previous.iter().map(|url| url.parse().unwrap()).collect();
        redirect_refusal(&previous, &next.parse().unwrap(), guarded)
    }

    #[test]
    fn only_harmless_redirects_are_followed() {
        assert_eq!(refusal(&["http://a/"], "https://b/", true), None);
        assert_eq!(refusal(&["http://a/"], "http://b/", true), None);
        assert!(refusal(&["https://a/"], "http://a/", false).is_some());
        assert!(refusal(&["https://a/"; 6], "https://a/", false).is_some());
        assert_eq!(refusal(&["https://a/"; 5], "https://a/", false), None);
        assert!(refusal(&["http://a/"], "http://169.254.169.254/", true).is_some());
        assert!(refusal(&["http://a/"], "http://[::1]/", true).is_some());
        assert_eq!(refusal(&["http://127.0.0.1:1/"], "http://127.0.0.1:1/x", true), None);
    }

    #[test]
    fn a_client_can_be_built_twice() {
        assert!(http_client(Duration::from_secs(1), None).is_ok());
        assert!(http_client(Duration::from_secs(1), None).is_ok());
    }
}
