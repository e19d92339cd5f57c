//! An ordinary relay: takes every event, knows nothing of git.

use std::net::SocketAddr;

use nostr::{event::Event, filter::Filter, key::Keys};
use nostr_sdk::local_relay::{LocalRelay, LocalRelayBuilder, LocalRelayBuilderNip42, RateLimit};
use tokio::net::TcpStream;

use crate::{Address, Answer, Authority, Nginx, Proxy, free_port, wire};

/// An ordinary Nostr relay in this process; gone when dropped.
#[derive(Debug)]
pub struct TestRelay {
    relay: LocalRelay,
    url: String,
}

impl TestRelay {
    /// A relay on a free loopback port.
    pub async fn start() -> Self {
        Self::start_as(LocalRelay::builder()).await
    }

    /// A relay that lets only people who say who they are (NIP-42) read, and each only their own mail.
    pub async fn start_gated() -> Self {
        Self::start_as(LocalRelay::builder().nip42(LocalRelayBuilderNip42::read()).auth_dm(true)).await
    }

    /// A relay with other manners: refused kinds, authentication, a write policy.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn start_as(builder: LocalRelayBuilder) -> Self {
        let relay = builder
            // One that can come back: not among the ports the kernel hands to outgoing connections.
            .port(free_port())
            .rate_limit(RateLimit { max_reqs: 500, notes_per_minute: 100_000 })
            .queries_per_minute(100_000)
            .messages_per_minute(100_000)
            .build();
        relay.run().await.expect("the relay listens");
        let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
        Self { relay, url }
    }

    /// The address, `ws://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A [`Proxy`] before it.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn proxied(&self) -> Proxy {
        Proxy::before(self.address()).await
    }

    /// A real reverse proxy before it, with a certificate by `authority`.
    ///
    /// # Panics
    ///
    /// When it does not come up; with its log.
    pub async fn behind_nginx(&self, authority: &Authority) -> Nginx {
        Nginx::before(self.address(), authority).await
    }

    fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("ws://").parse().unwrap()
    }

    /// Sends `event` as a client would.
    pub async fn send(&self, event: &Event) -> Answer {
        wire::send(event, self).await
    }

    /// What the relay serves.
    pub async fn served(&self, filter: Filter) -> Vec<Event> {
        wire::fetch(self, filter).await
    }

    /// What the relay serves to someone who says who they are.
    pub async fn served_to(&self, reader: &Keys, filter: Filter) -> Vec<Event> {
        wire::fetch_as(Some(reader), self, filter).await
    }

    /// Takes `event` without a connection, for thousands of them; subscribers hear of it.
    ///
    /// # Panics
    ///
    /// When it cannot be stored.
    pub async fn receive(&self, event: Event) {
        self.relay.add_event(event).await.expect("the relay stores it");
    }

    /// Stops listening and drops every connection; what is stored stays.
    pub async fn stop(&self) {
        let address = self.address();
        // Whoever is busy at the moment does not hear the first call.
        while TcpStream::connect(address).await.is_ok() {
            self.relay.shutdown();
            tokio::task::yield_now().await;
        }
        self.relay.shutdown();
    }

    /// Listens again, on the same port.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn resume(&self) {
        self.relay.run().await.expect("the relay listens again");
    }
}

impl Address for TestRelay {
    fn ws(&self) -> String {
        self.url.clone()
    }
}
