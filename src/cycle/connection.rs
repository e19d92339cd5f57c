//! The connection to one remote signer: made once, kept in the store, and what it was asked for.

use std::{future::pending, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use grasp_mirror_commands::clean;
use nostr::{
    nips::nip46::NostrConnectMethod,
    prelude::{Event, Keys, PublicKey, RelayUrl, Timestamp},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    model::coordinate::npub,
    plan::{permit::Permitted, signing::Stands},
    relay::{
        Relays,
        remote::{Asked, Remote, RemoteError, Reply},
    },
    store::{StoreError, records::Records},
};

/// What a signer is asked to allow: announcements, and states said again.
pub(super) const PERMISSIONS: &str = "sign_event:30617,sign_event:30618";

/// How long a signer may take to show that it is there.
const PRESENCE: Duration = Duration::from_secs(5);

/// How long it may take to be told whom a signer signs for: its relays, then two answers.
const INTRODUCTION: Duration = Duration::from_secs(20);

/// How long one that is there may take to answer by itself, before a person counts as being asked.
const BY_ITSELF: Duration = Duration::from_secs(2);

/// How long a request waits for its answer before it is sent again; doubled each time. Relays keep nothing for signers
/// that are away.
const AGAIN: Duration = Duration::from_secs(60);

/// At most.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// How long it takes until a request is sent again that did not get away; doubled each time.
const NOT_SENT: Duration = Duration::from_secs(5);

/// A signer that refused to connect is asked again after this time.
const REFUSED: Duration = Duration::from_secs(3_600);

/// Where a signer is reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) signer: PublicKey,
    pub(super) relays: Vec<RelayUrl>,
    /// To be said once, when connecting.
    pub(super) secret: Option<SecretString>,
}

/// What is remembered of a signer that was connected to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Met {
    /// The signer's own key.
    pub(super) signer: PublicKey,
    /// The key it signs with.
    pub(super) user: PublicKey,
    /// Its relays, where it was paired by the bot (`nostrconnect://`) and stands in no configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) paired_at: Vec<RelayUrl>,
}

/// The record of the signers that were paired.
pub(super) const PAIRED: &str = "signer/paired";

/// The name of the record of a signer that was connected to.
pub(super) fn met_name(signer: &PublicKey) -> String {
    format!("signer/met/{}", signer.to_hex())
}

/// Whether a signer can be asked, and for whom it signs.
#[derive(Clone, Debug)]
pub(super) enum Connected {
    /// It is being connected to.
    Connecting,
    /// It signs for this key.
    For(PublicKey),
    /// Not yet, and why.
    Not(Stands),
}

/// How far a request is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Stands(Stands),
    /// Everything is signed, in order.
    Signed(Vec<Event>),
}

/// A task that ends with it.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One remote signer.
#[derive(Debug)]
pub(super) struct Connection {
    remote: Arc<Remote>,
    pub(super) state: watch::Receiver<Connected>,
    says: Arc<watch::Sender<Connected>>,
    /// Wakes what connects.
    again: Arc<Notify>,
    _connecting: Task,
}

/// What a request is made of.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) events: Vec<Permitted>,
    pub(super) progress: watch::Receiver<Progress>,
    _task: Task,
}

impl Job {
    /// Whether it is not known that the request has arrived. One that has is not shown to a person twice.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Stands(Stands::Asked | Stands::Unreachable(_)))
    }
}

impl Connection {
    /// Connects in the background, for as long as it takes.
    pub(super) fn open(relays: Arc<Relays>, address: Address, client: Keys, records: Records) -> Self {
        let remote = Remote::listen(relays, address.relays.clone(), client, address.signer);
        let remote = Arc::new(remote);
        let (says, state) = watch::channel(Connected::Connecting);
        let (says, again) = (Arc::new(says), Arc::new(Notify::new()));
        let connecting = tokio::spawn({
            let (remote, says, again) = (Arc::clone(&remote), Arc::clone(&says), Arc::clone(&again));
            async move {
                let mut wait = AGAIN;
                loop {
                    let problem = match connect(&remote, &address, &records, &says).await {
                        Ok(user) => {
                            says.send_replace(Connected::For(user));
                            return;
                        }
                        Err(problem) => problem,
                    };
                    tell(&address.signer, &problem);
                    if matches!(problem, Stands::Refused(..)) {
                        wait = REFUSED;
                    }
                    says.send_replace(Connected::Not(problem));
                    wait = tokio::select! {
                        () = sleep(wait) => (wait * 2).min(REFUSED),
                        () = again.notified() => AGAIN,
                    };
                }
            }
        });
        Self { remote, state, says, again, _connecting: Task(connecting.abort_handle()) }
    }

