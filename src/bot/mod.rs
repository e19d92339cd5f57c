//! The bot as a Nostr citizen: who it is, what it is told, what it answers.
//!
//! [`Bot`] is one task. It hears what the `inbox` opens, journals commands and carries them out one after the other
//! (`orders`), hands answers to the `post`, and keeps the bot's `own` events said. What is to be mirrored goes to the
//! daemon's loop through [`Doors`], and what became of it comes back as [`Tidings`]. Nothing in the task waits for a
//! relay, except for a moment where the answer depends on it.

mod alerts;
mod doors;
mod forget;
mod inbox;
mod journal;
mod orders;
mod own;
mod post;
mod rules;
mod self_test;
mod signatures;

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::prelude::{EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{interval, timeout},
};

pub use self::doors::{Doors, Request, Tidings};
use self::{
    alerts::Alerts,
    doors::{Loop, doors},
    inbox::{Arrival, Audience, Inbox, interest},
    orders::OrderError,
    own::{Looked, Own},
    post::{Post, Sent},
    self_test::SelfTest,
};
use crate::{
    config::Config,
    cycle::{self, CycleDone, CycleError},
    plan::{
        journal::{Entry, Letter},
        settings::Settings,
    },
    relay::{Learned, follow::Ears},
    report::line,
    store::{Store, records::Records},
    transfer::guard::Guard,
};

/// Messages of one person that are no commands and are answered all the same, in a minute. Two programs that answer
/// each other would never stop.
const NOT_UNDERSTOOD: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// How long the start may wait for relays before the first cycle begins.
const START: Duration = Duration::from_secs(8);

/// Events and messages on their way between tasks.
const QUEUE: usize = 1_024;

/// What a task of the bot's own found out.
enum Notice {
    /// What relays have of the bot's lists has been read.
    Listed,
    /// Its own events are where they belong.
    Introduced,
    /// What this command changed was not published anywhere.
    Unpublished(String),
    /// What came of a pairing with a remote signer, for people.
    Paired(String),
}

/// The bot; see the module.
pub struct Bot {
    own: Own,
    records: Records,
    guard: Guard,
    started_at: Timestamp,
    allowed: watch::Sender<BTreeSet<PublicKey>>,
    /// Who may ask for one thing only: that what they maintain is left alone.
    maintainers: watch::Sender<Arc<BTreeSet<PublicKey>>>,
    maintainers_of: forget::Known,
    /// Whether this machine has not seen a cycle of this bot's: who maintains what is not known.
    new_here: bool,
    daemon: Loop,
    entries: HashMap<EventId, Entry>,
    /// Questions of earlier runs to go on with, the oldest first.
    unfinished: Vec<EventId>,
    alerts: Alerts,
    ears: Ears,
    followed: JoinSet<()>,
    arrivals: mpsc::Receiver<Arrival>,
    /// The inbox, letters on their way, events being published: ends with the bot.
    tasks: JoinSet<()>,
    looking_after: AbortHandle,
    /// Waits for a remote signer that was shown an address.
    pairing: Option<AbortHandle>,
    slots: Arc<Semaphore>,
    not_understood: DefaultKeyedRateLimiter<PublicKey>,
    sent: (mpsc::Sender<Sent>, mpsc::Receiver<Sent>),
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    self_test: SelfTest,
}

