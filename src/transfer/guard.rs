//! Keeps the mirror from being sent into the operator's own network.
//!
//! Anyone can announce a repository whose clone URL or relay is `http://192.168.0.1/` or a name that resolves
//! there. Such an address is only used when the operator configured it, or allowed private addresses. The
//! guard fails closed: what cannot be resolved or understood is refused. Nor may it be sent to talk HTTP to other
//! people's mail servers, so ports that browsers refuse are refused here.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use url::{Host, Url};

use crate::{git::wire::Gate, model::address::shown, relay::Addresses};

/// How long a name server may take. Whoever owns a name can make its answer as slow as they like.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Names looked up at the same time.
static LOOK_UPS: Semaphore = Semaphore::const_new(64);

/// Ports of other protocols, which no browser connects to ("bad ports" of the Fetch standard). What an HTTP request
/// carries can be read as commands there.
const OTHER_PROTOCOLS: [u16; 82] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
    3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

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
    /// Another protocol's port.
    #[error("{url} names a port of another protocol")]
    Port {
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
        let trusted = self.trusts_place(url);
        if !trusted && OTHER_PROTOCOLS.contains(&port) {
            return Err(GuardError::Port { url: shown(url) });
        }
        let addresses: Vec<SocketAddr> = match url.host() {
            None => return Err(unresolved("it has no host".to_owned())),
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            Some(Host::Domain(name)) => look_up(name, port).await.map_err(unresolved)?,
        };
        if trusted || addresses.iter().all(|address| is_global(address.ip())) {
            Ok(addresses)
        } else {
            Err(GuardError::Private { url: shown(url) })
        }
    }

    fn trusts_place(&self, url: &Url) -> bool {
        let place = place(url);
        self.trusts(|known| place.as_ref() == Some(known))
    }
}

/// All addresses of `name`; at least one.
async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(LOOK_UP, ask_system(name.to_owned(), port)).await;
    let found = found.map_err(|_| format!("no answer within {} s", LOOK_UP.as_secs()))?;
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("no address".to_owned()) } else { Ok(found) }
}

/// On a thread of its own: the system's resolver cannot be stopped, and goes on for long after nobody waits for it any
/// more. With a few such names strangers would hold all of the runtime's threads, on which the store is read.
async fn ask_system(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let place = LOOK_UPS.acquire().await.map_err(io::Error::other)?;
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("look-up".to_owned()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        drop(place);
        // Nobody may be waiting any more.
        let _ = tell.send(found);
    })?;
    told.await.map_err(io::Error::other)?
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

/// Resolves names for HTTP connections and refuses those that the guard would not permit, so that the address that
/// was checked is the address that is used.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_ascii_lowercase();
            // The port is not known here: the caller has checked it, and `permits` those of redirects.
            let trusted = guard.trusts(|(known, _)| *known == host);
            let found = look_up(&host, 0).await.map_err(|reason| format!("{host}: {reason}"))?;
            if trusted || found.iter().all(|address| is_global(address.ip())) {
                Ok(Box::new(found.into_iter()) as Addrs)
            } else {
                Err(format!("{host} has an address that is not public").into())
            }
        })
    }
}

