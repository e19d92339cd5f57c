//! What the bot tells by itself to those who may command it, when something has changed.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{PublicKey, RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};

use super::Bot;
use crate::{
    cycle::{CycleDone, CycleError},
    plan::journal::Letter,
    relay::direct::{self, Protocol},
    report::alerts::{Alert, Digest, Snapshot, alerts_between},
    store::{StoreError, records::Records},
};

/// The record of what was told, and of what is to be.
const RECORD: &str = "alerts";

/// What is remembered of alerts between runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Alerts {
    /// How things stood after the last cycle.
    #[serde(default)]
    snapshot: Option<Snapshot>,
    #[serde(default)]
    digest: Digest,
    /// What was last told of each remote signer.
    #[serde(default)]
    signers: BTreeMap<PublicKey, String>,
    /// Inbox relays that did not deliver when they were last tried.
    #[serde(default)]
    silent: BTreeSet<RelayUrl>,
    /// Digests that are not delivered yet.
    #[serde(default)]
    letters: Vec<Letter>,
    /// Whether the record says something else. It is as long as there are repositories, and most cycles change nothing.
    #[serde(skip)]
    is_new: bool,
}

impl Alerts {
    pub(super) async fn load(records: &Records) -> Result<Self, StoreError> {
        Ok(records.read(RECORD).await?.unwrap_or_default())
    }

    /// Notes what has changed since the cycle before.
    pub(super) fn compare(&mut self, done: &CycleDone) {
        let snapshot = Snapshot::of(&done.report, &done.outcomes, done.left_alone());
        if self.snapshot.as_ref() == Some(&snapshot) {
            return;
        }
        let before = self.snapshot.take().unwrap_or_default();
        self.digest.add(alerts_between(&before, &snapshot));
        self.snapshot = Some(snapshot);
        self.is_new = true;
    }

    pub(super) fn note_silent(&mut self, silent: &BTreeSet<RelayUrl>) {
        let new = silent.difference(&self.silent).cloned();
        self.digest.add(new.map(|relay| Alert::SilentInbox { relay }));
        self.silent.clone_from(silent);
        self.is_new = true;
    }

    pub(super) fn note_signer(&mut self, text: String) {
        self.digest.add([Alert::Signer { text }]);
        self.is_new = true;
    }

    /// Notes what has changed about remote signers.
    pub(super) fn compare_signers(&mut self, now: BTreeMap<PublicKey, String>) {
        if now == self.signers {
            return;
        }
        let new = now.iter().filter(|(signer, text)| self.signers.get(*signer) != Some(*text));
        self.digest.add(new.map(|(_, text)| Alert::Signer { text: text.clone() }));
        self.signers = now;
        self.is_new = true;
    }

    pub(super) fn note_failed(&mut self, command: String, reason: String) {
        self.digest.add([Alert::CommandFailed { command, reason }]);
        self.is_new = true;
    }
}

impl Bot {
    /// Tells what is due, and remembers it.
    pub(super) async fn send_alerts(&mut self) -> Result<(), CycleError> {
        let now = Timestamp::now();
        let allowed: Vec<_> = self.allowed.borrow().iter().copied().collect();
        if !self.own.config.bot.alerts || allowed.is_empty() {
            // Told to nobody.
            self.alerts.is_new |= self.alerts.digest.due(now.as_secs()).is_some();
        } else if let Some(text) = self.alerts.digest.due(now.as_secs()) {
            let mut letters = Vec::new();
            for to in allowed {
                match direct::close(&self.own.keys, to, None, Protocol::Wrapped, &text, now) {
                    Ok(closed) => {
                        let (event, written_at) = (closed.to_them, now.as_secs());
                        letters.push(Letter { event, to, written_at, only_on: None });
                    }
                    Err(error) => tracing::error!(%error, "an alert could not be encrypted"),
                }
            }
            self.alerts.letters.extend(letters.iter().cloned());
            // Written down before it is sent, so that nobody is told twice.
            self.write_alerts().await?;
            self.send_digests(letters);
            return Ok(());
        }
        if self.alerts.is_new {
            self.write_alerts().await?;
        }
        Ok(())
    }

    async fn write_alerts(&mut self) -> Result<(), CycleError> {
        self.records.write(RECORD, &self.alerts).await?;
        self.alerts.is_new = false;
        Ok(())
    }

    /// Goes on with digests that were on their way when the program last stopped.
    pub(super) fn resume_alerts(&mut self) {
        self.send_digests(self.alerts.letters.clone());
    }

    fn send_digests(&mut self, letters: Vec<Letter>) {
        // Who names no inbox reads where the bot can be written to.
        let fallback = self.own.config.bot.inbox_relays.first().cloned();
        for letter in letters {
            self.deliver(None, fallback.clone(), letter);
        }
    }

    pub(super) async fn digest_sent(&mut self, letter: &Letter) -> Result<(), CycleError> {
        self.alerts.letters.retain(|one| one != letter);
        self.write_alerts().await
    }
}
