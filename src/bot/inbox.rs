//! What arrives: opens it, tells strangers' from what the bot is to hear, and bounds what either may cost.
//!
//! While a relay shows what it has, questions wait until it has shown all: among it may be the bot's own copy of
//! the answer that it gave before it lost its disk.

use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::prelude::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp, UnsignedEvent};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep_until},
};

use super::forget::may_be_said;
use crate::{
    cycle::own_filters,
    plan::{identity::PLACES, journal::OLDEST_SECS, settings::LISTS},
    relay::{
        direct::{self, Opened, Question, answered},
        follow::{Heard, Interest},
        known::Known,
    },
    store::Store,
};

/// Wraps are dated up to two days back (NIP-59).
const WRAP_TWEAK_SECS: u64 = 2 * 24 * 3_600;

/// Relay lists of people: for private messages (NIP-17), and for the rest (NIP-65).
const CONTACTS: [Kind; 2] = [Kind::InboxRelays, Kind::RelayList];

/// Clocks differ.
const MARGIN_SECS: u64 = 3_600;

/// Messages decrypted in a minute, in all; the rest waits.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(12_000).unwrap();

/// Messages of one stranger's key looked at in a minute; the rest is dropped. Wraps have a key each.
const PER_KEY: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// Messages of somebody who may only ask to be left alone that are answered in an hour; the rest is dropped. Each answer is
/// kept, and tried for a day.
const PER_MAINTAINER: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// Keys counted at the same time.
const KEYS_MAX: usize = 10_000;

/// Questions that may wait for a relay to show all it has.
const GATHERED_MAX: usize = 1_000;

/// For how long.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often strangers' messages are mentioned in the log, at most.
const MENTION: Duration = Duration::from_secs(600);

/// What the bot is to hear.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Somebody who may command the bot asks.
    Question {
        /// What.
        question: Question,
        /// As it came.
        event: Box<Event>,
        /// From where.
        relay: RelayUrl,
    },
    /// The bot itself said so once, perhaps on another machine.
    Answered {
        /// The question.
        question: EventId,
        /// When it was answered.
        at: Timestamp,
    },
    /// A message of the bot to itself came through.
    Delivered {
        /// Through which relay.
        relay: RelayUrl,
        /// The rumor's id.
        id: EventId,
    },
    /// A setting of the bot's was published.
    OwnWord,
    /// The relays have shown what they have: from now on nothing that was answered is taken for new.
    Ready,
}

/// Where those who may command the bot read what is said to them.
pub(super) fn contacts<'key>(allowed: impl IntoIterator<Item = &'key PublicKey>) -> Option<Filter> {
    let mut allowed = allowed.into_iter().copied().peekable();
    // A filter without authors would match everybody's.
    allowed.peek()?;
    Some(Filter::new().kinds(CONTACTS).authors(allowed))
}

/// What is listened for: messages to the bot, its own settings, and where those who may command it are found.
pub(super) fn interest(bot: PublicKey, allowed: &BTreeSet<PublicKey>, now: Timestamp) -> Interest {
    let back = |secs: u64| Timestamp::from_secs(now.as_secs().saturating_sub(secs));
    // Older commands are not run, so however long the bot was away, this is far enough.
    let oldest = OLDEST_SECS + MARGIN_SECS;
    let messages = vec![
        Filter::new().kind(Kind::GiftWrap).pubkey(bot).since(back(oldest + WRAP_TWEAK_SECS)),
        Filter::new().kind(Kind::EncryptedDirectMessage).pubkey(bot).since(back(oldest)),
    ];
    let mut others = own_filters(bot);
    others.extend(contacts(allowed));
    Interest { parts: vec![messages, others] }
}

/// Who is heard.
pub(super) struct Audience {
    /// Those who may command the bot.
    pub(super) allowed: watch::Receiver<BTreeSet<PublicKey>>,
    /// Those who maintain something that it mirrors: they may ask to be left alone.
    pub(super) maintainers: watch::Receiver<Arc<BTreeSet<PublicKey>>>,
}

