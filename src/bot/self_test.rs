//! Does what is sent to the bot reach it? A message to itself through each inbox relay tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use nostr::prelude::{EventId, RelayUrl, Timestamp};
use tokio::time::{Instant, sleep_until, timeout};

use super::Bot;
use crate::relay::direct;

/// How long a test message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Test messages on their way.
#[derive(Default)]
pub(super) struct SelfTest {
    /// Those that have not come back.
    waiting: BTreeMap<RelayUrl, EventId>,
    until: Option<Instant>,
}

impl SelfTest {
    /// Waits until the messages have had their time; for ever when there are none.
    pub(super) async fn over(until: Option<Instant>) {
        match until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The message `id` came back. Relays may pass it on to each other: it does not matter from which.
    pub(super) fn came_back(&mut self, id: EventId) {
        self.waiting.retain(|_, waiting| *waiting != id);
    }
}

impl Bot {
    /// Sends a message through each inbox relay.
    pub(super) fn begin_self_test(&mut self) {
        self.self_test = SelfTest { waiting: BTreeMap::new(), until: Some(Instant::now() + PATIENCE) };
        for relay in self.own.config.bot.inbox_relays.clone() {
            // Each message names its relay, so that no two are the same.
            let text = format!("Does {relay} deliver?");
            match direct::to_self(&self.own.keys, &text, Timestamp::now()) {
                Ok((id, wrap)) => {
                    self.self_test.waiting.insert(relay.clone(), id);
                    let relays = Arc::clone(&self.own.relays);
                    self.tasks.spawn(async move {
                        let sent = timeout(PATIENCE, relays.send(&relay, &wrap)).await;
                        tracing::debug!(%relay, ?sent, "a test message");
                    });
                }
                Err(error) => tracing::error!(%error, "no test message can be written"),
            }
        }
    }

    /// Reports the relays whose message has not come back.
    pub(super) fn end_self_test(&mut self) {
        let silent: BTreeSet<RelayUrl> = std::mem::take(&mut self.self_test).waiting.into_keys().collect();
        for relay in &silent {
            tracing::warn!(
                %relay,
                "this inbox relay does not deliver messages to the bot; name another one in bot.inbox_relays"
            );
        }
        self.alerts.note_silent(&silent);
        self.daemon.silent.send_if_modified(|now| std::mem::replace(now, silent.clone()) != silent);
    }
}
