//! Listens between cycles, on servers and relays, and says which families of repositories have changed.
//!
//! What is heard and concerns nobody is not kept. What is missed while a relay is away is asked for when it is back,
//! from the last time it was listened to on; the cycles find the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nostr::prelude::{Event, Filter, Keys, PublicKey, RelayUrl, Timestamp};
use tokio::{
    sync::{OnceCell, mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use url::Url;

use super::{CycleError, shared::Shared, world::listening_limits};
use crate::{
    config::Config,
    git::wire,
    plan::live::{Concerns, Room},
    relay::{
        Relays,
        follow::{Ears, Heard, Interest},
        known::Known,
        nip11,
    },
    store::Store,
    transfer::guard::Guard,
};

/// How much older than the connection events may be dated, in seconds: by their authors' clocks, and when a server kept
/// them back until a long push was done.
const OVERLAP_SECS: u64 = 6 * 3_600;

/// How far back a relay is asked that was away; the cycles find what is older.
const BACK_MAX_SECS: u64 = 24 * 3_600;

/// Relays listened to; the servers come first.
const RELAYS_MAX: usize = 100;

/// How long a relay may take to say what it takes, before it is listened to like any other.
const ROOM_PATIENCE: Duration = Duration::from_secs(3);

/// Events on their way.
const QUEUE: usize = 1_024;

/// What to listen to, as of the last cycle.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// The bot's own relays.
    pub own: BTreeSet<RelayUrl>,
    /// GRASP servers.
    pub servers: BTreeSet<RelayUrl>,
    /// Ordinary relays that announcements name.
    pub relays: BTreeSet<RelayUrl>,
    /// What counts.
    pub concerns: Concerns,
}

impl Listening {
    /// Whom to listen to, and for what. Where that would be too many, those that announcements name have to stand back.
    fn asks(&self) -> BTreeMap<&RelayUrl, Asked> {
        let only = Asked::Only(self.concerns.filters());
        let by_rank = self.own.iter().chain(&self.servers).chain(&self.relays);
        let mut asks = BTreeMap::new();
        for relay in by_rank {
            if asks.len() < RELAYS_MAX {
                let is_server = self.servers.contains(relay);
                let asked = || if is_server { Asked::Everything } else { only.clone() };
                asks.entry(relay).or_insert_with(asked);
            }
        }
        asks
    }
}

/// What is told to whoever acts on it.
#[derive(Debug)]
pub enum Noticed {
    /// Something was heard of repositories with these identifiers.
    Families(BTreeSet<String>),
    /// What to mirror, or where to, may have changed: a maintainer wants the bot to leave their repositories alone, or not
    /// to do so any more, or a watched author lists other servers.
    Everything,
    /// A relay or server answers: everything it had was heard.
    CaughtUp(RelayUrl),
}

/// The task; see the module.
pub struct Live {
    store: Store,
    relays: Arc<Relays>,
    known: Arc<Known>,
    concerns: Concerns,
    bot: PublicKey,
    shared: Arc<Shared>,
    http: reqwest::Client,
    /// How long a relay may take to say what it takes.
    patience: Duration,
    touched: mpsc::Sender<Noticed>,
    listening: watch::Receiver<Listening>,
    ears: Ears,
    heard: (mpsc::Receiver<Heard>, mpsc::Receiver<Heard>),
    followed: BTreeMap<RelayUrl, Followed>,
    tasks: JoinSet<()>,
}

/// One relay that is listened to.
struct Followed {
    /// What it is asked for, the time aside.
    asked: Asked,
    since: Arc<Mutex<Timestamp>>,
    /// What it takes, once it has said so.
    room: Arc<OnceCell<Room>>,
    task: AbortHandle,
}

/// What a relay is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Only(Vec<Filter>),
}

