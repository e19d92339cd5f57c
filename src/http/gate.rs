//! Who is let in, and what goes with every answer.
//!
//! A page in somebody's browser may make its own name resolve to this machine (DNS rebinding) and then read whatever
//! listens on loopback. Such a request names the page's host, so on loopback only addresses, `localhost` and the names
//! in the configuration are answered.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;

use super::Names;

/// Nothing from elsewhere, nothing inline, no frames; and the page's script may not make markup from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// What the gate knows.
#[derive(Clone)]
pub(super) struct Gate {
    /// Whether it stands on loopback.
    pub(super) loopback: bool,
    pub(super) names: watch::Receiver<Names>,
}

/// Lets a request through, or says why not.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let mut answer = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, "GET, HEAD")];
        (StatusCode::METHOD_NOT_ALLOWED, allow, "There is nothing to change here.\n").into_response()
    } else if gate.loopback && !is_ours(host(request.headers()), &gate.names.borrow()) {
        let text =
            "I do not answer under this name. If a reverse proxy passes it on, add it to [http] hosts.\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else {
        next.run(request).await
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

fn host(headers: &HeaderMap) -> Option<&str> {
    // What cannot be read is no name of ours.
    headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default())
}

/// Whether it is asked under an address or a name that nobody else can have. A browser always says which.
fn is_ours(host: Option<&str>, names: &Names) -> bool {
    let Some(host) = host else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.');
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let nip05 = names.nip05.iter().map(|name| name.domain.as_str());
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.hosts.iter().map(String::as_str).chain(nip05).any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use grasp_mirror_commands::Nip05;

    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_answered() {
        let names = Names {
            nip05: Nip05::parse("bot@mirror.example"),
            hosts: vec!["status.example".to_owned()],
            ..Names::default()
        };
        for host in [
            "127.0.0.1:7335",
            "127.0.0.1",
            "[::1]:7335",
            "[::1]",
            "localhost:7335",
            "LocalHost",
            "localhost.",
            "mirror.example",
            "Status.Example:443",
        ] {
            assert!(is_ours(Some(host), &names), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7335",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "::",
        ] {
            assert!(!is_ours(Some(host), &Names::default()) || host == "::", "{host}");
        }
        assert!(is_ours(None, &names), "no browser leaves it out");
    }
}
