//! The address of a GRASP server: a git server and a relay behind one host, port and path.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use nostr::{
    key::PublicKey,
    nips::nip19::{FromBech32, ToBech32},
    types::RelayUrl,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// Everything but RFC 3986's unreserved characters is encoded, so that no identifier can form a
/// path of its own.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One GRASP server.
///
/// Two addresses are equal when TLS, host (in any case), port (a default one may be left out) and
/// path (trailing slashes do not count) are. Written as `wss://host[:port][/path]`.
///
/// As small as a pointer: it is the key of every map of mirrors, and a B-tree has room for eleven keys where there are
/// three servers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl(Arc<Addresses>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Addresses {
    http: Url,
    relay: RelayUrl,
}

impl Ord for ServerUrl {
    fn cmp(&self, other: &Self) -> Ordering {
        // Mostly they are copies of one address.
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ServerUrl {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a string is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// Not even a URL.
    #[error("{0:?} is not an address like wss://host[:port][/path]")]
    Malformed(String),
    /// Another protocol.
    #[error("a server speaks wss or ws, not {0:?}")]
    Scheme(String),
    /// Credentials, a query or a fragment.
    #[error("{0:?} has more than host, port and path")]
    Extra(String),
}

impl ServerUrl {
    /// The relay: `wss://HOST[/PATH]`, without a trailing slash.
    #[must_use]
    pub fn relay_url(&self) -> &RelayUrl {
        &self.0.relay
    }

    /// Where its pages and repositories begin: `https://HOST[/PATH]`.
    #[must_use]
    pub fn http_base(&self) -> &Url {
        &self.0.http
    }

    /// Where it serves the repository `identifier` of `author`.
    #[must_use]
    pub fn clone_url(&self, author: &PublicKey, identifier: &str) -> Url {
        let Ok(npub) = author.to_bech32();
        let mut url = self.0.http.clone();
        let base = self.0.http.path().trim_end_matches('/');
        url.set_path(&format!("{base}/{npub}/{}.git", utf8_percent_encode(identifier, RESERVED)));
        url
    }

    /// Host, port and path, for people.
    #[must_use]
    pub fn host(&self) -> &str {
        let url = self.0.relay.as_str_without_trailing_slash();
        url.split_once("://").map_or(url, |(_, host)| host)
    }

    /// The server, author and identifier that a clone URL names: the inverse of [`Self::clone_url`].
    ///
    /// `None` for what no GRASP server serves: another scheme, no npub, no `.git`.
    #[must_use]
    pub fn parse_clone_url(clone_url: &str) -> Option<(Self, PublicKey, String)> {
        let url = Url::parse(clone_url).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        let (base, name) = url.path().trim_end_matches('/').rsplit_once('/')?;
        let (base, npub) = base.rsplit_once('/')?;
        let author = npub.starts_with("npub1").then(|| PublicKey::from_bech32(npub).ok())??;
        let identifier = percent_decode_str(name.strip_suffix(".git")?).decode_utf8().ok()?.into_owned();
        let mut server = url.clone();
        server.set_path(base);
        Some((server.as_str().parse().ok()?, author, identifier))
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    /// Reads `wss://`, `ws://`, `https://` and `http://` addresses, and a bare host as `wss://`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ServerUrlError::Malformed(text.to_owned());
        // The URL parser would silently drop some of these.
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(malformed());
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("wss://{text}") };
        let mut http = Url::parse(&with_scheme).map_err(|_| malformed())?;
        let scheme = match http.scheme() {
            "ws" | "http" => "http",
            "wss" | "https" => "https",
            other => return Err(ServerUrlError::Scheme(other.to_owned())),
        };
        http.set_scheme(scheme).map_err(|()| malformed())?;
        let credentials = !http.username().is_empty() || http.password().is_some();
        if credentials || http.query().is_some() || http.fragment().is_some() {
            return Err(ServerUrlError::Extra(text.to_owned()));
        }
        // `host.` is the same name to DNS.
        if let Some(host) = http.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned) {
            http.set_host(Some(&host)).map_err(|_| malformed())?;
        }
        let path = http.path().trim_end_matches('/').to_owned();
        http.set_path(&path);

        let address = http.as_str().strip_prefix("http").ok_or_else(malformed)?;
        let relay = format!("ws{}", address.trim_end_matches('/'));
        let relay = RelayUrl::parse(&relay).map_err(|_| malformed())?;
        Ok(Self(Arc::new(Addresses { http, relay })))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.relay.as_str_without_trailing_slash())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::key::Keys;
    use proptest::prelude::*;

