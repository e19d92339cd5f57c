//! Whose signatures the bot can get, beside its own: maintainers' keys in `MIRROR_SIGNER`, remote signers there
//! (`bunker://`), and remote signers that were paired.
//!
//! A key signs only what [`permit`](crate::plan::permit) let through. Remote signers are connected to when they are
//! needed first, by tasks of their own: a cycle waits for them for a moment only.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use nostr::{
    nips::nip46::NostrConnectUri,
    prelude::{Event, FinalizeEvent, Keys, Nip44, PublicKey, SecretKey, Timestamp},
};
use secrecy::ExposeSecret;
use tokio::{
    sync::{MutexGuard, mpsc},
    time::timeout,
};
use url::Url;

use super::{
    connection::{Address, Connected, Connection, Job, Met, PAIRED, Progress},
    live::Noticed,
    world::guard,
};
use crate::{
    config::Config,
    model::coordinate::{Coordinate, npub},
    plan::{
        catalog::Repository,
        permit::Permitted,
        signing::{IDLE, MESSAGE_MAX, Stands, maintains_any, too_large},
    },
    relay::{self, Learned, Relays},
    report::tables::SignerFinding,
    store::{Store, StoreError, records::Records},
    transfer::guard::Guard,
};

/// How long a cycle waits for signers that may answer by themselves.
const SOON: Duration = Duration::from_secs(7);

/// What a relay that could not be reached is left alone for.
const REST: Duration = Duration::from_secs(5);

/// Requests to remote signers under way.
const JOBS_MAX: usize = 50;

/// The record with the key that remote signers know the bot by, encrypted to the bot itself.
const CLIENT: &str = "signer/client";

/// What came of a wish for signatures.
#[derive(Debug)]
pub(super) enum Signature {
    /// Here they are, for each event in order.
    Made(Vec<Event>),
    /// They have to be waited for.
    Waits(Stands),
}

/// Whose signatures can be had; one for all runs of a program.
#[derive(Debug)]
pub struct Signers {
    keys: Keys,
    records: Records,
    guard: Guard,
    limits: relay::Limits,
    learned: Arc<Learned>,
    local: BTreeMap<PublicKey, Keys>,
    addresses: Vec<Address>,
    /// Made when they are needed first.
    remote: Mutex<BTreeMap<PublicKey, Arc<Connection>>>,
    jobs: Mutex<BTreeMap<Coordinate, Job>>,
    /// Who wants to know whose signatures have come.
    touched: Mutex<Option<mpsc::Sender<Noticed>>>,
    /// Keys of which it was said that they maintain nothing.
    idle: Mutex<BTreeSet<PublicKey>>,
    turn: tokio::sync::Mutex<()>,
}