    /// Tries at once to connect, if that was in vain.
    pub(super) fn connect_anew(&self) {
        let was_in_vain = |state: &mut Connected| {
            let in_vain = matches!(state, Connected::Not(_));
            if in_vain {
                *state = Connected::Connecting;
            }
            in_vain
        };
        if self.says.send_if_modified(was_in_vain) {
            self.again.notify_one();
        }
    }

    /// The signer's own key.
    pub(super) fn signer(&self) -> &PublicKey {
        self.remote.signer()
    }

    /// Whose signatures it makes, once that is known.
    pub(super) fn user(&self) -> Option<PublicKey> {
        match *self.state.borrow() {
            Connected::For(user) => Some(user),
            _ => None,
        }
    }

    /// Whom it signs for, once it has shown that it is there; or what is in the way.
    pub(super) async fn examine(&self) -> Result<PublicKey, Stands> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, Connected::Connecting));
        let user = match timeout(INTRODUCTION, known).await {
            Ok(Ok(state)) => match &*state {
                Connected::For(user) => *user,
                Connected::Not(stands) => return Err(stands.clone()),
                Connected::Connecting => return Err(silent()),
            },
            _ => return Err(silent()),
        };
        match answer(&self.remote, NostrConnectMethod::Ping, Vec::new(), &|_| {}).await {
            // Whatever it says, it is there.
            Ok(_) | Err(Stands::Refused(..)) => Ok(user),
            Err(stands) => Err(stands),
        }
    }

    /// Asks for the signatures of `events`, until they are there; then calls `done`.
    pub(super) fn ask(&self, events: Vec<Permitted>, done: impl FnOnce() + Send + 'static) -> Job {
        let (says, progress) = watch::channel(Progress::Stands(Stands::Asked));
        let (remote, wanted) = (Arc::clone(&self.remote), events.clone());
        let task = tokio::spawn(async move {
            let mut signed = Vec::new();
            for event in &wanted {
                match signature(&remote, event, &says).await {
                    Ok(event) => signed.push(event),
                    Err(problem) => {
                        says.send_replace(Progress::Stands(problem));
                        return;
                    }
                }
            }
            says.send_replace(Progress::Signed(signed));
            done();
        });
        Job { events, progress, _task: Task(task.abort_handle()) }
    }
}

/// Says what the operator should know; never an address that may hold a secret.
fn tell(signer: &PublicKey, problem: &Stands) {
    let signer = npub(signer);
    match problem {
        Stands::Refused(words, _) => tracing::error!(
            signer,
            words,
            "a remote signer refuses to connect; make a new bunker:// address for MIRROR_SIGNER, or pair again"
        ),
        Stands::Unreachable(reason) => {
            tracing::warn!(signer, reason, "a remote signer is unreachable; I keep trying")
        }
        Stands::Asked | Stands::WaitingForYou | Stands::WaitingForYouAt(_) | Stands::TooLarge(..) => {
            tracing::warn!(signer, "a remote signer waits for a person to approve the connection");
        }
    }
}

/// Connects unless that was done before, and asks whom the signer signs for.
async fn connect(
    remote: &Remote,
    address: &Address,
    records: &Records,
    says: &watch::Sender<Connected>,
) -> Result<PublicKey, Stands> {
    let name = met_name(&address.signer);
    let ours = |error: StoreError| Stands::Unreachable(error.to_string());
    if let Some(met) = records.read::<Met>(&name).await.map_err(ours)? {
        return Ok(met.user);
    }
    let secret = address.secret.as_ref().map(|secret| secret.expose_secret().to_owned()).unwrap_or_default();
    let params = vec![address.signer.to_hex(), secret, PERMISSIONS.to_owned()];
    let waits = |url: String| {
        says.send_replace(Connected::Not(Stands::WaitingForYouAt(url)));
    };
    answer(remote, NostrConnectMethod::Connect, params, &waits).await?;
    let user = user_of(remote).await?;
    let met = Met { signer: address.signer, user, paired_at: Vec::new() };
    records.write(&name, &met).await.map_err(ours)?;
    Ok(user)
}

/// The key that the signer signs with.
pub(super) async fn user_of(remote: &Remote) -> Result<PublicKey, Stands> {
    let user = answer(remote, NostrConnectMethod::GetPublicKey, Vec::new(), &|_| {}).await?;
    PublicKey::from_hex(&user)
        .map_err(|_| Stands::Unreachable("it does not say whom it signs for".to_owned()))
}