impl Live {
    /// Listens to what `listening` says last, and sends what is touched to `touched`.
    ///
    /// # Errors
    ///
    /// [`CycleError::Client`] when no HTTP client can be made.
    pub fn new(
        config: &Config,
        guard: &Guard,
        keys: &Keys,
        store: &Store,
        shared: &Arc<Shared>,
        listening: watch::Receiver<Listening>,
        touched: mpsc::Sender<Noticed>,
    ) -> Result<Self, CycleError> {
        let guard = Arc::new(guard.clone());
        let http = wire::http_client(config.limits.connect_timeout, Some(guard.clone()))?;
        let limits = listening_limits(config);
        let relays = Relays::that_keep_nothing(guard, keys.clone(), limits).beside(shared.learned());
        let known: Arc<Known> = Arc::default();
        let (live, hearing) = mpsc::channel(QUEUE);
        let (stored, reading) = mpsc::channel(QUEUE);
        Ok(Self {
            store: store.clone(),
            relays: Arc::new(relays),
            known: Arc::clone(&known),
            concerns: Concerns::default(),
            bot: keys.public_key(),
            shared: Arc::clone(shared),
            http,
            patience: config.limits.connect_timeout.min(ROOM_PATIENCE),
            touched,
            listening,
            ears: Ears { live, stored, known },
            heard: (hearing, reading),
            followed: BTreeMap::new(),
            tasks: JoinSet::new(),
        })
    }

    /// Works until nobody wants to know any more.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                changed = self.listening.changed() => match changed {
                    Ok(()) => {
                        let listening = self.listening.borrow_and_update().clone();
                        self.listen_to(listening).await;
                    }
                    Err(_) => return,
                },
                Some(heard) = self.heard.0.recv() => self.hear(heard).await,
                Some(heard) = self.heard.1.recv() => self.hear(heard).await,
                Some(ended) = self.tasks.join_next() => {
                    // One that is left was cut short.
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(problem = %error, "listening to a relay broke; cycles ask it still");
                    }
                }
            }
        }
    }

    /// Begins to listen where that is new or something else is to be asked for, and leaves the rest alone.
    async fn listen_to(&mut self, listening: Listening) {
        let wanted = listening.asks();
        let left = self.followed.extract_if(.., |relay, _| !wanted.contains_key(relay));
        for (relay, followed) in left.collect::<Vec<_>>() {
            followed.task.abort();
            self.relays.leave(&relay).await;
            self.shared.transfer.is_left(&relay);
        }
        for (relay, asked) in wanted {
            let before = self.followed.remove(relay);
            let followed = match before {
                Some(before) if before.asked == asked => before,
                before => self.follow(relay, asked, before),
            };
            self.followed.insert(relay.clone(), followed);
        }
        self.concerns = listening.concerns;
    }

    fn follow(&mut self, relay: &RelayUrl, asked: Asked, before: Option<Followed>) -> Followed {
        let (since, room) = match before {
            Some(before) => {
                before.task.abort();
                (before.since, before.room)
            }
            None => (Arc::new(Mutex::new(Timestamp::now())), Arc::default()),
        };
        let (relays, ears, url) = (Arc::clone(&self.relays), self.ears.clone(), relay.clone());
        let (look_back, known, wanted) = (Arc::clone(&since), Arc::clone(&room), asked.clone());
        let (http, patience) = (self.http.clone(), self.patience);
        let task = self.tasks.spawn(async move {
            let parts = match wanted {
                Asked::Everything => vec![vec![Concerns::of_a_server()]],
                Asked::Only(filters) => {
                    let ask = || room_of(&http, &url, patience);
                    let room = known.get_or_try_init(ask).await.copied().unwrap_or_default();
                    room.subscriptions(&filters)
                }
            };
            let interest = || {
                let last = *look_back.lock().unwrap_or_else(PoisonError::into_inner);
                Interest { parts: since_then(&parts, looking_back(last, Timestamp::now())) }
            };
            relays.follow(&url, interest, ears).await;
        });
        Followed { asked, since, room, task }
    }

    async fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Event { relay, event } => {
                self.note_time(&relay);
                self.take(*event).await;
            }
            Heard::CaughtUp(relay) => {
                self.note_time(&relay);
                self.shared.transfer.is_back(&relay);
                self.tell(Noticed::CaughtUp(relay)).await;
            }
            // One that is left may have said so before.
            Heard::Failed(relay) if self.followed.contains_key(&relay) => {
                self.shared.transfer.is_lost(&relay)
            }
            Heard::Reading(_) | Heard::Failed(_) => {}
        }
    }

    /// The relay was listened to until now.
    fn note_time(&self, relay: &RelayUrl) {
        if let Some(followed) = self.followed.get(relay) {
            *followed.since.lock().unwrap_or_else(PoisonError::into_inner) = Timestamp::now();
        }
    }

    async fn take(&mut self, event: Event) {
        if self.concerns.is_change_of_mind(&event, &self.bot) {
            self.take_mute_list(event).await;
            return;
        }
        if self.concerns.is_server_list(&event) {
            if self.is_news(&event).await {
                tracing::info!(author = %event.pubkey, "a watched author lists other servers");
                self.tell(Noticed::Everything).await;
            }
            return;
        }
        let families = self.concerns.touched_by(&event);
        // What concerns nobody now may do so when more is known.
        if families.is_empty() || !self.known.insert(&event.id) {
            return;
        }
        if self.is_news(&event).await {
            tracing::debug!(event = %event.id, kind = event.kind.as_u16(), ?families, "heard");
            self.concerns.note(&event, &families);
            self.shared.word.spread(self.concerns.overtaken_by(&event).iter().map(String::as_str));
            self.tell(Noticed::Families(families)).await;
        }
    }

    async fn take_mute_list(&mut self, list: Event) {
        if self.is_news(&list).await {
            tracing::info!(maintainer = %list.pubkey, "a maintainer's mute list is about this bot");
            self.concerns.note_mute_list(&list, &self.bot);
            self.tell(Noticed::Everything).await;
        }
    }

    /// Keeps `event`; `false` when it is known from a cycle, or older than what is known.
    async fn is_news(&self, event: &Event) -> bool {
        self.store.save(event).await.unwrap_or_else(|error| {
            tracing::warn!(event = %event.id, %error, "cannot be kept");
            false
        })
    }

    async fn tell(&self, noticed: Noticed) {
        // Nobody wants to know when the program stops.
        let _ = self.touched.send(noticed).await;
    }
}

