//! Pairs the bot with a remote signer that is shown a `nostrconnect://` address (NIP-46).

use std::{sync::Arc, time::Duration};

use grasp_mirror_commands::span;
use nostr::{
    nips::nip46::{NostrConnectMetadata, NostrConnectUri},
    prelude::{Keys, PublicKey, RelayUrl, Timestamp},
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{
    connection::{Met, PAIRED, PERMISSIONS, met_name, user_of},
    signers::Signers,
};
use crate::{
    config::Config,
    plan::signing::Stands,
    relay::{
        Relays,
        remote::{Meeting, Remote, RemoteError},
    },
    store::{Store, StoreError},
};

/// How long an address may be used.
const GOOD_FOR: Duration = Duration::from_secs(600);

/// How often a signer that answered is asked whom it signs for: it may have to ask a person first.
const TRIES: u32 = 10;

/// Why nothing came of a pairing.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration names no relay to meet at.
    #[error("there is no relay to meet a signer at: bot.relays is empty")]
    NoRelay,
    /// None of the relays can be listened to.
    #[error("a signer cannot be met: {0}")]
    Deaf(#[from] RemoteError),
    /// Nobody came.
    #[error("no signer answered within {}", span(GOOD_FOR.as_secs()))]
    NobodyCame,
    /// A signer came, and does not say whom it signs for.
    #[error("the signer answered, and then no more: {0}")]
    Silent(String),
}

/// The record of an address that was shown and waits for its signer, encrypted to the bot itself.
const SHOWN: &str = "signer/shown";

/// One with less time left is not shown again.
const TOO_LATE: Duration = Duration::from_secs(60);

/// How often a daemon that goes on with a pairing looks whether its relays are back.
const AGAIN: Duration = Duration::from_secs(5);

/// An address that was shown.
#[derive(Clone, Serialize, Deserialize)]
struct Shown {
    /// What the signer says to be known.
    secret: String,
    /// Where it is met.
    at: Vec<RelayUrl>,
    /// Until when, Unix seconds.
    until: u64,
    /// Who has come, and not said yet whom it signs for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<PublicKey>,
}

impl Shown {
    fn time_left(&self) -> Duration {
        Duration::from_secs(self.until.saturating_sub(Timestamp::now().as_secs()))
    }
}

/// An address that is shown to a signer, and what is needed to hear it. It is kept in the store until it has served or its
/// time is over, so a restart costs nothing but what the signer says meanwhile.
pub struct Pairing {
    signers: Signers,
    relays: Arc<Relays>,
    client: Keys,
    name: String,
    shown: Shown,
    meeting: Meeting,
}

/// Who was paired with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paired {
    /// The key that it signs with.
    pub user: PublicKey,
}

impl Pairing {
    /// The address that waits already, or a new one for the bot's relays; listens there.
    ///
    /// # Errors
    ///
    /// [`PairError`].
    pub async fn new(config: &Config, keys: &Keys, store: &Store) -> Result<Self, PairError> {
        let at = config.bot.relays.clone();
        if at.is_empty() {
            return Err(PairError::NoRelay);
        }
        let signers = Signers::new(config, keys, store, &Arc::default());
        let waits = shown(&signers).await?.filter(|shown| shown.at == at && shown.time_left() > TOO_LATE);
        let shown = match waits {
            Some(shown) => shown,
            None => {
                let until = Timestamp::now().as_secs().saturating_add(GOOD_FOR.as_secs());
                let uri = NostrConnectUri::client(keys.public_key(), at.clone(), "");
                let secret = uri.secret().unwrap_or_default().to_owned();
                let shown = Shown { secret, at, until, signer: None };
                keep(&signers, &shown).await?;
                shown
            }
        };
        Self::meet(config, signers, shown).await
    }

