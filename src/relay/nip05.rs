//! Whose a name like `alice@example.com` is: its domain says so (NIP-05).
//!
//! The name comes from a message, so the domain may be anything: it is connected to only at addresses that were
//! checked, over TLS, and a redirect is no answer (NIP-05 forbids following one).

use std::time::Duration;

use grasp_mirror_commands::{Nip05, clean, with_causes};
use nostr::prelude::{Nip05Address, Nip05Profile, PublicKey};
use reqwest::{Client, redirect};
use url::Url;

use super::{Addresses, transport::USER_AGENT};
use crate::tls;

/// How long the whole look-up may take: a person waits for the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest document read, in bytes. Some domains answer with all of their names.
const MAX_BYTES: usize = 1 << 20;

/// Why a name leads to nobody, as the rest of a sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nip05Error {
    /// No domain can be called this.
    #[error("that is no name at a domain")]
    Malformed,
    /// The domain does not resolve, or to where the operator does not want the bot to go.
    #[error("{0}")]
    Address(String),
    /// No connection, or no whole answer.
    #[error("its domain cannot be reached: {0}")]
    Unreachable(String),
    /// Something else than a document.
    #[error("its domain answers with HTTP {0}")]
    Status(u16),
    /// Not in time.
    #[error("its domain did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    /// More than a list of names.
    #[error("its domain's list of names is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The document does not hold the name, or no key for it.
    #[error("its domain knows no such name")]
    Unknown,
}

/// Asks the domain of `name` for the key (NIP-05), where `addresses` permits to connect to it.
///
/// # Errors
///
/// [`Nip05Error`]; also after five seconds.
pub async fn resolve(addresses: &dyn Addresses, name: &Nip05) -> Result<PublicKey, Nip05Error> {
    let address = Nip05Address::parse(&format!("{}@{}", name.name, name.domain));
    let address = address.map_err(|_| Nip05Error::Malformed)?;
    within(DEADLINE, addresses, &address, address.url()).await
}

async fn within(
    deadline: Duration,
    addresses: &dyn Addresses,
    address: &Nip05Address,
    url: &Url,
) -> Result<PublicKey, Nip05Error> {
    let asked = tokio::time::timeout(deadline, document(addresses, url)).await;
    let document = asked.map_err(|_| Nip05Error::TimedOut)??;
    let profile = Nip05Profile::from_raw_json(address, &document).map_err(|_| Nip05Error::Unknown)?;
    // Not every 32 bytes are a key.
    Some(profile.public_key).filter(|key| key.xonly().is_ok()).ok_or(Nip05Error::Unknown)
}

/// What `url` serves, from the very addresses that were checked.
async fn document(addresses: &dyn Addresses, url: &Url) -> Result<String, Nip05Error> {
    let host = url.host_str().ok_or(Nip05Error::Malformed)?;
    let checked = addresses.of(url).await.map_err(|reason| Nip05Error::Address(clean(&reason, 200)))?;
    let failed = |error: reqwest::Error| Nip05Error::Unreachable(with_causes(&error.without_url()));
    let tls = tls::for_http().map_err(|error| Nip05Error::Unreachable(error.to_string()))?;
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .resolve_to_addrs(host, &checked)
        .no_proxy()
        .user_agent(USER_AGENT)
        .build()
        .map_err(failed)?;
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(Nip05Error::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(Nip05Error::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|_| Nip05Error::Unknown)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures::future::BoxFuture;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    const HEX: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    /// Every host is this address, or none may be connected to.
    #[derive(Debug)]
    struct Only(Result<SocketAddr, &'static str>);

    impl Addresses for Only {
        fn of<'a>(&'a self, _: &'a Url) -> BoxFuture<'a, Result<Vec<SocketAddr>, String>> {
            Box::pin(async { self.0.map(|address| vec![address]).map_err(str::to_owned) })
        }
    }

    /// Answers one request with `answer`, and hands back the request.
    async fn serve(answer: String) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.ok();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, request)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    /// The look-up of `alice@example.com` as it is, but without TLS.
    async fn ask(address: SocketAddr, deadline: Duration) -> Result<PublicKey, Nip05Error> {
        let name = Nip05Address::parse("alice@example.com").unwrap();
        let url = name.url().as_str().replacen(
            "https://example.com",
            &format!("http://example.com:{}", address.port()),
            1,
        );
        within(deadline, &Only(Ok(address)), &name, &url.parse().unwrap()).await
    }

    async fn answered(answer: String) -> Result<PublicKey, Nip05Error> {
        ask(serve(answer).await.0, DEADLINE).await
    }

    #[tokio::test]
    async fn a_domain_says_whose_a_name_is() {
        let body = format!(r#"{{"names":{{"bob":"{}","alice":"{HEX}"}}}}"#, "0".repeat(64));
        let (address, request) = serve(ok(&body)).await;
        assert_eq!(ask(address, DEADLINE).await, Ok(PublicKey::from_hex(HEX).unwrap()));
        let request = request.await.unwrap();
        assert!(request.starts_with("GET /.well-known/nostr.json?name=alice HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn what_is_no_answer_says_why() {
        let none = "0".repeat(64);
        for (body, error) in [
            (r#"{"names":{}}"#.to_owned(), Nip05Error::Unknown),
            (r#"{"names":{"alice":"npub1"}}"#.to_owned(), Nip05Error::Unknown),
            (format!(r#"{{"names":{{"alice":"{none}"}}}}"#), Nip05Error::Unknown),
            ("<html>".to_owned(), Nip05Error::Unknown),
            ("x".repeat(MAX_BYTES + 1), Nip05Error::TooLong),
        ] {
            assert_eq!(answered(ok(&body)).await, Err(error), "{:.40}", body);
        }
        let nothing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answered(nothing.to_owned()).await, Err(Nip05Error::Status(404)));
        let broken = answered("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned()).await;
        assert!(matches!(broken, Err(Nip05Error::Unreachable(_))), "{broken:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (there, _) = serve(ok(&format!(r#"{{"names":{{"alice":"{HEX}"}}}}"#))).await;
        let redirect =
            format!("HTTP/1.1 302 Found\r\nlocation: http://{there}/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answered(redirect).await, Err(Nip05Error::Status(302)));
    }

    #[tokio::test]
    async fn silence_costs_the_deadline_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answer = ask(listener.local_addr().unwrap(), Duration::from_millis(50)).await;
        assert_eq!(answer, Err(Nip05Error::TimedOut));
    }

    #[tokio::test]
    async fn what_may_not_be_connected_to_is_not() {
        let guarded = Only(Err("https://inside.example/ is not a public address"));
        let name = Nip05 { name: "alice".to_owned(), domain: "inside.example".to_owned() };
        let refused = resolve(&guarded, &name).await;
        assert_eq!(
            refused,
            Err(Nip05Error::Address("https://inside.example/ is not a public address".to_owned()))
        );
        let odd = Nip05 { name: "alice".to_owned(), domain: "a b".to_owned() };
        assert_eq!(resolve(&guarded, &odd).await, Err(Nip05Error::Malformed));
    }
}
