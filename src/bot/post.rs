//! What leaves: answers and alerts, each tried until one of the relays where it can be read has taken it.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{FutureExt, future::join_all};
use nostr::{
    nips::{nip17, nip65},
    prelude::{Event, EventId, Filter, Kind, PublicKey, RelayMetadata, RelayUrl, Timestamp},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{error::Elapsed, sleep, timeout},
};

use crate::{
    cycle::read_into,
    plan::{converge::Answer, journal::Letter},
    relay::{RelayError, Relays},
    store::Store,
};

/// Letters tried at the same time.
const AT_ONCE: usize = 64;

/// Relays of one person tried.
const RELAYS_MAX: usize = 8;

/// How long a relay may take to take a letter.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long is asked around where somebody reads messages.
const ASK_AROUND: Duration = Duration::from_millis(1_500);

/// The first wait before another try; doubled each time.
const WAIT: Duration = Duration::from_secs(5);

/// The longest one.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// A letter that is no longer on its way.
#[derive(Debug)]
pub(super) struct Sent {
    /// The question it answers; `None` for an alert.
    pub(super) question: Option<EventId>,
    /// Which letter.
    pub(super) letter: Letter,
}

/// Where to ask and send.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) relays: Arc<Relays>,
    pub(super) store: Store,
    /// Where relay lists of people are looked for.
    pub(super) look_up: Vec<RelayUrl>,
    /// Whether an answer goes to where the question came from when the person names no inbox.
    pub(super) answer_where_asked: bool,
    pub(super) slots: Arc<Semaphore>,
    pub(super) sent: mpsc::Sender<Sent>,
}

impl Post {
    /// How many letters are tried at the same time.
    pub(super) fn slots() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(AT_ONCE))
    }

    /// Delivers `letter`, an answer to `question` that came from `asked_on`, or gives it up after a day; then says
    /// so.
    pub(super) async fn deliver(self, question: Option<EventId>, asked_on: Option<RelayUrl>, letter: Letter) {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(WAIT)
            .with_max_delay(WAIT_MAX)
            .without_max_times()
            .build();
        let mut again = false;
        loop {
            let Ok(slot) = self.slots.acquire().await else { return };
            let tried = self.try_once(&letter, asked_on.as_ref(), again).await;
            drop(slot);
            let Err(reason) = tried else { break };
            if letter.is_too_late(Timestamp::now()) {
                tracing::warn!(to = %letter.to, letter = %letter.event.id, reason, "a message could not be delivered for a day; given up");
                break;
            }
            let wait = waits.next().unwrap_or(WAIT_MAX);
            if letter.only_on.is_none() {
                tracing::warn!(to = %letter.to, letter = %letter.event.id, reason, wait_secs = wait.as_secs(), "a message is not delivered yet");
            }
            again = true;
            sleep(wait).await;
        }
        // People name relays that nobody else needs.
        self.relays.close_idle().await;
        // Nobody listens any more when the program stops; then it is tried again after the next start.
        let _ = self.sent.send(Sent { question, letter }).await;
    }

    /// `again` when it was tried before: then people may have moved.
    async fn try_once(
        &self,
        letter: &Letter,
        asked_on: Option<&RelayUrl>,
        again: bool,
    ) -> Result<(), String> {
        if let Some(relay) = &letter.only_on {
            return match timeout(PATIENCE, self.relays.send(relay, &letter.event)).await {
                // It will not take a copy later either, and others may have.
                Ok(Ok(Answer::Refused(reason))) if !reason.starts_with("auth-required:") => {
                    tracing::debug!(%relay, reason, "no copy of an answer there");
                    Ok(())
                }
                sent => outcome(relay, sent),
            };
        }
        if letter.event.kind == Kind::EncryptedDirectMessage {
            let here = asked_on.cloned().into_iter().collect::<Vec<_>>();
            let elsewhere = async {
                let mut relays = self.read_relays(letter.to, asked_on, again).await;
                relays.retain(|relay| !here.contains(relay));
                self.send(letter, &relays).await
            };
            let (here, elsewhere) = tokio::join!(self.send(letter, &here), elsewhere);
            return here.or_else(|problem| elsewhere.map_err(|more| format!("{problem}; {more}")));
        }
        let mut relays = self.inbox_of(letter.to, asked_on, again).await;
        if relays.is_empty() && self.answer_where_asked {
            relays.extend(asked_on.cloned());
        }
        if relays.is_empty() {
            return Err("nobody says where this person reads messages (kind 10050)".to_owned());
        }
        self.send(letter, &relays).await
    }

    /// Sends to all of `relays`; it is enough when one takes it.
    async fn send(&self, letter: &Letter, relays: &[RelayUrl]) -> Result<(), String> {
        let tries = relays.iter().map(|relay| {
            timeout(PATIENCE, self.relays.send(relay, &letter.event)).map(move |sent| outcome(relay, sent))
        });
        let tried = join_all(tries).await;
        if tried.iter().any(Result::is_ok) {
            return Ok(());
        }
        let problems: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
        Err(if problems.is_empty() { "no relay to send to".to_owned() } else { problems.join("; ") })
    }

    /// Where somebody reads private messages (NIP-17, kind 10050).
    async fn inbox_of(&self, person: PublicKey, asked_on: Option<&RelayUrl>, again: bool) -> Vec<RelayUrl> {
        let list = self.list(Kind::InboxRelays, person, asked_on, again).await;
        list.iter().flat_map(nip17::extract_relay_list).take(RELAYS_MAX).collect()
    }

    /// Where somebody reads what is said to them (NIP-65).
    async fn read_relays(
        &self,
        person: PublicKey,
        asked_on: Option<&RelayUrl>,
        again: bool,
    ) -> Vec<RelayUrl> {
        let list = self.list(Kind::RelayList, person, asked_on, again).await;
        list.iter()
            .flat_map(nip65::extract_relay_list)
            .filter(|(_, metadata)| *metadata != Some(RelayMetadata::Write))
            .map(|(relay, _)| relay)
            .take(RELAYS_MAX)
            .collect()
    }

    /// The newest list of `author`, asking around when there is none, or when it was of no use.
    async fn list(
        &self,
        kind: Kind,
        author: PublicKey,
        asked_on: Option<&RelayUrl>,
        again: bool,
    ) -> Option<Event> {
        let filter = Filter::new().kind(kind).author(author);
        let stored = self.stored(filter.clone()).await;
        if stored.is_some() && !again {
            return stored;
        }
        let ask = asked_on.into_iter().chain(&self.look_up).map(|relay| {
            timeout(ASK_AROUND, read_into(&self.store, &self.relays, relay, vec![filter.clone()]))
        });
        join_all(ask).await;
        self.stored(filter).await
    }

    async fn stored(&self, filter: Filter) -> Option<Event> {
        let found = self.store.query(filter.limit(1)).await;
        found
            .inspect_err(|error| tracing::warn!(%error, "a relay list cannot be read"))
            .ok()?
            .into_iter()
            .next()
    }
}

/// Whether `relay` took it, or why not.
fn outcome(relay: &RelayUrl, sent: Result<Result<Answer, RelayError>, Elapsed>) -> Result<(), String> {
    match sent {
        Ok(Ok(Answer::Taken | Answer::Purgatory)) => Ok(()),
        Ok(Ok(Answer::Refused(reason))) => Err(format!("{relay}: {reason}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{relay}: no answer within {} s", PATIENCE.as_secs())),
    }
}