    /// Goes on with the address that was shown before a restart, if one waits. Its relays may have to be waited for.
    ///
    /// # Errors
    ///
    /// [`PairError`].
    pub async fn resume(config: &Config, keys: &Keys, store: &Store) -> Result<Option<Self>, PairError> {
        loop {
            let signers = Signers::new(config, keys, store, &Arc::default());
            let Some(shown) = shown(&signers).await? else { return Ok(None) };
            if shown.time_left().is_zero() {
                signers.records().remove(SHOWN).await?;
                return Ok(None);
            }
            match Self::meet(config, signers, shown).await {
                Err(PairError::Deaf(_)) => sleep(AGAIN).await,
                met => return met.map(Some),
            }
        }
    }

    async fn meet(config: &Config, signers: Signers, shown: Shown) -> Result<Self, PairError> {
        let client = signers.client().await?;
        let relays = signers.relays(&client);
        let meeting = Meeting::open(&relays, &shown.at, &client).await?;
        Ok(Self { signers, relays, client, name: config.bot.name.clone(), shown, meeting })
    }

    /// The address, with its secret: for the operator's eyes.
    #[must_use]
    pub fn address(&self) -> String {
        let base = format!("nostrconnect://{}", self.client.public_key().to_hex());
        // The name stands there twice: signers read one or the other.
        let metadata = NostrConnectMetadata::new(self.name.clone()).as_json();
        let name = [("metadata", metadata), ("name", self.name.clone())];
        let relays =
            self.shown.at.iter().map(|relay| ("relay", relay.as_str_without_trailing_slash().to_owned()));
        let rest = [("secret", self.shown.secret.clone()), ("perms", PERMISSIONS.to_owned())];
        let pairs: Vec<(&str, String)> = relays.chain(rest).chain(name).collect();
        Url::parse_with_params(&base, pairs).map_or(base, |url| url.to_string())
    }

    /// For how long it may be used still, in seconds: whole minutes, for people.
    #[must_use]
    pub fn seconds_left(&self) -> u64 {
        self.shown.time_left().as_secs().next_multiple_of(60)
    }

    /// Waits for the signer, and remembers it. The next cycle uses it.
    ///
    /// # Errors
    ///
    /// [`PairError`].
    pub async fn wait(self) -> Result<Paired, PairError> {
        let records = self.signers.records().clone();
        let came = self.met().await;
        records.remove(SHOWN).await?;
        came
    }

    async fn met(self) -> Result<Paired, PairError> {
        let Self { signers, relays, client, mut shown, mut meeting, .. } = self;
        let records = signers.records();
        let signer = match shown.signer {
            Some(signer) => signer,
            None => {
                let came = timeout(shown.time_left(), meeting.met(&shown.secret)).await;
                let signer = came.map_err(|_| PairError::NobodyCame)?;
                shown.signer = Some(signer);
                keep(&signers, &shown).await?;
                signer
            }
        };
        drop(meeting);
        let remote = Remote::listen(relays, shown.at.clone(), client, signer);
        let mut tries = 0;
        let user = loop {
            match user_of(&remote).await {
                Ok(user) => break user,
                Err(problem) if tries < TRIES && !matches!(problem, Stands::Refused(..)) => tries += 1,
                Err(Stands::Unreachable(reason) | Stands::Refused(reason, _)) => {
                    return Err(PairError::Silent(reason));
                }
                Err(_) => return Err(PairError::Silent("it waits for a person".to_owned())),
            }
            sleep(Duration::from_secs(1)).await;
        };
        let met = Met { signer, user, paired_at: shown.at };
        records.write(&met_name(&signer), &met).await?;
        let mut paired: Vec<Met> = records.read(PAIRED).await?.unwrap_or_default();
        // One signer for each key: a new pairing takes the place of the old one.
        paired.retain(|known| known.signer != signer && known.user != user);
        paired.push(met);
        records.write(PAIRED, &paired).await?;
        Ok(Paired { user })
    }
}

/// The address that waits for its signer.
async fn shown(signers: &Signers) -> Result<Option<Shown>, StoreError> {
    let text = signers.read_sealed(SHOWN).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

async fn keep(signers: &Signers, shown: &Shown) -> Result<(), StoreError> {
    let failed =
        |error: serde_json::Error| StoreError::Record { name: SHOWN.to_owned(), reason: error.to_string() };
    signers.write_sealed(SHOWN, &serde_json::to_string(shown).map_err(failed)?).await
}
