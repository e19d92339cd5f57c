//! The bot's own events: who it is, and its settings. Read from its relays, signed where they do not say what they
//! should, and sent to every relay that lacks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use nostr::prelude::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{sleep, timeout},
};

use super::{Notice, inbox::contacts, orders::OrderError};
use crate::{
    config::{Config, Places},
    cycle::{self, CycleError, OwnWord, WRITTEN, monitoring_filter, own_filters, own_word, read_into},
    model::draft::Draft,
    plan::{
        converge::Answer,
        identity,
        settings::{LISTS, Settings, TOLD_IDENTIFIER, Told},
    },
    relay::{self, Learned, Relays},
    store::{Store, StoreError, records::Records},
    transfer::guard::Guard,
};

/// Who the bot is: profile, relays, inbox.
const IDENTITY: [Kind; 3] = [Kind::Metadata, Kind::RelayList, Kind::InboxRelays];

/// How long one relay may take to show the bot's own few events.
const LOOK: Duration = Duration::from_secs(6);

/// How long one relay may take to take one of them.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest a relay may be silent in the middle of an answer, whatever the limit for servers is: people wait.
const STALL: Duration = Duration::from_secs(10);

/// Events sent to one relay in a minute: answers, lists and reports. Ordinary relays allow more than GRASP servers.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(240).unwrap();

/// When relays that could not be read at first are read again, on a blank machine.
const SECOND_CHANCE: Duration = Duration::from_secs(5);

/// And then, while none of them can be.
const FURTHER_CHANCES: Duration = Duration::from_secs(20);

/// How often a list is changed anew when a newer one came in between.
const TRIES: usize = 3;

/// How long a command that changes a list waits until it is known what the list says.
const KNOWN: Duration = Duration::from_secs(25);

/// How often the relays have been read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chance {
    First,
    Later,
}

/// What is known of the bot's own lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing yet: relays are being asked.
    NotYet,
    /// No relay could be asked. The configuration is followed meanwhile, and nothing signed.
    InVain,
    /// What there is.
    Done,
}

/// What reads and publishes the bot's own events.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) config: Arc<Config>,
    pub(super) keys: Keys,
    pub(super) store: Store,
    pub(super) relays: Arc<Relays>,
    /// Whether the bot's lists, if it has any, have been read; nothing is done before, and nothing said.
    pub(super) looked: watch::Sender<Looked>,
    /// Held from reading what the lists say to having signed what they are to say.
    pub(super) writing: Arc<Mutex<()>>,
}

/// Which of the bot's own events each relay serves; relays that could not be read are not in it.
type Served = BTreeMap<RelayUrl, BTreeSet<EventId>>;

impl Own {
    pub(super) fn new(
        config: &Config,
        guard: &Guard,
        keys: &Keys,
        store: &Store,
        learned: &Arc<Learned>,
    ) -> Self {
        let limits = cycle::listening_limits(config);
        let limits = relay::Limits {
            stall_timeout: limits.stall_timeout.min(STALL),
            events_per_minute: PER_MINUTE,
            ..limits
        };
        let relays = Relays::that_keep_nothing(Arc::new(guard.clone()), keys.clone(), limits);
        Self {
            config: Arc::new(config.clone()),
            keys: keys.clone(),
            store: store.clone(),
            relays: Arc::new(relays.beside(learned)),
            looked: watch::channel(Looked::NotYet).0,
            writing: Arc::default(),
        }
    }

    fn bot(&self) -> PublicKey {
        self.keys.public_key()
    }

    fn filters(&self) -> Vec<Filter> {
        let mut filters = own_filters(self.bot());
        filters.push(Filter::new().kinds(IDENTITY).author(self.bot()));
        filters
    }

