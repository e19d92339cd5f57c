//! An ordinary relay: takes every event, knows nothing of git.

use nostr::{event::Event, filter::Filter};
use nostr_sdk::local_relay::{LocalRelay, LocalRelayBuilder, RateLimit};

use crate::{Address, Answer, wire};

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

    /// A relay with other manners: refused kinds, authentication, a write policy.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub async fn start_as(builder: LocalRelayBuilder) -> Self {
        let relay = builder
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

    /// Sends `event` as a client would.
    pub async fn send(&self, event: &Event) -> Answer {
        wire::send(event, self).await
    }

    /// What the relay serves.
    pub async fn served(&self, filter: Filter) -> Vec<Event> {
        wire::fetch(self, filter).await
    }

    /// Stops listening and drops every connection.
    pub fn stop(&self) {
        self.relay.shutdown();
    }
}

impl Address for TestRelay {
    fn ws(&self) -> String {
        self.url.clone()
    }
}
