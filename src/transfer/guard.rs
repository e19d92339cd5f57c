//! Keeps the mirror from being sent into the operator's own network.
//!
//! Anyone can announce a repository whose clone URL or relay is `http://192.168.0.1/` or a name that resolves
//! there. Such an address is only used when the operator configured it, or allowed private addresses. The
//! guard fails closed: what cannot be resolved or understood is refused.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::{model::address::shown, relay::Addresses};

/// Why an address is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Another protocol than the web's.
    #[error("{url} is not http(s) or ws(s)")]
    Scheme {
        /// The address.
        url: String,
    },
    /// Not reachable from everywhere.
    #[error("{url} is not a public address; set allow_private_addresses under [network] to use it")]
    Private {
        /// The address.
        url: String,
    },
    /// The name means nothing.
    #[error("{url} cannot be resolved: {reason}")]
    Unresolved {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Decides which addresses named by events may be used.
#[derive(Clone, Debug)]
pub struct Guard {
    allow_private: bool,
    /// Host and port of everything in the operator's own configuration and in the bot's own lists.
    trusted: Arc<RwLock<BTreeSet<(String, u16)>>>,
}

impl Guard {
    /// A guard that trusts the operator's own `addresses`, and everything when `allow_private` is set.
    #[must_use]
    pub fn new(allow_private: bool, addresses: impl IntoIterator<Item = Url>) -> Self {
        let guard = Self { allow_private, trusted: Arc::default() };
        guard.trust(addresses);
        guard
    }

    /// Trusts `addresses` from now on, for all clones of this guard.
    pub fn trust(&self, addresses: impl IntoIterator<Item = Url>) {
        let places = addresses.into_iter().filter_map(|url| place(&url));
        self.trusted.write().unwrap_or_else(PoisonError::into_inner).extend(places);
    }

    fn trusts(&self, is_it: impl Fn(&(String, u16)) -> bool) -> bool {
        self.allow_private || self.trusted.read().unwrap_or_else(PoisonError::into_inner).iter().any(is_it)
    }

    /// Whether `url` may be used, looking its name up where it has one.
    ///
    /// # Errors
    ///
    /// [`GuardError`] with the way out.
    pub async fn check(&self, url: &Url) -> Result<(), GuardError> {
        self.resolve_url(url).await.map(|_| ())
    }

    /// The addresses to connect to for `url`: all that its host has, every one of them permitted.
    async fn resolve_url(&self, url: &Url) -> Result<Vec<SocketAddr>, GuardError> {
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(GuardError::Scheme { url: shown(url) });
        }
        let unresolved = |reason: String| GuardError::Unresolved { url: shown(url), reason };
        let port = url.port_or_known_default().unwrap_or(443);
        let addresses: Vec<SocketAddr> = match url.host() {
            None => return Err(unresolved("it has no host".to_owned())),
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            Some(Host::Domain(name)) => tokio::net::lookup_host((name, port))
                .await
                .map_err(|error| unresolved(error.to_string()))?
                .collect(),
        };
        if addresses.is_empty() {
            return Err(unresolved("no address".to_owned()));
        }
        let place = place(url);
        let trusted = self.trusts(|known| place.as_ref() == Some(known));
        if trusted || addresses.iter().all(|address| is_global(address.ip())) {
            Ok(addresses)
        } else {
            Err(GuardError::Private { url: shown(url) })
        }
    }
}

fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()?))
}

/// Relays are connected to at the addresses that were checked.
impl Addresses for Guard {
    fn of<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Vec<SocketAddr>, String>> {
        Box::pin(async move { self.resolve_url(url).await.map_err(|error| error.to_string()) })
    }
}

/// Resolves names for HTTP connections and drops what the guard would not permit, so that the address that
/// was checked is the address that is used.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_ascii_lowercase();
            let trusted = guard.trusts(|(known, _)| *known == host);
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0))
                .await?
                .filter(|address| trusted || is_global(address.ip()))
                .collect();
            if found.is_empty() {
                return Err(format!("{host} has no public address").into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is reachable from everywhere (IANA special-purpose address registries).
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    // Addresses that carry an IPv4 one lead where that one leads.
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_global_v4(v4);
    }
    let [first, second, third, .., seventh, eighth] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match first {
        // NAT64.
        0x64 if second == 0xff9b => third == 0 && is_global_v4(v4(seventh, eighth)),
        // 6to4.
        0x2002 => is_global_v4(v4(second, third)),
        // Documentation and other protocol assignments.
        0x2001 => second >= 0x200 && second != 0xdb8,
        // Global unicast is 2000::/3; everything else is special or unassigned.
        _ => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn special_addresses_are_not_global() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_global(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "192.0.2.1".replace("192.0.2", "193.0.2").as_str(),
            "2606:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(is_global(outside.parse().unwrap()), "{outside}");
        }
    }

    #[tokio::test]
    async fn what_the_operator_named_is_fine_and_nothing_else_inside() {
        let guard = Guard::new(false, [url("ws://127.0.0.1:7701")]);
        assert_eq!(guard.check(&url("http://127.0.0.1:7701/x.git")).await, Ok(()));
        assert!(matches!(
            guard.check(&url("http://127.0.0.1:7702/x.git")).await,
            Err(GuardError::Private { .. })
        ));
        assert!(matches!(guard.check(&url("http://localhost:1/x")).await, Err(GuardError::Private { .. })));
        assert!(matches!(guard.check(&url("file:///etc/passwd")).await, Err(GuardError::Scheme { .. })));
        assert!(matches!(guard.check(&url("http://[::1]/")).await, Err(GuardError::Private { .. })));
        assert_eq!(Guard::new(true, []).check(&url("http://10.0.0.1/x")).await, Ok(()));
        let told = guard.check(&url("http://me:secret@10.0.0.1/x")).await.unwrap_err().to_string();
        assert!(!told.contains("secret"), "{told}");
    }
}