impl Bot {
    /// Says who the bot is, opens the inbox and reads the bot's lists. Relays that do not answer are waited for
    /// for a short while only.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub async fn start(
        config: &Config,
        keys: &Keys,
        store: &Store,
        learned: &Arc<Learned>,
    ) -> Result<(Self, Doors), CycleError> {
        let guard = cycle::guard(config);
        let own = Own::new(config, &guard, keys, store, learned);
        let records = Records::new(store.clone(), keys.clone());
        let new_here = own.is_blank().await?;
        if !new_here {
            own.looked.send_replace(Looked::Done);
        }
        let mut tasks = JoinSet::new();
        let (noticing, mut notices) = mpsc::channel(QUEUE);
        let looking_after = tasks.spawn(own.clone().look_after(noticing.clone()));
        let introduced = async { while !matches!(notices.recv().await, Some(Notice::Introduced) | None) {} };
        if timeout(START, introduced).await.is_err() {
            tracing::warn!(
                "the bot's relays are slow; what they have of its profile and lists counts as soon as it is read"
            );
        }
        let allowed = allowed_in(config, keys.public_key());
        if allowed.is_empty() {
            tracing::warn!("nobody may command the bot: MIRROR_ALLOWED_NPUBS is empty");
        }
        if !allowed.is_empty() && config.bot.inbox_relays.is_empty() && config.bot.relays.is_empty() {
            tracing::warn!("no message can reach the bot: bot.inbox_relays is empty, and so is bot.relays");
        }
        let (allowed, _) = watch::channel(allowed);
        let (daemon, doors) = doors(QUEUE);
        let (live, hearing) = mpsc::channel(QUEUE);
        let (stored, reading) = mpsc::channel(QUEUE);
        let (arriving, arrivals) = mpsc::channel(QUEUE);
        let needed = config.bot.inbox_relays.iter().filter(|_| new_here).cloned().collect();
        let maintainers = watch::Sender::new(Arc::default());
        let heard = Audience { allowed: allowed.subscribe(), maintainers: maintainers.subscribe() };
        let inbox = Inbox::new(keys, store, heard, arriving, relays_of(config), needed);
        let entries = journal::load(&records).await?;
        let ears = Ears { live, stored, known: inbox.known() };
        let mut bot = Self {
            alerts: Alerts::load(&records).await?,
            own,
            records,
            guard,
            started_at: Timestamp::now(),
            allowed,
            maintainers,
            maintainers_of: forget::Known::default(),
            new_here,
            daemon,
            unfinished: entries.iter().filter(|entry| !entry.is_done()).map(|entry| entry.id).collect(),
            entries: entries.into_iter().map(|entry| (entry.id, entry)).collect(),
            ears,
            followed: JoinSet::new(),
            arrivals,
            tasks,
            looking_after,
            pairing: None,
            slots: Post::slots(),
            not_understood: RateLimiter::keyed(Quota::per_minute(NOT_UNDERSTOOD)),
            sent: mpsc::channel(QUEUE),
            notices: (noticing, notices),
            self_test: SelfTest::default(),
        };
        bot.obey_own_word().await?;
        bot.know_maintainers().await?;
        bot.tasks.spawn(inbox.run(hearing, reading));
        bot.follow();
        bot.resume_pairing();
        Ok((bot, doors))
    }

    /// Listens to the relays of the configuration, and to no others.
    fn follow(&mut self) {
        self.followed = JoinSet::new();
        for relay in relays_of(&self.own.config) {
            let (relays, ears) = (Arc::clone(&self.own.relays), self.ears.clone());
            let (bot, allowed) = (self.own.keys.public_key(), self.allowed.subscribe());
            self.followed.spawn(async move {
                let interest = || interest(bot, &allowed.borrow(), Timestamp::now());
                relays.follow(&relay, interest, ears).await;
            });
        }
    }

    /// Works until the daemon's loop ends.
    pub async fn run(mut self) {
        let mut minute = interval(Duration::from_secs(60));
        loop {
            let tested = SelfTest::over(self.self_test.until());
            let done = tokio::select! {
                arrival = self.arrivals.recv() => match arrival {
                    Some(arrival) => self.hear(arrival).await,
                    None => return,
                },
                Some(notice) = self.notices.1.recv() => self.notice(notice).await,
                Some(sent) = self.sent.1.recv() => self.strike_off(&sent).await,
                tidings = self.daemon.tidings.recv() => match tidings {
                    Some(tidings) => self.take(tidings).await,
                    None => return,
                },
                () = tested => {
                    self.end_self_test();
                    self.send_alerts().await
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        tracing::error!(%error, "a task of the bot's has broken");
                    }
                    Ok(())
                }
                Some(ended) = self.followed.join_next() => {
                    tracing::error!(?ended, "a relay was not listened to any more; listening again");
                    self.follow();
                    Ok(())
                }
                _ = minute.tick() => self.tidy().await,
            };
            if let Err(error) = done {
                tracing::error!(%error, "the store failed; I carry on");
            }
        }
    }

    async fn hear(&mut self, arrival: Arrival) -> Result<(), CycleError> {
        match arrival {
            Arrival::Question { question, event, relay } => {
                self.receive(question, *event, relay).await?;
            }
            Arrival::Answered { question, at } => self.note_answered(question, at).await?,
            Arrival::Delivered { relay, id } => {
                self.self_test.came_back(id);
                self.daemon.silent.send_if_modified(|silent| silent.remove(&relay));
            }
            Arrival::OwnWord => self.obey_own_word().await?,
            Arrival::Ready => {
                self.begin_self_test();
                self.resume_alerts();
                self.resume_journal().await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, tidings: Tidings) -> Result<(), CycleError> {
        match tidings {
            Tidings::Cycle(done) => {
                self.know_maintainers().await?;
                if std::mem::take(&mut self.new_here) {
                    // What they said before is not known to be theirs.
                    self.ears.known.forget();
                    self.follow();
                }
                self.say_how_it_stands(&done).await?;
                self.alerts.compare(&done);
                self.note_signatures(&done).await?;
                self.send_alerts().await?;
                self.settle();
            }
            Tidings::Followed(done) => {
                self.say_how_it_stands(&done).await?;
                self.alerts.compare(&done);
                self.note_signatures(&done).await?;
                self.send_alerts().await?;
            }
            Tidings::Resynced { question, outcome } => self.finish_resync(question, outcome).await?,
            Tidings::Config(config) => self.reconfigure(*config).await?,
        }
        Ok(())
    }

    /// The one line that everyone sees (NIP-38).
    async fn say_how_it_stands(&mut self, done: &CycleDone) -> Result<(), CycleError> {
        let bot = self.own.keys.public_key();
        let filter = Filter::new().kind(Kind::UserStatus).author(bot).identifier("general");
        let before = self.own.store.query(filter).await?.into_iter().next();
        let interval = self.own.config.bot.cycle_interval;
        let draft = line::status_line(&done.report, interval, Timestamp::now());
        let Some(draft) = draft.unless_said(before.as_ref()) else { return Ok(()) };
        let signed = self.own.sign([draft]).await?;
        let own = self.own.clone();
        self.tasks.spawn(async move {
            own.publish(&signed).await;
        });
        Ok(())
    }

    async fn reconfigure(&mut self, config: Config) -> Result<(), CycleError> {
        self.guard.trust(cycle::own_addresses(&config));
        let before = relays_of(&self.own.config);
        self.own.config = Arc::new(config);
        for gone in before.difference(&relays_of(&self.own.config)) {
            self.own.relays.leave(gone).await;
        }
        let allowed = allowed_in(&self.own.config, self.own.keys.public_key());
        self.allowed.send_if_modified(|now| std::mem::replace(now, allowed.clone()) != allowed);
        self.follow();
        self.settle();
        self.begin_self_test();
        cycle::warn_of_contradictions(&self.own.config, &self.settings());
        self.obey_own_word().await
    }

    /// Reads and publishes the bot's own events beside everything else: some relay may be slow.
    fn settle(&mut self) {
        // One at a time: an older one may know an older configuration.
        self.looking_after.abort();
        self.looking_after = self.tasks.spawn(self.own.clone().look_after(self.notices.0.clone()));
    }

    /// Does what the bot's newest lists say.
    async fn obey_own_word(&mut self) -> Result<(), CycleError> {
        if *self.own.looked.borrow() == Looked::NotYet && self.own.is_blank().await? {
            return Ok(());
        }
        let bot = &self.own.config.bot;
        let places = cycle::met_at(&bot.written, &self.own.keys, &self.own.store).await?;
        if !bot.is_met_at(&places) {
            // Many who wait there make it no later.
            let _ = self.daemon.requests.try_send(Request::Move);
        }
        let settings = self.own.word().await?.settled.settings;
        self.daemon.settings.send_if_modified(|now| {
            let new = now.as_ref() != Some(&settings);
            if new {
                tracing::info!(
                    authors = settings.watched.authors.len(),
                    repositories = settings.watched.repositories.len(),
                    servers = settings.servers.len(),
                    paused = settings.paused,
                    denied = settings.said.deny.iter().count(),
                    "this is what I mirror from now on"
                );
                if settings.watched.is_empty() {
                    tracing::warn!("nobody is watched: set MIRROR_NPUBS, or send the bot: watch <npub>");
                }
                cycle::warn_of_contradictions(&self.own.config, &settings);
                *now = Some(settings);
            }
            new
        });
        Ok(())
    }

    /// Changes what the bot is to do as `command` says, and publishes it.
    async fn change(&mut self, command: String, change: impl Fn(&mut Settings)) -> Result<(), OrderError> {
        let (settings, signed) = self.own.change(change).await?;
        self.daemon.settings.send_replace(Some(settings));
        let (own, notices) = (self.own.clone(), self.notices.0.clone());
        self.tasks.spawn(async move {
            if !own.publish(&signed).await {
                // Nobody listens any more when the program stops.
                let _ = notices.send(Notice::Unpublished(command)).await;
            }
        });
        Ok(())
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), CycleError> {
        match notice {
            Notice::Listed | Notice::Introduced => self.obey_own_word().await,
            Notice::Unpublished(command) => {
                let reason = "none of my relays took the changed list; I try again after each check";
                self.alerts.note_failed(command, reason.to_owned());
                self.send_alerts().await
            }
            Notice::Paired(text) => {
                self.alerts.note_signer(text);
                self.send_alerts().await
            }
        }
    }

    /// Hands `letter` to the post.
    fn deliver(&mut self, question: Option<EventId>, asked_on: Option<RelayUrl>, letter: Letter) {
        let config = &self.own.config.bot;
        let look_up = config.relays.iter().chain(&config.index_relays).cloned().collect();
        let post = Post {
            relays: Arc::clone(&self.own.relays),
            store: self.own.store.clone(),
            look_up,
            answer_where_asked: config.answer_where_asked,
            slots: Arc::clone(&self.slots),
            sent: self.sent.0.clone(),
        };
        self.tasks.spawn(post.deliver(question, asked_on, letter));
    }

    async fn tidy(&mut self) -> Result<(), CycleError> {
        self.forget().await?;
        self.send_alerts().await
    }
}

/// Who may command the bot.
fn allowed_in(config: &Config, bot: PublicKey) -> BTreeSet<PublicKey> {
    // It would answer its own answers.
    config.environment.allowed.iter().copied().filter(|key| *key != bot).collect()
}

/// Where the bot listens.
fn relays_of(config: &Config) -> BTreeSet<RelayUrl> {
    config.bot.relays.iter().chain(&config.bot.inbox_relays).cloned().collect()
}
