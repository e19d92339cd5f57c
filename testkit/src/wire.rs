//! One event to one relay, and what a relay serves: the smallest Nostr client that tells the truth.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use nostr::{
    event::{Event, EventId},
    filter::Filter,
    key::Keys,
    message::RelayMessage,
    types::RelayUrl,
};
use nostr_sdk::{
    authenticator::SignerAuthenticator,
    relay::{Relay, RelayNotification},
};

use crate::{Address, look::PATIENCE};

/// What a relay said to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The `OK` flag.
    pub accepted: bool,
    /// The words that came with it.
    pub message: String,
}

impl Answer {
    /// Stops the test unless the event was accepted.
    ///
    /// # Panics
    ///
    /// With the relay's words.
    pub fn expect_accepted(self) -> Self {
        assert!(self.accepted, "refused: {}", self.message);
        self
    }
}

async fn connect(to: &str, reader: Option<&Keys>) -> Relay {
    let url = RelayUrl::parse(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let mut relay = Relay::builder(url);
    if let Some(reader) = reader {
        relay = relay.authenticator(SignerAuthenticator::new(reader.clone()));
    }
    let relay = relay.build();
    relay
        .try_connect()
        .timeout(PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
    relay
}

/// Sends `event` over a connection of its own (servers limit writes per connection).
pub async fn send(event: &Event, to: impl Address) -> Answer {
    let relay = connect(&to.ws(), None).await;
    let answer = send_on(&relay, event).await;
    relay.shutdown();
    answer
}

async fn send_on(relay: &Relay, event: &Event) -> Answer {
    match relay.send_event(event).ok_timeout(PATIENCE).await {
        Ok(output) => {
            Answer { accepted: true, message: output.status().message().unwrap_or_default().to_owned() }
        }
        Err(error) => Answer { accepted: false, message: error.to_string() },
    }
}

/// All events that match, as served right now to anyone.
pub async fn fetch(from: impl Address, filter: Filter) -> Vec<Event> {
    fetch_as(None, from, filter).await
}

/// All events that match, as served right now to `reader`, who answers when asked who they are (NIP-42).
///
/// # Panics
///
/// When the relay cannot be reached or breaks off.
pub async fn fetch_as(reader: Option<&Keys>, from: impl Address, filter: Filter) -> Vec<Event> {
    let from = from.ws();
    let relay = connect(&from, reader).await;
    let events = relay.fetch_events(filter).timeout(PATIENCE).await;
    relay.shutdown();
    events.unwrap_or_else(|error| panic!("reading from {from}: {error}")).into_iter().collect()
}

/// A connection that stays, to measure what goes over it and not how it is made.
pub struct Line {
    relay: Relay,
    notices: Pin<Box<dyn Stream<Item = RelayNotification> + Send>>,
}

impl Line {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When the relay cannot be reached.
    pub async fn open(to: impl Address) -> Self {
        let relay = connect(&to.ws(), None).await;
        let notices = relay.notifications();
        Self { relay, notices }
    }

    /// Listens for what matches and comes from now on.
    ///
    /// # Panics
    ///
    /// When the relay does not take the subscription.
    pub async fn listen(&mut self, wanted: Filter) {
        self.relay.subscribe(wanted.limit(0)).await.expect("the relay takes a subscription");
        self.wait(PATIENCE, |notice| match notice {
            RelayNotification::Message { message } => {
                matches!(*message, RelayMessage::EndOfStoredEvents(_)).then_some(())
            }
            _ => None,
        })
        .await;
    }

    /// Sends `event`.
    pub async fn send(&self, event: &Event) -> Answer {
        send_on(&self.relay, event).await
    }

    /// The next event that comes, of other people's.
    ///
    /// # Panics
    ///
    /// When none does, or the connection is lost.
    pub async fn next(&mut self) -> Event {
        self.next_within(PATIENCE).await
    }

    /// The same, of a relay that may stay silent for as long as `limit`.
    ///
    /// # Panics
    ///
    /// When none comes, or the connection is lost.
    pub async fn next_within(&mut self, limit: Duration) -> Event {
        self.wait(limit, |notice| match notice {
            RelayNotification::Event { event, .. } => Some(*event),
            _ => None,
        })
        .await
    }

    /// Waits until the relay sends the event with this id, also one that was sent to it here.
    ///
    /// # Panics
    ///
    /// When it does not, or the connection is lost.
    pub async fn hear(&mut self, id: EventId) {
        self.wait(PATIENCE, |notice| match notice {
            RelayNotification::Message { message } => {
                matches!(&*message, RelayMessage::Event { event, .. } if event.id == id).then_some(())
            }
            _ => None,
        })
        .await;
    }

    async fn wait<T>(&mut self, limit: Duration, wanted: impl Fn(RelayNotification) -> Option<T>) -> T {
        let wait = async {
            loop {
                let notice = self.notices.next().await.expect("the connection stays");
                if let Some(found) = wanted(notice) {
                    return found;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.expect("the relay does not stay silent")
    }
}
