//! A remote signer (NIP-46), asked over relays: `bunker://` and `nostrconnect://`.
//!
//! The `nostr-connect` crate has a client, too. This one asks for permissions, says a one-time secret once, keeps the id of
//! a request so that an answer counts however late it comes, believes the signer alone, and reaches relays through the
//! same guard as everything else.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use grasp_mirror_commands::clean;
use nostr::{
    nips::nip46::{NostrConnectEventBuilder, NostrConnectMessage, NostrConnectMethod},
    prelude::{Event, Filter, FinalizeEvent, Keys, Kind, Nip44, PublicKey, RelayUrl, Timestamp},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    RelayError, Relays,
    follow::{Ears, Heard, Interest},
};
use crate::plan::converge::Answer;

/// How long its relays may take to be listened to, before the signer counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(8);

/// How much older than a connection an answer may be dated, in seconds.
const OVERLAP_SECS: u64 = 60;

/// Messages on their way. Strangers may fill it; what does not fit is lost, and asked for again.
const QUEUE: usize = 64;

/// The longest message that is decrypted, in bytes: what NIP-44 can hold, in base64.
const CONTENT_MAX: usize = 90 << 10;

/// The longest words of a signer's that are kept, in characters.
const WORDS_MAX: usize = 200;

/// Why a signer could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// None of its relays is listened to.
    #[error("none of its relays can be reached ({0})")]
    NoRelay(String),
    /// None of them took the request.
    #[error("{0}")]
    NotSent(String),
    /// None of them took it, and one says that it is too large.
    #[error("it is too large for its relays: {0}")]
    TooLarge(String),
    /// It is longer than NIP-44 can encrypt, perhaps.
    #[error("the request cannot be encrypted: {0}")]
    Encrypt(String),
}

/// What a signer says.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Result(String),
    /// A person is to open this address, and then it goes on.
    AuthUrl(String),
    /// No, in its words.
    Error(String),
}

/// A result may be a secret.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Result(_) => "Result",
            Self::AuthUrl(_) => "AuthUrl",
            Self::Error(_) => "Error",
        })
    }
}

type Waiting = Arc<Mutex<HashMap<String, mpsc::Sender<Reply>>>>;

/// Relays where messages to a client key are heard, for as long as this lives.
struct Line {
    heard: mpsc::Receiver<(PublicKey, NostrConnectMessage)>,
    live: watch::Receiver<BTreeSet<RelayUrl>>,
    /// Ends with it.
    tasks: JoinSet<()>,
}

impl Line {
    fn open(relays: &Arc<Relays>, at: &[RelayUrl], client: &Keys) -> Self {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let (saying, heard) = mpsc::channel(QUEUE);
        let (living, live) = watch::channel(BTreeSet::new());
        let mut tasks = JoinSet::new();
        for relay in at {
            let (relays, relay, key) = (Arc::clone(relays), relay.clone(), client.public_key());
            let ears = Ears { live: sender.clone(), stored: sender.clone(), known: Arc::default() };
            tasks.spawn(async move {
                let interest = || {
                    let since = Timestamp::now().as_secs().saturating_sub(OVERLAP_SECS);
                    let filter = Filter::new().kind(Kind::NostrConnect).pubkey(key);
                    Interest { parts: vec![vec![filter.since(Timestamp::from_secs(since))]] }
                };
                relays.follow(&relay, interest, ears).await;
            });
        }
        let client = client.clone();
        tasks.spawn(async move {
            while let Some(heard) = receiver.recv().await {
                match heard {
                    Heard::Event { event, .. } => {
                        if let Some(message) = read(&event, &client) {
                            let _ = saying.try_send((event.pubkey, message));
                        }
                    }
                    Heard::Reading(_) => {}
                    Heard::CaughtUp(relay) => {
                        living.send_if_modified(|live| live.insert(relay));
                    }
                    Heard::Failed(relay) => {
                        living.send_if_modified(|live| live.remove(&relay));
                    }
                }
            }
        });
        Self { heard, live, tasks }
    }
}

/// What an event says to `client`; `None` when it is nothing for it.
fn read(event: &Event, client: &Keys) -> Option<NostrConnectMessage> {
    if event.kind != Kind::NostrConnect || event.content.len() > CONTENT_MAX {
        return None;
    }
    let json = client.nip44_decrypt(&event.pubkey, &event.content).ok()?;
    NostrConnectMessage::from_json(json).ok()
}