    /// Brings what relays have of the bot's own events into the store, says who the bot is and what it does where that
    /// is not said, and sends everything to where it is missing. A notice follows; what the bot is to do then is
    /// [`Self::word`].
    ///
    /// A relay that cannot be read may have what must not be replaced by a first profile or first lists, so on a blank
    /// machine it gets a second chance.
    pub(super) async fn look_after(self, notices: mpsc::Sender<Notice>) {
        let in_vain = *self.looked.borrow() == Looked::InVain;
        let mut chance = if in_vain { Chance::Later } else { Chance::First };
        loop {
            match self.settle(chance, &notices).await {
                Ok(false) if *self.looked.borrow() != Looked::Done => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "the bot's own events were not looked after");
                    return;
                }
            }
            sleep(if chance == Chance::First { SECOND_CHANCE } else { FURTHER_CHANCES }).await;
            chance = Chance::Later;
        }
    }

    /// Whether that is all for now. What the bot is to do does not wait for the index relays.
    async fn settle(&self, chance: Chance, notices: &mpsc::Sender<Notice>) -> Result<bool, CycleError> {
        let bot = &self.config.bot;
        let mut served = self.look(bot.relays.iter().collect()).await;
        let (readable, relays) = (served.len(), bot.relays.iter().collect::<BTreeSet<_>>().len());
        let blank = self.is_blank().await?;
        let enough = readable >= if blank && chance == Chance::First { relays } else { relays.min(1) };
        let now = Timestamp::now();
        if enough {
            self.settle_lists(now).await?;
            self.looked.send_replace(Looked::Done);
        } else {
            if chance == Chance::Later && *self.looked.borrow() == Looked::NotYet {
                self.looked.send_replace(Looked::InVain);
            }
            tracing::warn!(
                readable,
                relays,
                "not all of the bot's relays could be read; its profile and lists are published later"
            );
        }
        // Nobody listens any more when the program stops.
        let _ = notices.send(Notice::Listed).await;
        served.extend(
            self.look(bot.index_relays.iter().filter(|relay| !bot.relays.contains(relay)).collect()).await,
        );
        if enough {
            self.introduce(now).await?;
        }
        self.spread(&served).await?;
        let _ = notices.send(Notice::Introduced).await;
        Ok(enough)
    }

    /// Whether something the bot always says is not stored: its profile, a list, or what no list holds.
    pub(super) async fn is_blank(&self) -> Result<bool, StoreError> {
        let stored = self.stored().await?;
        let any = |is: &dyn Fn(&Event) -> bool| stored.values().any(is);
        let told = any(&|event| event.tags.identifier().is_some_and(|name| name == TOLD_IDENTIFIER));
        let said = any(&|event| event.kind == Kind::Metadata) && told;
        Ok(!any(&|event| LISTS.contains(&event.kind)) || !said)
    }

    async fn settle_lists(&self, now: Timestamp) -> Result<(), CycleError> {
        let _writing = self.writing.lock().await;
        let word = self.word().await?;
        for note in &word.settled.notes {
            tracing::info!("{note}");
        }
        let (settings, told) = (&word.settled.settings, &word.settled.told);
        self.sign(word.drafts(settings, told, &self.keys, now)?).await?;
        Ok(())
    }

    /// What the bot is to do, by what is stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) async fn word(&self) -> Result<OwnWord, StoreError> {
        own_word(&self.config, &self.keys, &self.store).await
    }

    /// Changes what the bot is to do. What was signed for it is stored; the caller publishes it.
    ///
    /// # Errors
    ///
    /// [`OrderError::Unread`] on a blank machine while none of the relays shows what the lists say: what is signed now
    /// would replace them. [`OrderError::Cycle`] when the store fails.
    pub(super) async fn change(
        &self,
        change: impl Fn(&mut Settings),
    ) -> Result<(Settings, Vec<Event>), OrderError> {
        if self.is_blank().await? {
            let mut looked = self.looked.subscribe();
            let waited = timeout(KNOWN, looked.wait_for(|looked| *looked == Looked::Done)).await;
            waited.map_err(|_| OrderError::Unread)?.map_err(|_| OrderError::Unread)?;
        }
        let _writing = self.writing.lock().await;
        let mut signed = Vec::new();
        for _ in 0..TRIES {
            let word = self.word().await?;
            let mut settings = word.settled.settings.clone();
            change(&mut settings);
            let told = Told {
                paused: settings.paused,
                forgotten: settings.watched.forgotten.clone(),
                ..word.settled.told.clone()
            };
            let drafts = word.drafts(&settings, &told, &self.keys, Timestamp::now())?;
            let wanted = drafts.len();
            let taken = self.sign(drafts).await?;
            // Another client may have published a newer list in between.
            let all = taken.len() == wanted;
            signed.extend(taken);
            if all {
                return Ok((settings, signed));
            }
        }
        Err(OrderError::Overtaken)
    }

    /// Publishes `events` on the bot's relays; one that does not take them now gets them after the next cycle.
    /// Whether one took them all.
    pub(super) async fn publish(&self, events: &[Event]) -> bool {
        let sends = self.config.bot.relays.iter().map(|relay| self.send(relay, events.iter()));
        join_all(sends).await.contains(&true)
    }

    /// Reads the bot's own events from `relays`.
    async fn look(&self, relays: BTreeSet<&RelayUrl>) -> Served {
        let mut filters = self.filters();
        // A new machine goes on from it, or takes it back.
        filters.push(monitoring_filter(self.bot()));
        // So that the first answer does not have to wait for it.
        filters.extend(contacts(&self.config.environment.allowed));
        let filters = &filters;
        let looks = relays.into_iter().map(|relay| async move {
            let read = read_into(&self.store, &self.relays, relay, filters.clone());
            let problem = match timeout(LOOK, read).await {
                Ok(Ok(events)) => {
                    return Some((relay.clone(), events.into_iter().map(|event| event.id).collect()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", LOOK.as_secs()),
            };
            tracing::warn!(%relay, problem, "the bot's own events were not read there");
            None
        });
        join_all(looks).await.into_iter().flatten().collect()
    }

    /// Profile, relays, inbox.
    async fn introduce(&self, now: Timestamp) -> Result<(), CycleError> {
        let mut existing: BTreeMap<Kind, Event> = BTreeMap::new();
        for event in self.store.query(Filter::new().kinds(IDENTITY).author(self.bot())).await? {
            existing.entry(event.kind).or_insert(event);
        }
        let bot = &self.config.bot;
        let nip05 = bot.nip05.as_ref().map(ToString::to_string);
        let records = Records::new(self.store.clone(), self.keys.clone());
        let before: Places = records.read(WRITTEN).await?.unwrap_or_default();
        let place = |kind, written, before| identity::places(kind, written, before, existing.get(&kind), now);
        let drafts = [
            identity::profile(&bot.name, nip05.as_deref(), existing.get(&Kind::Metadata), now),
            place(Kind::RelayList, &bot.written.relays, &before.relays),
            place(Kind::InboxRelays, &bot.written.inbox_relays, &before.inbox_relays),
        ];
        self.sign(drafts.into_iter().flatten()).await?;
        records.write(WRITTEN, &bot.written).await?;
        Ok(())
    }

    /// Signs and stores; returns what the store took.
    pub(super) async fn sign(
        &self,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Result<Vec<Event>, CycleError> {
        let mut signed = Vec::new();
        for draft in drafts {
            let event = draft.sign(&self.keys)?;
            if self.store.save(&event).await? {
                signed.push(event);
            }
        }
        Ok(signed)
    }

    /// The bot's own events, as they stand.
    async fn stored(&self) -> Result<BTreeMap<EventId, Event>, StoreError> {
        let mut all = BTreeMap::new();
        for filter in self.filters() {
            all.extend(self.store.query(filter).await?.into_iter().map(|event| (event.id, event)));
        }
        Ok(all)
    }

    /// Sends each relay that could be read what it lacks.
    async fn spread(&self, served: &Served) -> Result<(), CycleError> {
        let all = self.stored().await?;
        let own = &self.config.bot.relays;
        let sends = served.iter().map(|(relay, has)| {
            let lacks = all
                .values()
                .filter(|event| !has.contains(&event.id))
                .filter(|event| own.contains(relay) || IDENTITY.contains(&event.kind));
            self.send(relay, lacks)
        });
        join_all(sends).await;
        Ok(())
    }

    /// Whether the relay took all of `events`.
    async fn send(&self, relay: &RelayUrl, events: impl Iterator<Item = &Event>) -> bool {
        let mut all = true;
        for event in events {
            let kind = event.kind.as_u16();
            match timeout(PATIENCE, self.relays.send(relay, event)).await {
                Ok(Ok(Answer::Taken | Answer::Purgatory)) => tracing::debug!(%relay, kind, "published"),
                Ok(Ok(Answer::Refused(reason))) => {
                    tracing::info!(%relay, kind, reason, "the relay refuses an event of the bot's");
                    all = false;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%relay, kind, %error, "an event of the bot's was not published there");
                    return false;
                }
                Err(_) => {
                    tracing::warn!(%relay, kind, "no answer to an event of the bot's");
                    return false;
                }
            }
        }
        all
    }
}
