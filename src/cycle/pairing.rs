//! Pairs the bot with a remote signer that is shown a `nostrconnect://` address (NIP-46).

use std::{sync::Arc, time::Duration};

use grasp_mirror_commands::span;
use nostr::{
    nips::nip46::NostrConnectUri,
    prelude::{Keys, PublicKey, RelayUrl},
};
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
    store::{Store, StoreError, records::Records},
};

/// How long an address may be used.
pub const GOOD_FOR: Duration = Duration::from_secs(600);

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

/// An address that is shown to a signer, and what is needed to hear it.
pub struct Pairing {
    relays: Arc<Relays>,
    at: Vec<RelayUrl>,
    client: Keys,
    records: Records,
    uri: NostrConnectUri,
    meeting: Meeting,
}

/// Who was paired with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paired {
    /// The key that it signs with.
    pub user: PublicKey,
}

impl Pairing {
    /// Makes an address for the bot's relays, and listens there.
    ///
    /// # Errors
    ///
    /// [`PairError`].
    pub async fn new(config: &Config, keys: &Keys, store: &Store) -> Result<Self, PairError> {
        let at = config.bot.relays.clone();
        if at.is_empty() {
            return Err(PairError::NoRelay);
        }
        let signers = Signers::new(config, keys, store);
        let client = signers.client().await?;
        let uri = NostrConnectUri::client(client.public_key(), at.clone(), &config.bot.name);
        let relays = signers.relays(&client);
        let meeting = Meeting::open(&relays, &at, &client).await?;
        Ok(Self { relays, at, client, records: signers.records().clone(), uri, meeting })
    }

    /// The address, with its secret: for the operator's eyes.
    #[must_use]
    pub fn address(&self) -> String {
        let NostrConnectUri::Client { public_key, relays, metadata, secret } = &self.uri else {
            return String::new();
        };
        let base = format!("nostrconnect://{}", public_key.to_hex());
        // The name stands there twice: signers read one or the other.
        let name = [("metadata", metadata.as_json()), ("name", metadata.name.clone())];
        let relays = relays.iter().map(|relay| ("relay", relay.as_str_without_trailing_slash().to_owned()));
        let rest = [("secret", secret.clone()), ("perms", PERMISSIONS.to_owned())];
        let pairs: Vec<(&str, String)> = relays.chain(rest).chain(name).collect();
        Url::parse_with_params(&base, pairs).map_or(base, |url| url.to_string())
    }

    /// Waits for the signer, and remembers it. The next cycle uses it.
    ///
    /// # Errors
    ///
    /// [`PairError`].
    pub async fn wait(self) -> Result<Paired, PairError> {
        let Self { relays, at, client, records, uri, mut meeting } = self;
        let secret = uri.secret().unwrap_or_default();
        let came = timeout(GOOD_FOR, meeting.met(secret)).await;
        let signer = came.map_err(|_| PairError::NobodyCame)?;
        drop(meeting);
        let remote = Remote::listen(relays, at.clone(), client, signer);
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
        let met = Met { signer, user, paired_at: at };
        records.write(&met_name(&signer), &met).await?;
        let mut paired: Vec<Met> = records.read(PAIRED).await?.unwrap_or_default();
        // One signer for each key: a new pairing takes the place of the old one.
        paired.retain(|known| known.signer != signer && known.user != user);
        paired.push(met);
        records.write(PAIRED, &paired).await?;
        Ok(Paired { user })
    }
}