impl Audience {
    fn may_command(&self, key: &PublicKey) -> bool {
        self.allowed.borrow().contains(key)
    }

    fn has(&self, key: &PublicKey) -> bool {
        self.may_command(key) || self.maintainers.borrow().contains(key)
    }
}

/// Opens what relays bring.
pub(super) struct Inbox {
    keys: Keys,
    store: Store,
    heard: Audience,
    arrivals: mpsc::Sender<Arrival>,
    known: Arc<Known>,
    in_all: DefaultDirectRateLimiter,
    per_key: DefaultKeyedRateLimiter<PublicKey>,
    per_maintainer: DefaultKeyedRateLimiter<PublicKey>,
    /// Relays that are showing what they have.
    reading: HashSet<RelayUrl>,
    /// Those of them that are waited for even when they cannot be read.
    needed: BTreeSet<RelayUrl>,
    gathered: Vec<Arrival>,
    hand_on_at: Option<Instant>,
    started_at: Timestamp,
    ready: bool,
    strangers: u64,
    unreadable: u64,
}

impl Inbox {
    /// An inbox that waits for `relays` to show what they have. When the machine is new, the bot's answers of earlier
    /// times are in `needed` only, and those are waited for even when they cannot be read at first.
    pub(super) fn new(
        keys: &Keys,
        store: &Store,
        heard: Audience,
        arrivals: mpsc::Sender<Arrival>,
        relays: impl IntoIterator<Item = RelayUrl>,
        needed: BTreeSet<RelayUrl>,
    ) -> Self {
        Self {
            keys: keys.clone(),
            store: store.clone(),
            heard,
            arrivals,
            known: Arc::default(),
            in_all: RateLimiter::direct(Quota::per_minute(PER_MINUTE)),
            per_key: RateLimiter::keyed(Quota::per_minute(PER_KEY)),
            per_maintainer: RateLimiter::keyed(Quota::per_hour(PER_MAINTAINER)),
            reading: relays.into_iter().collect(),
            gathered: Vec::new(),
            needed,
            hand_on_at: Some(Instant::now() + PATIENCE),
            started_at: Timestamp::now(),
            ready: false,
            strangers: 0,
            unreadable: 0,
        }
    }

    /// What needs not be heard again.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// Works until nobody listens any more. What comes live does not wait for what is stored.
    pub(super) async fn run(mut self, mut live: mpsc::Receiver<Heard>, mut stored: mpsc::Receiver<Heard>) {
        let mut mention = interval(MENTION);
        mention.tick().await;
        loop {
            let hand_on_at = self.hand_on_at;
            tokio::select! {
                biased;
                () = sleep_until(hand_on_at.unwrap_or_else(Instant::now)), if hand_on_at.is_some() => {
                    self.hand_on().await;
                }
                _ = mention.tick() => self.mention(),
                Some(heard) = live.recv() => self.hear(heard).await,
                heard = stored.recv() => match heard {
                    Some(heard) => self.hear(heard).await,
                    None => return,
                },
            }
            if self.arrivals.is_closed() {
                return;
            }
        }
    }

    fn mention(&mut self) {
        if self.strangers + self.unreadable > 0 {
            let (strangers, unreadable) = (self.strangers, self.unreadable);
            tracing::info!(strangers, unreadable, "messages not answered since the start");
        }
    }

