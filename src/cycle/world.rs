//! What one run works with.

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use nostr::prelude::{Keys, PublicKey, RelayUrl};
use url::Url;

use super::{CycleError, housekeeping::House, kept::Kept, shared::Shared, signers::Signers};
use crate::{
    config::Config,
    git::wire::{self, GitHttp},
    model::{
        coordinate::{Coordinate, npub},
        policy::Policy,
    },
    plan::{catalog, retry::Backoff, settings::Settings},
    relay::{self, Relays},
    report::scoreboard::Samples,
    store::{Store, records::Records},
    transfer::{self, Transfer, guard::Guard},
};

/// Relays and servers looked up or asked at the same time.
pub(super) const AT_ONCE: usize = 16;

/// A guard that trusts the addresses in the operator's own configuration.
#[must_use]
pub fn guard(config: &Config) -> Guard {
    Guard::new(config.network.allow_private_addresses, own_addresses(config))
}

/// The addresses in the operator's own configuration.
pub fn own_addresses(config: &Config) -> impl Iterator<Item = Url> {
    let servers = config.servers.known.iter().chain(config.policy.excepted_servers());
    servers.map(|server| server.http_base().clone()).chain(
        [&config.bot.relays, &config.bot.index_relays, &config.bot.inbox_relays]
            .into_iter()
            .flatten()
            .filter_map(|relay| Url::parse(relay.as_str()).ok()),
    )
}

pub(super) fn catalog_limits(config: &Config) -> catalog::Limits {
    catalog::Limits {
        max_refs: config.limits.max_refs,
        max_repos_per_author: config.limits.max_repos_per_author,
    }
}

/// What a relay that could not be reached is left alone for while the program listens to it.
const REST: Duration = Duration::from_secs(5);

/// What bounds the work with relays that are listened to for as long as the program runs; nothing is sent to them.
#[must_use]
pub fn listening_limits(config: &Config) -> relay::Limits {
    let limits = &config.limits;
    relay::Limits {
        connect_timeout: limits.connect_timeout,
        stall_timeout: limits.stall_timeout,
        events_per_minute: NonZeroU32::MIN,
        max_events: limits.max_events_per_repo,
        rest: Some(REST),
    }
}

/// Connections, stores and limits of one run, or of a daemon's runs one after the other: connections stay open, what was
/// seen is kept, and a relay that was down is tried again in the next run.
#[derive(Debug)]
pub struct World {
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) store: Store,
    pub(super) records: Records,
    pub(super) relays: Arc<Relays>,
    pub(super) http: reqwest::Client,
    pub(super) guard: Guard,
    pub(super) transfer: Transfer,
    pub(super) git: GitHttp,
    /// Whose signatures can be had.
    pub(super) signers: Arc<Signers>,
    /// What others know that are at work at the same time.
    pub(super) shared: Arc<Shared>,
    /// What to mirror, and where to.
    pub(super) settings: Settings,
    /// What the operator allows and denies, by the configuration and by message.
    pub(super) policy: Policy,
    /// Bot relays that showed what they have of its settings, when they were last asked.
    pub(super) readable: usize,
    /// What is looked at as if it had never been seen; `None` in it means everything.
    pub(super) afresh: Vec<Option<BTreeSet<Coordinate>>>,
    /// Whether servers that were down are left alone until their next try.
    pub(super) patient: bool,
    /// Servers that were heard of since they were last asked.
    pub(super) awake: BTreeSet<RelayUrl>,
    /// Inbox relays that do not deliver, for the report.
    pub(super) silent: BTreeSet<RelayUrl>,
    /// After how long a cycle leaves what waits to the next one.
    pub(super) bound: Option<Duration>,
    /// What the last run left.
    pub(super) kept: Kept,
    /// What is to be put in order after it.
    pub(super) house: Option<House>,
    /// What was seen of the servers and is not written down yet.
    pub(super) samples: Mutex<Samples>,
}

impl World {
    /// Prepares a run; nothing is connected yet, and nothing is watched before [`Self::recall`] or
    /// [`Self::obey`].
    ///
    /// # Errors
    ///
    /// [`CycleError::Client`] when no HTTP client can be made.
    pub fn new(config: &Config, keys: &Keys, store: &Store) -> Result<Self, CycleError> {
        let shared: Arc<Shared> = Arc::default();
        let signers = Arc::new(Signers::new(config, keys, store, shared.learned()));
        Self::beside(config, keys, store, &signers, &shared)
    }