/// What a relay says that it takes (NIP-11).
async fn room_of(http: &reqwest::Client, relay: &RelayUrl, patience: Duration) -> Result<Room, ()> {
    let unknown = |reason: String| tracing::debug!(%relay, reason, "its limits are not known");
    let mut base = Url::parse(relay.as_str()).map_err(|error| unknown(error.to_string()))?;
    let scheme = if base.scheme() == "wss" { "https" } else { "http" };
    base.set_scheme(scheme).map_err(|()| unknown("no such address".to_owned()))?;
    let said = nip11::ask(http, &base, patience).await.map_err(|error| unknown(error.to_string()))?;
    Ok(said.room)
}

fn since_then(parts: &[Vec<Filter>], since: Timestamp) -> Vec<Vec<Filter>> {
    let all_since =
        |filters: &Vec<Filter>| filters.iter().map(|filter| filter.clone().since(since)).collect();
    parts.iter().map(all_since).collect()
}

/// From when on a relay is asked that was last listened to at `last`.
fn looking_back(last: Timestamp, now: Timestamp) -> Timestamp {
    let earliest = now.as_secs().saturating_sub(BACK_MAX_SECS);
    // The clock may have been ahead.
    Timestamp::from_secs(last.min(now).as_secs().saturating_sub(OVERLAP_SECS).max(earliest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(name: &str, count: usize) -> BTreeSet<RelayUrl> {
        let url = |number| RelayUrl::parse(&format!("wss://{name}{number}.example"));
        (0..count).map(url).collect::<Result<_, _>>().unwrap_or_default()
    }

    #[test]
    fn a_relay_that_was_away_is_asked_for_what_it_has_since_whatever_the_clock_said() {
        let now = Timestamp::from_secs(1_790_000_000);
        let secs_back = |last: u64| now.as_secs() - looking_back(Timestamp::from_secs(last), now).as_secs();
        assert_eq!(secs_back(now.as_secs() - 60), OVERLAP_SECS + 60);
        assert_eq!(secs_back(0), BACK_MAX_SECS);
        assert_eq!(secs_back(now.as_secs() + 365 * 24 * 3_600), OVERLAP_SECS);
    }

    #[test]
    fn however_many_relays_announcements_name_the_bots_own_and_the_servers_are_listened_to() {
        let mut listening = Listening {
            own: relays("z", 3),
            servers: relays("y", 9),
            relays: relays("a", 2 * RELAYS_MAX),
            ..Listening::default()
        };
        // A server may be one of the bot's relays, too.
        listening.own.extend(relays("y", 1));
        let asks = listening.asks();
        assert_eq!(asks.len(), RELAYS_MAX);
        assert!(listening.servers.iter().all(|server| asks.get(server) == Some(&Asked::Everything)));
        let only = |relay: &RelayUrl| matches!(asks.get(relay), Some(Asked::Only(_)));
        assert!(relays("z", 3).iter().all(only));
        assert_eq!(listening.relays.iter().filter(|relay| only(relay)).count(), RELAYS_MAX - 12);
    }
}