    async fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Event { relay, event } => self.take(relay, event).await,
            Heard::Reading(relay) => {
                if self.reading.is_empty() {
                    self.hand_on_at.get_or_insert_with(|| Instant::now() + PATIENCE);
                }
                self.reading.insert(relay);
            }
            Heard::Failed(relay) if self.needed.contains(&relay) => {}
            Heard::CaughtUp(relay) | Heard::Failed(relay) => {
                if self.reading.remove(&relay) && self.reading.is_empty() {
                    self.hand_on().await;
                }
            }
        }
    }

    /// Hands on what waited, the oldest question first.
    async fn hand_on(&mut self) {
        self.hand_on_at = None;
        self.needed.clear();
        self.gathered.sort_by_key(|arrival| match arrival {
            Arrival::Question { question, .. } => question.asked_at,
            _ => Timestamp::from_secs(0),
        });
        if !self.ready {
            self.ready = true;
            self.send(Arrival::Ready).await;
        }
        for arrival in std::mem::take(&mut self.gathered) {
            self.send(arrival).await;
        }
    }

    async fn send(&self, arrival: Arrival) {
        // Nobody listens any more when the program stops.
        let _ = self.arrivals.send(arrival).await;
    }

    async fn take(&mut self, relay: RelayUrl, event: Box<Event>) {
        match event.kind {
            Kind::GiftWrap | Kind::EncryptedDirectMessage => self.open(relay, event).await,
            _ => self.keep(&event).await,
        }
    }

    /// The bot's own settings, and the relay lists of those who may command it.
    async fn keep(&mut self, event: &Event) {
        let own = event.pubkey == self.keys.public_key()
            && (LISTS.contains(&event.kind)
                || PLACES.contains(&event.kind)
                || event.kind == Kind::ApplicationSpecificData);
        let contact = CONTACTS.contains(&event.kind) && self.heard.may_command(&event.pubkey);
        if !own && !contact {
            return;
        }
        if let Err(error) = self.store.save(event).await {
            tracing::warn!(event = %event.id, %error, "cannot be kept");
        }
        if self.known.insert(&event.id) && own {
            self.send(Arrival::OwnWord).await;
        }
    }

    async fn open(&mut self, relay: RelayUrl, event: Box<Event>) {
        if !self.known.insert(&event.id) {
            return;
        }
        let trusted = self.heard.may_command(&event.pubkey);
        if !trusted && self.per_key.check_key(&event.pubkey).is_err() {
            self.strangers += 1;
            tracing::debug!(from = %event.pubkey, "more messages in a minute than are looked at");
            return;
        }
        if self.per_key.len() > KEYS_MAX {
            self.per_key.retain_recent();
            self.per_key.shrink_to_fit();
        }
        self.in_all.until_ready().await;
        let opened = direct::open(&event, &self.keys, &|key| self.heard.has(key));
        match opened {
            Opened::Stranger => self.strangers += 1,
            Opened::Unreadable(reason) => {
                self.unreadable += 1;
                tracing::debug!(event = %event.id, reason, "unreadable");
            }
            Opened::Own(rumor) => self.own(relay, &rumor).await,
            // From a maintainer: counted by who it is from, since a wrap's key is nobody's.
            Opened::Question(question)
                if !self.heard.may_command(&question.from)
                    && (!may_be_said(&question.text)
                        || self.per_maintainer.check_key(&question.from).is_err()) =>
            {
                self.strangers += 1;
            }
            Opened::Question(question) => {
                // What was asked since then nobody else can have answered.
                let new = question.asked_at > self.started_at && question.asked_at <= Timestamp::now();
                let arrival = Arrival::Question { question, event, relay };
                if self.hand_on_at.is_none() || new {
                    self.send(arrival).await;
                } else if self.gathered.len() < GATHERED_MAX {
                    self.gathered.push(arrival);
                } else {
                    tracing::warn!("too many commands at once; the rest of them is not run");
                }
            }
        }
    }

    async fn own(&self, relay: RelayUrl, rumor: &UnsignedEvent) {
        let arrival = match answered(rumor) {
            Some(question) => Arrival::Answered { question, at: rumor.created_at },
            None => Arrival::Delivered { relay, id: rumor.compute_id() },
        };
        self.send(arrival).await;
    }
}