/// The answer to a request that needs no long thought.
async fn answer(
    remote: &Remote,
    method: NostrConnectMethod,
    params: Vec<String>,
    waits: &(dyn Fn(String) + Sync),
) -> Result<String, Stands> {
    let id = Keys::generate().public_key().to_hex();
    let mut asked = remote.ask(&id, method, params).await.map_err(unreachable)?;
    let mut until = Instant::now() + PRESENCE;
    loop {
        match timeout_at(until, asked.next()).await {
            Ok(Reply::Result(result)) => return Ok(result),
            Ok(Reply::Error(words)) => return Err(refused(&words)),
            Ok(Reply::AuthUrl(url)) => {
                waits(url);
                until = Instant::now() + AGAIN_MAX;
            }
            Err(_) => return Err(silent()),
        }
    }
}

/// The signature under one event; an error when the signer says no.
async fn signature(
    remote: &Remote,
    event: &Permitted,
    says: &watch::Sender<Progress>,
) -> Result<Event, Stands> {
    let stands = |stands: Stands| {
        says.send_replace(Progress::Stands(stands));
    };
    // The same in every try and after every start: then an answer counts however late it comes.
    let id: String = event.id().to_hex().chars().take(32).collect();
    let pauses = ExponentialBuilder::default().with_min_delay(NOT_SENT).with_max_delay(AGAIN_MAX);
    let mut pauses = pauses.without_max_times().build();
    let mut wait = AGAIN;
    loop {
        let params = vec![event.event().as_json()];
        match remote.ask(&id, NostrConnectMethod::SignEvent, params).await {
            Err(RemoteError::TooLarge(words)) => {
                return Err(Stands::TooLarge(format!("its relay says: {words}"), Timestamp::now().as_secs()));
            }
            Err(error) => {
                stands(unreachable(error));
                sleep(pauses.next().unwrap_or(AGAIN_MAX)).await;
            }
            Ok(asked) => {
                let until = Instant::now() + wait;
                if let Some(json) = until_answered(remote, asked, until, &stands).await? {
                    let signed = Event::from_json(json).ok().filter(|signed| event.is_signed_as(signed));
                    let other = "it signed something else than it was asked for";
                    return signed.ok_or_else(|| refused(other));
                }
                wait = (wait * 2).min(AGAIN_MAX);
            }
        }
    }
}

/// Waits for the answer until `until`, and says meanwhile whether the signer is there: one that answers a `ping` waits
/// for a person.
async fn until_answered(
    remote: &Remote,
    mut asked: Asked,
    until: Instant,
    stands: &(dyn Fn(Stands) + Sync),
) -> Result<Option<String>, Stands> {
    let ping = Keys::generate().public_key().to_hex();
    // The request is on its way all the same when this one is not.
    let pinged = remote.ask(&ping, NostrConnectMethod::Ping, Vec::new()).await;
    let mut pinged = pinged.map_err(|error| stands(unreachable(error))).ok();
    let mut is_there = false;
    let mut decide_at = Some(Instant::now() + PRESENCE);
    loop {
        let reply = tokio::select! {
            biased;
            reply = asked.next() => reply,
            // Whatever it says, it is there.
            _ = next_of(&mut pinged), if !is_there => {
                is_there = true;
                decide_at = Some(Instant::now() + BY_ITSELF);
                continue;
            }
            () = sleep_until(decide_at.unwrap_or(until)), if decide_at.is_some() => {
                decide_at = None;
                stands(if is_there { Stands::WaitingForYou } else { silent() });
                continue;
            }
            () = sleep_until(until) => return Ok(None),
        };
        match reply {
            Reply::Result(json) => return Ok(Some(json)),
            Reply::Error(words) => return Err(refused(&words)),
            Reply::AuthUrl(url) => {
                (is_there, decide_at) = (true, None);
                stands(Stands::WaitingForYouAt(url));
            }
        }
    }
}

/// What is said to a request that was sent.
async fn next_of(asked: &mut Option<Asked>) -> Reply {
    match asked {
        Some(asked) => asked.next().await,
        None => pending().await,
    }
}

fn refused(words: &str) -> Stands {
    Stands::Refused(clean(words, 200), Timestamp::now().as_secs())
}

fn silent() -> Stands {
    Stands::Unreachable(format!("it was silent for {} s", PRESENCE.as_secs()))
}

fn unreachable(error: impl ToString) -> Stands {
    Stands::Unreachable(error.to_string())
}
