//! The WebSocket under a relay connection: to an address that was checked, and without Nagle's delay.
//!
//! nostr-sdk's own transport resolves the name by itself, after anyone could have checked it, and leaves
//! Nagle's algorithm on: every small message that follows another waits for a delayed acknowledgement, 40 ms.

use std::{
    fmt,
    future::ready,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_wsocket::Message;
use futures::{Sink, SinkExt, StreamExt, future::BoxFuture, stream::SplitSink};
use nostr_sdk::{
    error::Error,
    transport::websocket::{WebSocketSink, WebSocketStream, WebSocketTransport},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, client_async_tls_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};
use url::Url;

use crate::tls;

/// The longest message taken, in bytes: above what relays send, below what would hurt.
const MAX_MESSAGE: usize = 6 << 20;

/// Bytes set aside for reading from each relay: a daemon may hold a hundred connections, most of them silent.
const READ_BUFFER: usize = 16 << 10;

/// How much a relay may send in answer to comparisons (NIP-77) on one connection, in bytes. nostr-sdk keeps every id that
/// it is told, and a comparison ends when the relay says so: without a limit, memory would. An id is 64 bytes here.
const MAX_DIFFERENCES: usize = 256 << 20;

/// What this program calls itself to relays.
pub(super) const USER_AGENT: &str = concat!("grasp-mirror/", env!("CARGO_PKG_VERSION"));

/// Finds out where to connect, and whether it is allowed.
pub trait Addresses: fmt::Debug + Send + Sync {
    /// The addresses of `url`'s host; an error when one must not be connected to.
    fn of<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Vec<SocketAddr>, String>>;
}

#[derive(Clone, Debug)]
pub(super) struct Transport {
    addresses: Arc<dyn Addresses>,
}

impl Transport {
    pub(super) fn new(addresses: Arc<dyn Addresses>) -> Self {
        Self { addresses }
    }

    async fn open(&self, url: &Url) -> Result<(WebSocketSink, WebSocketStream), Error> {
        let addresses = self.addresses.of(url).await.map_err(Error::transport)?;
        let stream = TcpStream::connect(addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        let mut request = url.as_str().into_client_request().map_err(Error::transport)?;
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let tls = (url.scheme() == "wss").then(tls::for_websockets).transpose().map_err(Error::transport)?;
        let connecting =
            client_async_tls_with_config(request, stream, Some(config), tls.map(Connector::Rustls));
        let (socket, _) = Box::pin(connecting).await.map_err(Error::transport)?;
        let (sink, stream) = socket.split();
        let mut left = MAX_DIFFERENCES;
        let messages = stream.filter_map(move |message| {
            let message = message.map_err(Error::transport).and_then(|message| bounded(message, &mut left));
            ready(message.map(from_tungstenite).transpose())
        });
        Ok((Box::pin(Outgoing(sink)), Box::pin(messages)))
    }
}

/// An error once answers to comparisons have used up what is `left`.
fn bounded(message: tungstenite::Message, left: &mut usize) -> Result<tungstenite::Message, Error> {
    if let tungstenite::Message::Text(text) = &message
        && text.trim_start().trim_start_matches('[').trim_start().starts_with("\"NEG-MSG\"")
    {
        *left = left
            .checked_sub(text.len())
            .ok_or_else(|| Error::transport(io::Error::other("answers to a comparison without end")))?;
    }
    Ok(message)
}

impl WebSocketTransport for Transport {
    fn support_ping(&self) -> bool {
        true
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        _proxy: Option<SocketAddr>,
    ) -> BoxFuture<'a, Result<(WebSocketSink, WebSocketStream), Error>> {
        Box::pin(self.open(url))
    }
}

type Socket = tokio_tungstenite::WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Messages on their way to the relay.
struct Outgoing(SplitSink<Socket, tungstenite::Message>);

impl Sink<Message> for Outgoing {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready_unpin(cx).map_err(Error::transport)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.0.start_send_unpin(message.into()).map_err(Error::transport)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_flush_unpin(cx).map_err(Error::transport)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_close_unpin(cx).map_err(Error::transport)
    }
}

/// A received message in nostr-sdk's words; raw frames are never received.
fn from_tungstenite(message: tungstenite::Message) -> Option<Message> {
    Some(match message {
        tungstenite::Message::Text(text) => Message::Text(text.to_string()),
        tungstenite::Message::Binary(data) => Message::Binary(data.to_vec()),
        tungstenite::Message::Ping(data) => Message::Ping(data.to_vec()),
        tungstenite::Message::Pong(data) => Message::Pong(data.to_vec()),
        tungstenite::Message::Close(_) => Message::Close(None),
        tungstenite::Message::Frame(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_an_end() {
        let mut left = 1000;
        let mut send = |text: String| bounded(tungstenite::Message::text(text), &mut left).is_ok();
        for _ in 0..50 {
            assert!(send(format!("[\"EVENT\",\"a\",\"{}\"]", "x".repeat(900))));
        }
        assert!(send(format!("[\"NEG-MSG\",\"a\",\"{}\"]", "61".repeat(300))));
        assert!(!send(format!(" [ \"NEG-MSG\",\"a\",\"{}\"]", "61".repeat(300))));
    }
}