    use super::*;

    fn server(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    fn author() -> PublicKey {
        PublicKey::parse("npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy").unwrap()
    }

    #[test]
    fn one_server_has_many_spellings() {
        let plain = server("wss://relay.ngit.dev");
        for same in [
            "relay.ngit.dev",
            "wss://relay.ngit.dev/",
            "WSS://Relay.NGIT.dev",
            "wss://relay.ngit.dev:443",
            "https://relay.ngit.dev//",
            "wss://relay.ngit.dev.",
        ] {
            assert_eq!(server(same), plain, "{same}");
            assert_eq!(server(same).to_string(), "wss://relay.ngit.dev");
        }
        for other in ["ws://relay.ngit.dev", "wss://relay.ngit.dev:444", "wss://relay.ngit.dev/a", "ngit.dev"]
        {
            assert_ne!(server(other), plain, "{other}");
        }
        assert_eq!(server("ws://h:80/a/"), server("http://h/a"));
    }

    #[test]
    fn its_other_addresses_follow() {
        let under_a_path = server("ws://127.0.0.1:7701/grasp/");
        assert_eq!(under_a_path.relay_url().as_str(), "ws://127.0.0.1:7701/grasp");
        assert_eq!(under_a_path.http_base().as_str(), "http://127.0.0.1:7701/grasp");
        assert_eq!(under_a_path.host(), "127.0.0.1:7701/grasp");
        assert_eq!(
            under_a_path.clone_url(&author(), "my repo/ü").as_str(),
            "http://127.0.0.1:7701/grasp/npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/my%20repo%2F%C3%BC.git"
        );
        assert_eq!(
            server("gitnostr.com").clone_url(&author(), "x").as_str(),
            "https://gitnostr.com/npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/x.git"
        );
    }

    #[test]
    fn what_is_no_server_says_why() {
        for bad in ["", "wss://", "a b", "wss://h/\n", "wss://h\\x", "wss://[::1"] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad:?}");
        }
        assert_eq!("ftp://h".parse::<ServerUrl>(), Err(ServerUrlError::Scheme("ftp".to_owned())));
        for extra in ["wss://u:p@h", "wss://h?x", "wss://h#x"] {
            assert_eq!(extra.parse::<ServerUrl>(), Err(ServerUrlError::Extra(extra.to_owned())));
        }
    }

    #[test]
    fn only_grasp_clone_urls_name_a_server() {
        for other in [
            "https://github.com/a/b.git",
            "https://h/npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/x",
            "ssh://h/npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/x.git",
            "https://h/npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/x.git?a",
            "https://h/x.git",
            "",
        ] {
            assert_eq!(ServerUrl::parse_clone_url(other), None, "{other}");
        }
    }

    #[test]
    fn serde_is_its_text() {
        let json = serde_json::to_string(&server("Gitnostr.com/")).unwrap();
        assert_eq!(json, "\"wss://gitnostr.com\"");
        assert_eq!(serde_json::from_str::<ServerUrl>(&json).unwrap(), server("gitnostr.com"));
    }

    proptest! {
        #[test]
        fn a_clone_url_reads_back(
            tls: bool,
            host in "[a-z][a-z0-9]{0,8}(\\.[a-z]{2,4})?",
            port in proptest::option::of(1u16..),
            path in "(/[a-z0-9._-]{0,5}[a-z0-9]){0,2}",
            identifier in any::<String>(),
        ) {
            let scheme = if tls { "wss" } else { "ws" };
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let server = server(&format!("{scheme}://{host}{port}{path}"));
            let keys = Keys::generate();
            let clone_url = server.clone_url(&keys.public_key(), &identifier);
            prop_assert_eq!(
                ServerUrl::parse_clone_url(clone_url.as_str()),
                Some((server.clone(), keys.public_key(), identifier))
            );
            prop_assert_eq!(server.to_string().parse::<ServerUrl>(), Ok(server));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<ServerUrl>();
            let _ = ServerUrl::parse_clone_url(&text);
        }
    }
}
