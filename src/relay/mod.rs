//! Relays: reading to the end, writing at the rate they allow, and what a server says about itself.
//!
//! [`Relays`] holds one connection per address, for a run or for as long as a daemon's cycles use it. Everything a relay sends is verified, and saved in
//! the event database unless told otherwise, by nostr-sdk before anyone here sees it. A relay that cannot be reached costs its
//! connect timeout once per run. A read that does not end in `EOSE` is an error, never "nothing there".
//! [`follow`] listens for as long as the program runs, and [`direct`] opens and closes what people send each
//! other in private.

pub mod direct;
mod door;
pub mod follow;
mod idle;
pub mod known;
mod learned;
mod link;
pub mod nip05;
pub mod nip11;
mod pace;
mod read;
pub mod remote;
mod transport;

use std::{
    collections::{BTreeSet, HashMap},
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use door::Admit;
pub use learned::Learned;
pub use transport::Addresses;

use door::Door;
use link::Link;
use nostr::prelude::{Event, EventId, Filter, Keys, RelayUrl, Timestamp};
use nostr_database::NostrDatabase;
use nostr_sdk::{
    authenticator::SignerAuthenticator,
    client::{Client, ClientBuilder},
};
use transport::Transport;

use crate::plan::converge::Answer;

/// What bounds the work with one relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a relay may be silent in the middle of an answer.
    pub stall_timeout: Duration,
    /// Events sent to one relay per minute, in all.
    pub events_per_minute: NonZeroU32,
    /// Events read in one go; more is an incomplete read.
    pub max_events: usize,
    /// For how long a relay that could not be reached is left alone; `None` for as long as these relays are used.
    pub rest: Option<Duration>,
}

#[cfg(test)]
impl Limits {
    /// For a test in which no relay answers: how long that is waited for.
    pub(crate) fn waiting(patience: Duration) -> Self {
        Self {
            connect_timeout: patience,
            stall_timeout: patience,
            events_per_minute: NonZeroU32::MIN,
            max_events: 1,
            rest: None,
        }
    }
}

/// What went wrong with a relay. Every variant names it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RelayError {
    /// No connection.
    #[error("{relay} cannot be reached: {reason}")]
    Unreachable {
        /// Which relay.
        relay: String,
        /// Why.
        reason: String,
    },
    /// The answer broke off before its end.
    #[error("{relay} broke off in the middle of an answer: {reason}")]
    Incomplete {
        /// Which relay.
        relay: String,
        /// What happened.
        reason: String,
    },
    /// The relay ended the request itself.
    #[error("{relay} does not answer: {reason}")]
    Closed {
        /// Which relay.
        relay: String,
        /// Its own words.
        reason: String,
    },
    /// The relay wants events more slowly, also after waiting.
    #[error("{relay} asks to slow down: {reason}")]
    RateLimited {
        /// Which relay.
        relay: String,
        /// Its own words.
        reason: String,
    },
    /// It said nothing to an event.
    #[error("{relay} did not answer within {limit:?} when it was sent the event {event}")]
    Silent {
        /// Which relay.
        relay: String,
        /// Which event.
        event: EventId,
        /// How long it had.
        limit: Duration,
    },
    /// An event could not be delivered, though the relay did not refuse it.
    #[error("{relay} did not take the event {event}: {reason}")]
    NotTaken {
        /// Which relay.
        relay: String,
        /// Which event.
        event: EventId,
        /// What happened, in the relay's own words where it said something.
        reason: String,
    },
}

impl RelayError {
    /// Whether the relay is down, as against answering badly.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the relay is there and left what it was asked for without an answer.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }
}

/// In what a relay and a set of events differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Of the set, what the relay does not have.
    pub lacks: BTreeSet<EventId>,
    /// What it has beside the set.
    pub extra: Vec<EventId>,
}

/// All relays of a run.
#[derive(Debug)]
pub struct Relays {
    links: Mutex<HashMap<RelayUrl, Arc<Link>>>,
    /// Held while a link is made.
    making: tokio::sync::Mutex<()>,
    /// One for all: what several relays send is verified once, and remembered once.
    client: Client,
    door: Door,
    learned: Arc<Learned>,
    limits: Limits,
}

impl Relays {
    /// Relays that save what they bring into `database`, are connected to where `addresses` says, and, when
    /// they ask, are told who we are with `keys` (NIP-42).
    #[must_use]
    pub fn new(
        database: Arc<dyn NostrDatabase>,
        addresses: Arc<dyn Addresses>,
        keys: Keys,
        limits: Limits,
    ) -> Self {
        Self::of(Client::builder().database(database), addresses, keys, limits)
    }

    /// The same, but what they bring is not saved: for messages from anyone.
    #[must_use]
    pub fn that_keep_nothing(addresses: Arc<dyn Addresses>, keys: Keys, limits: Limits) -> Self {
        Self::of(Client::builder(), addresses, keys, limits)
    }

    fn of(builder: ClientBuilder, addresses: Arc<dyn Addresses>, keys: Keys, limits: Limits) -> Self {
        let door = Door::default();
        let client = builder
            .admit_policy(door.clone())
            .websocket_transport(Transport::new(addresses))
            .authenticator(SignerAuthenticator::new(keys))
            // Nobody listens to all relays at once, and each place in the queue has room for an event.
            .notification_channel_size(NonZeroUsize::MIN)
            .build();
        Self {
            links: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            client,
            door,
            learned: Arc::default(),
            limits,
        }
    }