impl Gate for Guard {
    fn permits(&self, next: &Url) -> bool {
        if self.trusts_place(next) {
            return true;
        }
        let address = match next.host() {
            // A name that is trusted at one port would resolve at every other one as well.
            Some(Host::Domain(name)) => {
                let name = name.to_ascii_lowercase();
                return !self.trusts(|(known, _)| *known == name) && is_web(next);
            }
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            None => return false,
        };
        is_global(address) && is_web(next)
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.port_or_known_default().is_some_and(|port| !OTHER_PROTOCOLS.contains(&port))
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
        // Relays of 6to4, which hand packets on to whatever an address carries.
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    // Addresses that carry an IPv4 one lead where that one leads.
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_global_v4(v4);
    }
    let [first, second, middle @ .., seventh, eighth] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match first {
        // NAT64.
        0x64 if second == 0xff9b => middle == [0; 4] && is_global_v4(v4(seventh, eighth)),
        // 6to4.
        0x2002 => middle.first().is_some_and(|third| is_global_v4(v4(second, *third))),
        // Documentation and other protocol assignments, Teredo among them.
        0x2001 => second >= 0x200 && second != 0xdb8,
        // Documentation.
        0x3fff => second >= 0x1000,
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
            "127.255.255.254",
            "192.0.0.8",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "192.88.99.1",
            "239.255.255.255",
            "240.0.0.1",
            // Mapped, translated and compatible.
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "::127.0.0.1",
            "::1.1.1.1",
            // NAT64 with something between prefix and address, and the prefix for local use.
            "64:ff9b::1:0:101:101",
            "64:ff9b:1::101:101",
            "64:ff9b::a9fe:a9fe",
            // 6to4 into 169.254.169.254; Teredo; benchmarking; ORCHID.
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "3fff::1",
            "3fff:fff::1",
            "100::1",
            "5f00::1",
            "fec0::1",
        ] {
            assert!(!is_global(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "192.0.2.1".replace("192.0.2", "193.0.2").as_str(),
            "2606:4700::1111",
            "64:ff9b::101:101",
            "::ffff:1.1.1.1",
            "2002:101:101::1",
            "2001:4860:4860::8888",
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
        assert!(matches!(
            guard.check(&url("http://localhost:8080/x")).await,
            Err(GuardError::Private { .. })
        ));
        assert!(matches!(guard.check(&url("file:///etc/passwd")).await, Err(GuardError::Scheme { .. })));
        assert!(matches!(guard.check(&url("http://[::1]/")).await, Err(GuardError::Private { .. })));
        assert_eq!(Guard::new(true, []).check(&url("http://10.0.0.1/x")).await, Ok(()));
        let told = guard.check(&url("http://me:secret@10.0.0.1/x")).await.unwrap_err().to_string();
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn a_name_that_takes_long_holds_none_of_the_runtimes_threads() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || ends.recv());
            assert_eq!(Guard::new(true, []).check(&url("http://localhost/")).await, Ok(()));
            drop(end);
            busy.await.unwrap().unwrap_err();
        });
    }

    #[tokio::test]
    async fn every_spelling_of_an_inner_address_is_found_out() {
        let guard = Guard::new(false, []);
        for inside in [
            "http://127.1/x.git",
            "http://0x7f.1/x.git",
            "http://0x7f000001/x.git",
            "http://2130706433/x.git",
            "http://0177.0.0.1/x.git",
            "http://127.0.0.1./x.git",
            "http://\u{ff11}27.0.0.1/x.git",
            "http://%31%32%37.0.0.1/x.git",
            "http://0/x.git",
            "http://localhost/x.git",
            "http://LOCALHOST./x.git",
            "ws://[::ffff:7f00:1]",
            "wss://[::ffff:127.0.0.1]",
            "wss://100.64.1.1",
        ] {
            let checked = guard.check(&url(inside)).await;
            // A name that nothing answers to is as good.
            let kept_out = matches!(checked, Err(GuardError::Private { .. } | GuardError::Unresolved { .. }));
            assert!(kept_out, "{inside}: {checked:?}");
        }
        for no_url in
            ["http://[fe80::1%25eth0]/", "http://[::1]x/", "http://1.2.3.4.5.6/", "http://256.1.1.1/"]
        {
            assert!(no_url.parse::<Url>().is_err(), "{no_url}");
        }
    }

    #[tokio::test]
    async fn only_the_web_is_talked_to() {
        let guard = Guard::new(false, [url("wss://1.1.1.1:25")]);
        for other in [
            "file:///etc/passwd",
            "ext::sh -c id",
            "ssh://git@1.1.1.1/x",
            "git://1.1.1.1/x",
            "ftp://1.1.1.1/",
        ] {
            assert!(matches!(guard.check(&url(other)).await, Err(GuardError::Scheme { .. })), "{other}");
        }
        for port in [22, 25, 465, 587, 6667] {
            let at = url(&format!("https://1.0.0.1:{port}/x.git"));
            assert!(matches!(guard.check(&at).await, Err(GuardError::Port { .. })), "{port}");
            assert!(!guard.permits(&at), "{port}");
        }
        assert_eq!(guard.check(&url("https://1.0.0.1:8443/x.git")).await, Ok(()));
        // The operator knows better.
        assert_eq!(guard.check(&url("https://1.1.1.1:25/x.git")).await, Ok(()));
    }

    #[test]
    fn redirects_lead_out_and_not_in() {
        let guard = Guard::new(false, [url("ws://127.0.0.1:7701"), url("ws://nas.local:7702")]);
        for fine in
            ["https://example.com/", "http://1.1.1.1/", "http://127.0.0.1:7701/x", "http://nas.local:7702/x"]
        {
            assert!(guard.permits(&url(fine)), "{fine}");
        }
        for inside in [
            "http://127.0.0.1:7702/",
            "http://nas.local:22/",
            "http://NAS.local/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]:7701/",
            "http://example.com:25/",
            "ftp://example.com/",
            "file:///etc/passwd",
        ] {
            assert!(!guard.permits(&url(inside)), "{inside}");
        }
        assert!(Guard::new(true, []).permits(&url("http://10.0.0.1/")));
    }

    #[tokio::test]
    async fn a_name_is_used_only_when_all_its_addresses_are_public() {
        let trusting = Guard::new(false, [url("http://localhost:7701")]);
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(trusting.resolve(name()).await.is_ok());
        assert!(Guard::new(false, []).resolve(name()).await.is_err());
    }
}