/// One signer, and where it is reached.
pub struct Remote {
    relays: Arc<Relays>,
    at: Vec<RelayUrl>,
    client: Keys,
    signer: PublicKey,
    waiting: Waiting,
    live: watch::Receiver<BTreeSet<RelayUrl>>,
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("signer", &self.signer).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Remote {
    /// Listens for what `signer` says to `client` on the relays `at`.
    #[must_use]
    pub fn listen(relays: Arc<Relays>, at: Vec<RelayUrl>, client: Keys, signer: PublicKey) -> Self {
        let Line { mut heard, live, mut tasks } = Line::open(&relays, &at, &client);
        let waiting = Waiting::default();
        let asked = Arc::clone(&waiting);
        tasks.spawn(async move {
            while let Some((author, message)) = heard.recv().await {
                // Anybody can write to the client; what others say about a request is not heard.
                if author != signer {
                    continue;
                }
                if let NostrConnectMessage::Response { id, result, error } = message
                    && let Some(asking) = asked.lock().unwrap_or_else(PoisonError::into_inner).get(&id)
                {
                    let _ = asking.try_send(reply(result, error));
                }
            }
        });
        Self { relays, at, client, signer, waiting, live, _tasks: tasks }
    }

    /// The signer's key, which need not be the one it signs with.
    #[must_use]
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// Sends a request. The same `id` again is the same request, for which an earlier answer counts, too.
    ///
    /// # Errors
    ///
    /// [`RemoteError`] when it did not get away. Whether the signer is there shows only when it answers.
    pub async fn ask(
        &self,
        id: &str,
        method: NostrConnectMethod,
        params: Vec<String>,
    ) -> Result<Asked, RemoteError> {
        wait_for_one(&self.live, &self.at).await?;
        let message = NostrConnectMessage::Request { id: id.to_owned(), method, params };
        let event = NostrConnectEventBuilder::new(self.signer, message).finalize(&self.client);
        let event = event.map_err(|error| RemoteError::Encrypt(error.to_string()))?;
        let (sender, replies) = mpsc::channel(QUEUE);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), sender);
        let asked = Asked { id: id.to_owned(), replies, waiting: Arc::clone(&self.waiting) };
        let sent = join_all(self.at.iter().map(|relay| self.relays.send(relay, &event))).await;
        let refused = |sent: &Result<Answer, RelayError>| match sent {
            Ok(Answer::Refused(reason)) => Some(reason.clone()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let reasons: Vec<String> = sent.iter().filter_map(refused).collect();
        if reasons.len() == sent.len() {
            if let Some(reason) = reasons.iter().find(|reason| speaks_of_size(reason)) {
                return Err(RemoteError::TooLarge(clean(reason, WORDS_MAX)));
            }
            let reason = reasons.first().map_or("it names no relay", String::as_str);
            return Err(RemoteError::NotSent(clean(reason, WORDS_MAX)));
        }
        Ok(asked)
    }
}

/// Whether a relay refuses an event for its size. No prefix of NIP-01 says so, so words are all there is.
fn speaks_of_size(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["too large", "too big", "too long", "event size", "message size", "exceeds", "maximum size"]
        .iter()
        .any(|words| reason.contains(words))
}

fn reply(result: Option<String>, error: Option<String>) -> Reply {
    let error = error.filter(|error| !error.is_empty());
    match (result, error) {
        (Some(result), Some(url)) if result == "auth_url" => Reply::AuthUrl(url),
        (_, Some(error)) => Reply::Error(clean(&error, WORDS_MAX)),
        (Some(result), None) => Reply::Result(result),
        (None, None) => Reply::Error("it gave no reason".to_owned()),
    }
}

/// A request under way; it is given up when this is dropped.
#[derive(Debug)]
pub struct Asked {
    id: String,
    replies: mpsc::Receiver<Reply>,
    waiting: Waiting,
}

impl Asked {
    /// What the signer says next; waits for ever if need be.
    pub async fn next(&mut self) -> Reply {
        match self.replies.recv().await {
            Some(reply) => reply,
            // Somebody else asks with the same id: there the answer comes.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.replies.close();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have asked again with the same id.
        if waiting.get(&self.id).is_some_and(mpsc::Sender::is_closed) {
            waiting.remove(&self.id);
        }
    }
}

/// Where a signer is met that is shown a `nostrconnect://` address.
pub struct Meeting(Line);

impl Meeting {
    /// Listens; the address may be shown when this is done.
    ///
    /// # Errors
    ///
    /// [`RemoteError::NoRelay`].
    pub async fn open(relays: &Arc<Relays>, at: &[RelayUrl], client: &Keys) -> Result<Self, RemoteError> {
        let line = Line::open(relays, at, client);
        wait_for_one(&line.live, at).await?;
        Ok(Self(line))
    }

    /// Waits until a signer answers with the address's `secret`, and says who it is.
    pub async fn met(&mut self, secret: &str) -> PublicKey {
        while let Some((author, message)) = self.0.heard.recv().await {
            if let NostrConnectMessage::Response { result: Some(result), error, .. } = message
                && result == secret
                && error.is_none_or(|error| error.is_empty())
            {
                return author;
            }
        }
        // The tasks that hear never end before the line does.
        std::future::pending().await
    }
}

/// Waits until one of the relays `at` is listened to.
async fn wait_for_one(
    live: &watch::Receiver<BTreeSet<RelayUrl>>,
    at: &[RelayUrl],
) -> Result<(), RemoteError> {
    let mut live = live.clone();
    let connected = timeout(PATIENCE, live.wait_for(|live| !live.is_empty())).await;
    if connected.is_ok_and(|live| live.is_ok()) {
        return Ok(());
    }
    let relays: Vec<&str> = at.iter().map(RelayUrl::as_str_without_trailing_slash).collect();
    Err(RemoteError::NoRelay(clean(&relays.join(", "), WORDS_MAX)))
}