    /// Knows what others have learned of relays that have the same `learned`.
    #[must_use]
    pub fn beside(self, learned: &Arc<Learned>) -> Self {
        Self { learned: Arc::clone(learned), ..self }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<RelayUrl, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn link(&self, url: &RelayUrl) -> Result<Arc<Link>, RelayError> {
        let known = || {
            let link = self.links().get(url).cloned()?;
            link.note_asked_for();
            Some(link)
        };
        if let Some(link) = known() {
            return Ok(link);
        }
        let _making = self.making.lock().await;
        if let Some(link) = known() {
            return Ok(link);
        }
        let relay = link::open(&self.client, url).await?;
        let link = Arc::new(Link::new(relay, self.door.clone(), Arc::clone(&self.learned), self.limits));
        self.links().insert(url.clone(), Arc::clone(&link));
        Ok(link)
    }

    /// A new run begins: relays that could not be reached are tried again. Open connections stay that are of use.
    pub async fn start_over(&self) {
        self.close_idle().await;
        let links: Vec<Arc<Link>> = self.links().values().cloned().collect();
        links.iter().for_each(|link| link.start_over());
    }

    /// Compares `items` with what the relay has that matches `filter`, in one round where they are the same (NIP-77).
    /// `None` when the relay does not speak it.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub async fn compare(
        &self,
        url: &RelayUrl,
        filter: Filter,
        items: &[(EventId, Timestamp)],
    ) -> Result<Option<Difference>, RelayError> {
        let compared = self.link(url).await?.reconcile(filter, Some(items)).await?;
        Ok(compared.map(|summary| Difference {
            lacks: summary.local.into_iter().collect(),
            extra: summary.remote.into_iter().collect(),
        }))
    }

    /// One request. Of what the relay sends, `admit` sees everything, and only what it takes is kept and returned.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; whatever arrived before is saved all the same.
    pub async fn read_through(
        &self,
        url: &RelayUrl,
        filters: Vec<Filter>,
        admit: Admit,
    ) -> Result<Vec<Event>, RelayError> {
        self.link(url).await?.read_through(filters, Some(admit)).await
    }

    /// The events called `ids`, as [`Self::read_through`].
    ///
    /// # Errors
    ///
    /// [`RelayError`]; whatever arrived before is saved all the same.
    pub async fn fetch(
        &self,
        url: &RelayUrl,
        ids: &[EventId],
        admit: &Admit,
    ) -> Result<Vec<Event>, RelayError> {
        let link = self.link(url).await?;
        if ids.len() > self.limits.max_events {
            return Err(link.incomplete(read::TOO_MANY));
        }
        let mut events = Vec::new();
        for some in ids.chunks(read::IDS_PER_FILTER) {
            let filter = Filter::new().ids(some.iter().copied());
            events.extend(link.read_through(vec![filter], Some(Arc::clone(admit))).await?);
        }
        Ok(events)
    }

    /// Brings everything `filter` matches at `url` into the database: by negentropy (NIP-77) where the relay
    /// speaks it, else page by page to the end.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; whatever arrived before is saved all the same.
    pub async fn backfill(&self, url: &RelayUrl, filter: Filter) -> Result<(), RelayError> {
        self.link(url).await?.backfill(filter).await
    }

    /// Brings everything that matches one of `filters` (to its end, page by page) and returns it.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; whatever arrived before is saved all the same.
    pub async fn read(&self, url: &RelayUrl, filters: Vec<Filter>) -> Result<Vec<Event>, RelayError> {
        self.link(url).await?.read_pages(filters).await
    }

    /// Which of `wanted` the relay does not serve. `filter` must match all of them; the narrower, the cheaper.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub async fn lacks(
        &self,
        url: &RelayUrl,
        filter: Filter,
        wanted: &[(EventId, Timestamp)],
    ) -> Result<BTreeSet<EventId>, RelayError> {
        self.link(url).await?.lacks(filter, wanted).await
    }

    /// Which of `wanted` the relay does not serve, whatever kind they are.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub async fn lacks_ids(
        &self,
        url: &RelayUrl,
        wanted: &[(EventId, Timestamp)],
    ) -> Result<BTreeSet<EventId>, RelayError> {
        let link = self.link(url).await?;
        let mut lacks = BTreeSet::new();
        for some in wanted.chunks(read::IDS_PER_FILTER) {
            let filter = Filter::new().ids(some.iter().map(|(id, _)| *id));
            lacks.extend(link.lacks(filter, some).await?);
        }
        Ok(lacks)
    }

    /// Which of `ids` the relay serves, asked for one by one.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub async fn serves(&self, url: &RelayUrl, ids: &[EventId]) -> Result<BTreeSet<EventId>, RelayError> {
        let link = self.link(url).await?;
        let mut served = BTreeSet::new();
        for some in ids.chunks(read::IDS_PER_FILTER) {
            served.extend(link.serves(some).await?);
        }
        Ok(served)
    }

    /// How many events the relay takes in a minute: what it has let us see, else what the configuration says.
    #[must_use]
    pub fn events_per_minute(&self, url: &RelayUrl) -> u32 {
        let link = self.links().get(url).cloned();
        let known = || link::allowed(self.learned.events_per_minute(url), &self.limits);
        link.map_or_else(known, |link| link.events_per_minute())
    }

    /// How long it took to open the connection that is in use, or was last; `None` when there was none.
    #[must_use]
    pub fn opened_in(&self, url: &RelayUrl) -> Option<Duration> {
        self.links().get(url)?.opened_in()
    }

    /// Sends one event, no faster than the relay allows, and returns what it said.
    ///
    /// # Errors
    ///
    /// [`RelayError`] when there was no answer, or one that says "later".
    pub async fn send(&self, url: &RelayUrl, event: &Event) -> Result<Answer, RelayError> {
        self.link(url).await?.send(event).await
    }
}