    /// The same, beside others that have the same `signers` and `shared`.
    ///
    /// # Errors
    ///
    /// [`CycleError::Client`] when no HTTP client can be made.
    pub fn beside(
        config: &Config,
        keys: &Keys,
        store: &Store,
        signers: &Arc<Signers>,
        shared: &Arc<Shared>,
    ) -> Result<Self, CycleError> {
        let guard = guard(config);
        let limits = &config.limits;
        let http = wire::http_client(limits.connect_timeout, Some(Arc::new(guard.clone())))?;
        let git = GitHttp::new(
            http.clone(),
            wire::Limits {
                stall: limits.stall_timeout,
                total: limits.total_timeout,
                max_refs: limits.max_refs,
                max_advertisement_bytes: limits.max_response_bytes,
                upload_bytes_per_sec: limits.upload_bytes_per_sec,
            },
        );
        let relays = Relays::new(
            store.database(),
            Arc::new(guard.clone()),
            keys.clone(),
            relay::Limits {
                connect_timeout: limits.connect_timeout,
                stall_timeout: limits.stall_timeout,
                events_per_minute: NonZeroU32::new(limits.events_per_minute).unwrap_or(NonZeroU32::MIN),
                max_events: limits.max_events_per_repo.saturating_mul(8),
                rest: None,
            },
        );
        let relays = Arc::new(relays.beside(shared.learned()));
        let transfer = Transfer::new(
            Arc::clone(&relays),
            git.clone(),
            guard.clone(),
            transfer::Limits {
                per_server: limits.per_server,
                disk_floor_bytes: limits.disk_floor_bytes,
                total_timeout: limits.total_timeout,
                silence: transfer::Waits { first: limits.retry_first, longest: limits.retry_max },
            },
            Arc::clone(&shared.transfer),
        );
        Ok(Self {
            config: config.clone(),
            keys: keys.clone(),
            store: store.clone(),
            records: Records::new(store.clone(), keys.clone()),
            relays,
            http,
            guard,
            transfer,
            git,
            signers: Arc::clone(signers),
            shared: Arc::clone(shared),
            settings: Settings::default(),
            policy: config.policy.clone(),
            readable: 0,
            afresh: Vec::new(),
            patient: false,
            awake: BTreeSet::new(),
            silent: BTreeSet::new(),
            bound: None,
            kept: Kept::default(),
            house: None,
            samples: Mutex::default(),
        })
    }

    /// Looks at these repositories (`None`: at all) as if they had never been seen: refusals are forgotten, failed
    /// mirrors tried at once, every server's refs compared, and remote signers asked.
    pub fn look_anew_at(&mut self, repositories: Vec<Option<BTreeSet<Coordinate>>>) {
        if !repositories.is_empty() {
            self.signers.ask_anew();
            self.shared.transfer.forget_silence();
        }
        self.afresh = repositories;
    }

    /// Leaves servers alone that were down until their next try, unless somebody wants something looked at anew; those
    /// that are `awake` have been heard of since.
    pub fn be_patient(&mut self, awake: BTreeSet<RelayUrl>) {
        (self.patient, self.awake) = (true, awake);
    }

    pub(super) fn is_patient(&self) -> bool {
        self.patient && self.afresh.is_empty()
    }

    /// Lets nothing wait for longer than `bound` for a slow server: the cycle ends, and the next one goes on.
    pub fn end_after(&mut self, bound: Duration) {
        self.bound = Some(bound);
    }

    /// Says in the report that these inbox relays do not deliver.
    pub fn mention_silent(&mut self, relays: BTreeSet<RelayUrl>) {
        self.silent = relays;
    }

    pub(super) fn is_afresh(&self, coordinate: &Coordinate) -> bool {
        self.afresh.iter().any(|some| some.as_ref().is_none_or(|some| some.contains(coordinate)))
    }

    /// The largest pack that is fetched for a repository, in bytes.
    pub(super) fn max_repo_bytes(&self, coordinate: &Coordinate) -> u64 {
        self.policy.exception(coordinate).max_repo_bytes.unwrap_or(self.config.limits.max_repo_bytes)
    }

    pub(super) fn bot(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// How long failed mirrors wait.
    pub(super) fn backoff(&self) -> Backoff {
        let limits = &self.config.limits;
        Backoff { first_secs: limits.retry_first.as_secs(), max_secs: limits.retry_max.as_secs() }
    }

    /// The folder of a repository's local copy.
    pub(super) fn folder(&self, coordinate: &Coordinate, folder: &str) -> PathBuf {
        self.config.bot.data_dir.join("git").join(npub(&coordinate.owner)).join(format!("{folder}.git"))
    }

    /// Those of `relays` that may be used, in their order. Each costs a look-up of its name, so callers pass
    /// each once, and no more than they can use.
    pub(super) async fn usable_relays(&self, relays: impl IntoIterator<Item = RelayUrl>) -> Vec<RelayUrl> {
        stream::iter(relays)
            .map(|relay| async move {
                let url = Url::parse(relay.as_str()).ok()?;
                // With a password in it, it is no address for everyone, and would stand in every log.
                if !url.username().is_empty() || url.password().is_some() {
                    return None;
                }
                match self.guard.check(&url).await {
                    Ok(()) => Some(relay),
                    Err(error) => {
                        tracing::debug!(%relay, %error, "a relay is not used");
                        None
                    }
                }
            })
            .buffered(AT_ONCE)
            .filter_map(|usable| async move { usable })
            .collect()
            .await
    }
}