impl Signers {
    /// The signers of the configuration, and those that were paired. Nothing is connected yet.
    #[must_use]
    pub fn new(config: &Config, keys: &Keys, store: &Store, learned: &Arc<Learned>) -> Self {
        let guard = guard(config);
        let (mut local, mut addresses) = (BTreeMap::new(), Vec::new());
        for (index, secret) in config.environment.signers.iter().enumerate() {
            let secret = secret.expose_secret();
            if let Ok(NostrConnectUri::Bunker { remote_signer_public_key: signer, relays, secret }) =
                NostrConnectUri::parse(secret)
            {
                guard.trust(relays.iter().filter_map(|relay| Url::parse(relay.as_str()).ok()));
                addresses.push(Address { signer, relays, secret: secret.map(Into::into) });
                continue;
            }
            let Ok(signer) = Keys::parse(secret) else { continue };
            if signer.public_key() == keys.public_key() {
                tracing::error!(
                    entry = index + 1,
                    "MIRROR_SIGNER holds the bot's own key, which needs no signer: an owner who lists the bot as a \
                     maintainer is enough"
                );
                continue;
            }
            local.insert(signer.public_key(), signer);
        }
        let limits = relay::Limits {
            connect_timeout: config.limits.connect_timeout,
            stall_timeout: config.limits.stall_timeout,
            events_per_minute: NonZeroU32::new(60).unwrap_or(NonZeroU32::MIN),
            max_events: 1_000,
            rest: Some(REST),
        };
        Self {
            keys: keys.clone(),
            records: Records::new(store.clone(), keys.clone()),
            guard,
            limits,
            learned: Arc::clone(learned),
            local,
            addresses,
            remote: Mutex::default(),
            jobs: Mutex::default(),
            touched: Mutex::default(),
            idle: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Sends the identifiers of repositories for which a signature has come.
    pub fn tell(&self, touched: mpsc::Sender<Noticed>) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Some(touched);
    }

    /// Begins to connect to the remote signers that are not connected to. Returns all of them.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) async fn connect(&self) -> Result<Vec<Arc<Connection>>, StoreError> {
        let paired: Vec<Met> = self.records.read(PAIRED).await?.unwrap_or_default();
        let paired = paired.into_iter().map(|met| {
            self.guard.trust(met.paired_at.iter().filter_map(|relay| Url::parse(relay.as_str()).ok()));
            Address { signer: met.signer, relays: met.paired_at, secret: None }
        });
        let addresses: Vec<Address> = self.addresses.iter().cloned().chain(paired).collect();
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            remote.entry(address.signer).or_insert_with(|| {
                let relays = self.relays(&client);
                Arc::new(Connection::open(relays, address, client.clone(), self.records.clone()))
            });
        }
        Ok(remote.values().cloned().collect())
    }

    /// Asks the remote signers at once, whenever they were to be asked again: somebody wants to see it done.
    pub(super) fn ask_anew(&self) {
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in remote.values() {
            connection.connect_anew();
        }
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, job| !job.is_unheard());
    }

    /// Connects to the remote signers that are not connected to, and waits a moment for them to say who they are.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        let connections = self.connect().await?;
        let known = connections.iter().map(|connection| async {
            let mut state = connection.state.clone();
            let _ = state.wait_for(|state| !matches!(state, Connected::Connecting)).await;
        });
        let _ = timeout(SOON, join_all(known)).await;
        Ok(())
    }

    /// Connections on which the bot is known by its client key.
    pub(super) fn relays(&self, client: &Keys) -> Arc<Relays> {
        let guard = Arc::new(self.guard.clone());
        let relays = Relays::that_keep_nothing(guard, client.clone(), self.limits);
        Arc::new(relays.beside(&self.learned))
    }

    /// The key that remote signers know the bot by; made when there is none.
    pub(super) async fn client(&self) -> Result<Keys, StoreError> {
        let known = self.read_sealed(CLIENT).await?;
        if let Some(secret) = known.and_then(|hex| SecretKey::from_hex(&hex).ok()) {
            return Ok(Keys::new(secret));
        }
        let client = Keys::generate();
        self.write_sealed(CLIENT, &client.secret_key().to_secret_hex()).await?;
        Ok(client)
    }

    /// A record that is encrypted to the bot itself; `None` when there is none that can be read.
    pub(super) async fn read_sealed(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sealed = self.records.read::<String>(name).await?;
        Ok(sealed.and_then(|sealed| self.keys.nip44_decrypt(&self.keys.public_key(), &sealed).ok()))
    }

    /// Writes one.
    pub(super) async fn write_sealed(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let sealed = self.keys.nip44_encrypt(&self.keys.public_key(), text);
        let failed = |reason: String| StoreError::Record { name: name.to_owned(), reason };
        self.records.write(name, &sealed.map_err(|error| failed(error.to_string()))?).await
    }

    /// Where signers are remembered.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Whose signatures can be had, as far as is known.
    pub(super) fn keys(&self) -> BTreeSet<PublicKey> {
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let users = remote.values().filter_map(|connection| connection.user());
        self.local.keys().copied().chain(users).collect()
    }

    /// Whether the key is here, so that nobody has to be asked.
    pub(super) fn has_key_of(&self, user: &PublicKey) -> bool {
        self.local.contains_key(user)
    }

    /// Remote signers that cannot be asked, and why.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<PublicKey, Stands> {
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = |connection: &Arc<Connection>| match &*connection.state.borrow() {
            Connected::Not(stands) => Some((*connection.signer(), stands.clone())),
            _ => None,
        };
        remote.values().filter_map(trouble).collect()
    }

    /// Cycles and what is followed between them take turns: each has to see what the other had signed.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The signatures of `by` under all of `events`, or what they wait for. A request that is under way goes on, and one
    /// for other events takes its place.
    pub(super) async fn sign(&self, by: &PublicKey, of: &Coordinate, events: &[Permitted]) -> Signature {
        if let Some(keys) = self.local.get(by) {
            let signed = events.iter().map(|event| event.event().clone().finalize(keys));
            return match signed.collect::<Result<Vec<_>, _>>() {
                Ok(signed) => Signature::Made(signed),
                Err(error) => Signature::Waits(Stands::Unreachable(error.to_string())),
            };
        }
        // All or none: nobody is asked for one of them when the other cannot be signed.
        if let Some(bytes) = events.iter().find_map(|event| too_large(event.event())) {
            self.forget(of);
            let words = format!("{bytes} bytes, and a message holds {MESSAGE_MAX} (NIP-44)");
            return Signature::Waits(Stands::TooLarge(words, Timestamp::now().as_secs()));
        }
        let Some(mut progress) = self.job(by, of, events) else {
            return Signature::Waits(Stands::Unreachable("other requests are before it".to_owned()));
        };
        let told = progress.wait_for(|progress| !matches!(progress, Progress::Stands(Stands::Asked)));
        match timeout(SOON, told).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Signed(signed) => Signature::Made(signed.clone()),
                Progress::Stands(stands) => Signature::Waits(stands.clone()),
            },
            _ => Signature::Waits(Stands::Asked),
        }
    }

    fn job(
        &self,
        by: &PublicKey,
        of: &Coordinate,
        events: &[Permitted],
    ) -> Option<tokio::sync::watch::Receiver<Progress>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get(of)
            && job.events == events
        {
            let is_over = matches!(
                &*job.progress.borrow(),
                Progress::Stands(Stands::Refused(..) | Stands::TooLarge(..))
            );
            if !is_over {
                return Some(job.progress.clone());
            }
        }
        jobs.remove(of);
        if jobs.len() >= JOBS_MAX {
            return None;
        }
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = remote.values().find(|connection| connection.user() == Some(*by))?;
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let family = BTreeSet::from([of.identifier.clone()]);
        let done = move || {
            if let Some(touched) = touched {
                // The next cycle finds it, too.
                let _ = touched.try_send(Noticed::Families(family));
            }
        };
        let job = connection.ask(events.to_vec(), done);
        let progress = job.progress.clone();
        jobs.insert(of.clone(), job);
        Some(progress)
    }

    /// What was asked for is done, or not wanted any more.
    pub(super) fn forget(&self, of: &Coordinate) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(of);
    }

    /// Nobody is asked any more for repositories that are not among these.
    pub(super) fn keep_to(&self, repositories: &[Repository]) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |name: &Coordinate| repositories.iter().any(|known| known.coordinate == *name);
        for (repository, _) in jobs.extract_if(.., |name, _| !is_known(name)) {
            tracing::info!(%repository, "no signature is asked for any more: it is not watched");
        }
    }

    /// Says, once, whose keys are of no use.
    pub(super) fn tell_idle(&self, repositories: &[Repository]) {
        let mut told = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.keys() {
            if maintains_any(&key, repositories) {
                told.remove(&key);
            } else if told.insert(key) {
                tracing::error!(signer = npub(&key), "a key of MIRROR_SIGNER is of no use: {IDLE}");
            }
        }
    }

    /// Each signer, whether it is there, and whether its key is of any use.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) async fn examine(
        &self,
        repositories: &[Repository],
    ) -> Result<Vec<SignerFinding>, StoreError> {
        let use_of = |key: &PublicKey| (!maintains_any(key, repositories)).then(|| IDLE.to_owned());
        let local = self.local.keys().map(|key| SignerFinding::of(key, Some(key), use_of(key)));
        let remote = self.connect().await?;
        let remote = join_all(remote.iter().map(|connection| async {
            match connection.examine().await {
                Ok(user) => SignerFinding::of(connection.signer(), Some(&user), use_of(&user)),
                Err(stands) => SignerFinding::of(connection.signer(), None, Some(stands.why_not_connected())),
            }
        }));
        Ok(local.chain(remote.await).collect())
    }
}
