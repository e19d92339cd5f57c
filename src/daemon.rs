//! The loop: a cycle at start, one whenever it is time, one whenever somebody changes what is to be mirrored or asks
//! for it, until a signal says stop; between them what is heard of a repository is followed at once. The
//! [bot](crate::bot) hears and answers beside it.

mod follow;
mod shown;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use grasp_mirror_commands::resync::Resync;
use indicatif::ProgressBar;
use nostr::prelude::{EventId, Keys, RelayUrl, Timestamp};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinHandle},
    time::{Instant, interval, sleep_until, timeout},
};

use self::{
    follow::{Follower, Step},
    shown::Shown,
};
use crate::{
    bot::{Bot, Doors, Request, Tidings},
    config::{Config, ConfigError, Places},
    cycle::{self, CycleDone, CycleError, Shared, Signers, Trigger, World},
    http::ListenError,
    key,
    model::{
        coordinate::{Coordinate, npub},
        status::MirrorStatus,
    },
    plan::{record::MirrorRecord, retry, settings::Settings},
    report::{answers, document::RepositoryOutcome},
    store::{Store, StoreError, lock::Lock},
};

/// How long a cycle may take to come to its end after a signal, before it is dropped.
const GRACE: Duration = Duration::from_secs(5);

/// How long a cycle may go on when there is more to mirror than it knows of.
const FINISH: Duration = Duration::from_secs(10);

/// How long a cycle waits for slow servers before it reports and the next one goes on.
const CYCLE_MAX: Duration = Duration::from_secs(900);

/// The service manager hears that all is well at least so often, where it asks for that.
const WATCHDOG_MAX: Duration = Duration::from_secs(30);

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address of the dashboard.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The bot's own events cannot be made, or stored.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// The task that hears and answers has ended by itself.
    #[error(
        "the bot's task has broken; its last log lines say where. Start the daemon again: nothing is lost"
    )]
    Broken,
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Somebody who waits for the end of a cycle.
struct Waiting {
    question: EventId,
    repositories: Option<BTreeSet<Coordinate>>,
    since: Instant,
}

/// Repositories (`None`: all) that somebody wants looked at anew, by who wants that.
type Afresh = Vec<Option<BTreeSet<Coordinate>>>;

/// How a cycle's task ended.
type Ended = Result<Result<(World, CycleDone), CycleError>, JoinError>;

/// A cycle under way.
struct Running {
    /// Hands back what it worked with, unless it failed.
    task: JoinHandle<Result<(World, CycleDone), CycleError>>,
    /// What it was started with.
    settings: Settings,
    waiting: Vec<Waiting>,
    afresh: Afresh,
    since: Instant,
    /// When it is dropped for one that knows more.
    drop_at: Option<Instant>,
}

/// What the loop waits for.
enum Happened {
    /// The cycle came to its end.
    Ended(Box<Ended>),
    /// The cycle has had its time to finish; there is more to mirror than it knows of.
    TimeIsUp,
    /// It is time for a cycle.
    Timer,
    /// What is to be mirrored has changed.
    NewSettings,
    /// Somebody asked for something.
    Asked(Waiting),
    /// The bot is to be met elsewhere.
    Move,
    /// Something about what is followed between cycles.
    Follow(Step),
    /// The operator wants the configuration read again.
    HangUp,
    /// The service manager wants a sign of life.
    Tick,
}

struct Daemon {
    config: Config,
    keys: Keys,
    store: Store,
    doors: Doors,
    running: Option<Running>,
    follower: Follower,
    shown: Shown,
    /// Whose signatures can be had.
    signers: Arc<Signers>,
    /// What cycles and the jobs beside them share.
    shared: Arc<Shared>,
    /// Connections and what was seen, between two cycles with the same configuration.
    world: Option<World>,
    /// A cycle is to begin as soon as none is running.
    due: Option<Trigger>,
    /// Servers that were down and have been heard of since.
    awake: BTreeSet<RelayUrl>,
    next_at: Instant,
    queue: VecDeque<Waiting>,
    /// What cycles that were asked to did not come to.
    afresh: Afresh,
}

/// Runs until `SIGTERM` or `SIGINT`; `reload` reads the configuration again on `SIGHUP`.
///
/// A cycle that fails as a whole is logged, and the next one is tried when it is time. A cycle can be dropped at any
/// moment: pushes are all or nothing on the servers, packs come in whole or not at all, and records are written by
/// the database at once.
///
/// # Errors
///
/// [`DaemonError`] when it cannot start.
pub async fn run(
    mut config: Config,
    keys: &Keys,
    reload: impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), DaemonError> {
    let _lock = Lock::take(&config.bot.data_dir)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let store = Store::open(&config.bot.data_dir).await?;
    tracing::info!(bot = npub(&keys.public_key()), pid = std::process::id(), "starting");
    config.bot.meet_at(cycle::met_at(&config.bot.written, keys, &store).await?);
    let shown = Shown::open(&config, keys, &store).await?;
    let shared: Arc<Shared> = Arc::default();
    let (bot, doors) = tokio::select! {
        started = Bot::start(&config, keys, &store, shared.learned()) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut bot = tokio::spawn(bot.run());
    let signers = Arc::new(Signers::new(&config, keys, &store, shared.learned()));
    let mut daemon = Daemon {
        follower: Follower::new(&config, keys, &store, &signers, &shared)?,
        signers,
        shared,
        shown,
        config,
        keys: keys.clone(),
        store,
        doors,
        running: None,
        world: None,
        due: Some(Trigger::Start),
        awake: BTreeSet::new(),
        next_at: Instant::now(),
        queue: VecDeque::new(),
        afresh: Afresh::new(),
    };
    let watchdog = sd_notify::watchdog_enabled();
    let watched = watchdog.is_some();
    let mut watchdog = interval(watchdog.map_or(WATCHDOG_MAX, |period| period / 2));
    daemon.begin_if_due().await;
    notify(&[NotifyState::Ready]);
    tracing::info!(bot = npub(&keys.public_key()), "ready");
    let mut ended = Ok(());
    loop {
        let happened = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => Happened::HangUp,
            _ = &mut bot => {
                ended = Err(DaemonError::Broken);
                break;
            }
            _ = watchdog.tick(), if watched => Happened::Tick,
            happened = daemon.next() => happened,
        };
        match happened {
            Happened::Ended(result) => daemon.end_cycle(*result).await,
            Happened::TimeIsUp => daemon.drop_cycle().await,
            Happened::Timer => daemon.be_on_time(),
            Happened::Follow(step) => daemon.follow(step).await,
            Happened::NewSettings => daemon.follow_settings().await,
            Happened::Asked(waiting) => daemon.queue.push_back(waiting),
            Happened::Move => daemon.move_on().await,
            Happened::HangUp => daemon.reload(&reload).await,
            Happened::Tick => notify(&[NotifyState::Watchdog]),
        }
        daemon.begin_if_due().await;
    }
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    // What is on its way is in the journal.
    bot.abort();
    if let Some(mut running) = daemon.running.take()
        && timeout(GRACE, &mut running.task).await.is_err()
    {
        running.task.abort();
        let _ = running.task.await;
    }
    ended
}

/// Tells the service manager, if there is one (`sd_notify`).
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// What was to be looked at anew, and waits its turn still.
fn still_wanted(afresh: &Afresh, outcomes: &[RepositoryOutcome]) -> Afresh {
    let is_wanted =
        |one: &Coordinate| afresh.iter().any(|some| some.as_ref().is_none_or(|some| some.contains(one)));
    let waits = outcomes.iter().filter(|one| one.mirrors.values().any(MirrorRecord::waits_its_turn));
    let waits = waits.map(|one| &one.coordinate).filter(|one| is_wanted(one));
    let waits: BTreeSet<Coordinate> = waits.cloned().collect();
    if waits.is_empty() { Afresh::new() } else { vec![Some(waits)] }
}

impl Daemon {
    /// Waits for the next thing to happen. Nothing is lost when it is dropped while it waits.
    async fn next(&mut self) -> Happened {
        let (task, drop_at) = match &mut self.running {
            Some(running) => (Some(&mut running.task), running.drop_at),
            None => (None, None),
        };
        let idle = task.is_none();
        let ended = async {
            match task {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = ended => Happened::Ended(Box::new(result)),
            () = sleep_until(drop_at.unwrap_or(self.next_at)), if drop_at.is_some() => Happened::TimeIsUp,
            () = sleep_until(self.next_at), if idle => Happened::Timer,
            Ok(()) = self.doors.settings.changed() => Happened::NewSettings,
            step = self.follower.next() => Happened::Follow(step),
            Some(request) = self.doors.requests.recv() => match request {
                Request::Resync { question, repositories } => {
                    Happened::Asked(Waiting { question, repositories, since: Instant::now() })
                }
                Request::Move => Happened::Move,
            }
        }
    }

    fn be_on_time(&mut self) {
        self.next_at = Instant::now() + self.config.bot.cycle_interval;
        self.due.get_or_insert(Trigger::Timer);
    }

    /// Starts a cycle when one is due, none is running, and writing is not paused.
    async fn begin_if_due(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(settings) = self.doors.settings.borrow().clone() else { return };
        self.shown.settled(settings.paused);
        if settings.paused {
            self.due = None;
            let waiting: Vec<Waiting> = self.queue.drain(..).collect();
            self.afresh.clear();
            self.fail(waiting, "I was told to pause").await;
            return;
        }
        if !self.queue.is_empty() {
            self.due = Some(Trigger::Command);
        }
        let Some(trigger) = self.due.take() else { return };
        self.next_at = Instant::now() + self.config.bot.cycle_interval;
        let waiting: Vec<Waiting> = self.queue.drain(..).collect();
        let mut afresh = std::mem::take(&mut self.afresh);
        afresh.extend(waiting.iter().map(|one| one.repositories.clone()));
        let (config, keys, store) = (self.config.clone(), self.keys.clone(), self.store.clone());
        let anew = afresh.clone();
        let (mine, silent) = (settings.clone(), self.doors.silent.borrow().clone());
        let next_at = Timestamp::from_secs(Timestamp::now().as_secs() + config.bot.cycle_interval.as_secs());
        let (world, awake) = (self.world.take(), std::mem::take(&mut self.awake));
        let (signers, shared) = (Arc::clone(&self.signers), Arc::clone(&self.shared));
        let task = tokio::spawn(async move {
            let new = || World::beside(&config, &keys, &store, &signers, &shared);
            let mut world = world.map_or_else(new, Ok)?;
            world.obey(mine);
            world.be_patient(awake);
            world.look_anew_at(anew);
            world.end_after(CYCLE_MAX.min(config.bot.cycle_interval));
            world.mention_silent(silent);
            let done = Box::pin(world.run(trigger, Some(next_at), &ProgressBar::hidden())).await?;
            Ok((world, done))
        });
        self.doors.busy.send_replace(true);
        self.shown.begin(trigger);
        self.running =
            Some(Running { task, settings, waiting, afresh, since: Instant::now(), drop_at: None });
    }

    async fn end_cycle(&mut self, result: Ended) {
        let Some(running) = self.running.take() else { return };
        self.doors.busy.send_replace(false);
        if running.drop_at.is_some() {
            self.due = Some(Trigger::Command);
        }
        let problem = match result {
            Ok(Ok((world, done))) => {
                // One that is to be followed by another may know an old configuration.
                self.world = Some(world).filter(|_| running.drop_at.is_none());
                tracing::info!(
                    cycle = done.report.cycle.number,
                    in_sync = done.report.totals.in_sync,
                    mirrors = done.report.totals.mirrors,
                    unfinished = done.unfinished,
                    elapsed_ms = running.since.elapsed().as_millis(),
                    "cycle done"
                );
                let done = self.follower.know(done, &running.settings.watched.authors);
                self.shown.end(&done, running.since.elapsed());
                if done.unfinished {
                    self.due.get_or_insert(Trigger::Timer);
                }
                self.afresh = still_wanted(&running.afresh, &done.outcomes);
                for one in &running.waiting {
                    let about = done.outcomes.iter().filter(|outcome| {
                        one.repositories.as_ref().is_none_or(|some| some.contains(&outcome.coordinate))
                    });
                    let outcome = answers::resynced(about, one.since.elapsed());
                    self.tell(Tidings::Resynced { question: one.question, outcome }).await;
                }
                self.hurry_for_servers(&done);
                self.tell(Tidings::Cycle(Box::new(done))).await;
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("it broke: {error}"),
        };
        tracing::error!(problem, "the cycle failed; the next one is tried when it is time");
        self.shown.fail(&problem);
        self.fail(running.waiting, &problem).await;
    }

    async fn follow(&mut self, step: Step) {
        let settings = self.doors.settings.borrow().clone();
        match step {
            Step::Heard => {}
            Step::Due => self.follower.begin(&self.config, &self.keys, &self.store, &self.signers, settings),
            Step::Ended(result) => self.follower.end(*result),
            Step::Walked(outcomes) => {
                if let Some(done) = self.follower.take_in(outcomes, settings.as_ref()) {
                    self.shown.follow(&done);
                    self.hurry_for_servers(&done);
                    self.tell(Tidings::Followed(Box::new(done))).await;
                }
            }
            Step::Report => self.follower.report(),
            Step::Retry => self.follower.retry(),
            // A whole cycle: also what was announced is taken down.
            Step::Everything => self.begin_anew(),
            // It is up again before its next try.
            Step::CaughtUp(relay) => {
                if self.follower.waits_for(&relay) {
                    self.awake.insert(relay);
                    self.due.get_or_insert(Trigger::Timer);
                }
            }
        }
    }

    /// The next cycle begins when the first server that is down is tried again, if that is earlier.
    fn hurry_for_servers(&mut self, done: &CycleDone) {
        let mirrors = done.outcomes.iter().flat_map(|outcome| outcome.mirrors.values());
        let down = mirrors.filter(|mirror| mirror.status == MirrorStatus::Unreachable);
        let Some(due) = retry::next_due(down) else { return };
        let wait = due.as_secs().saturating_sub(Timestamp::now().as_secs());
        self.next_at = self.next_at.min(Instant::now() + Duration::from_secs(wait.max(1)));
    }

    async fn fail(&self, waiting: Vec<Waiting>, reason: &str) {
        for one in waiting {
            let outcome = Resync::Failed { reason: reason.to_owned() };
            self.tell(Tidings::Resynced { question: one.question, outcome }).await;
        }
    }

    async fn tell(&self, tidings: Tidings) {
        // The bot's task has ended only when something is very wrong, and that is seen elsewhere.
        let _ = self.doors.tidings.send(tidings).await;
    }

    /// Drops the running cycle; who waits for it waits for the next one.
    async fn drop_cycle(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.task.abort();
        let _ = running.task.await;
        self.doors.busy.send_replace(false);
        self.shown.drop_cycle();
        tracing::info!("the cycle was dropped for one that knows more");
        self.queue.extend(running.waiting);
        self.afresh = running.afresh;
        self.due = Some(Trigger::Command);
    }

    /// What is to be mirrored has changed.
    async fn follow_settings(&mut self) {
        let Some(settings) = self.doors.settings.borrow_and_update().clone() else { return };
        self.follower.heed(&settings);
        self.shown.settled(settings.paused);
        match &self.running {
            _ if settings.paused => self.drop_cycle().await,
            Some(running) if running.settings.loses_by(&settings) => self.drop_cycle().await,
            Some(running) if settings == running.settings => {}
            _ => self.begin_anew(),
        }
    }

    /// A cycle that knows what has changed, soon: a running one gets some time to come to its end.
    fn begin_anew(&mut self) {
        match &mut self.running {
            Some(running) => {
                running.drop_at.get_or_insert(Instant::now() + FINISH);
            }
            None => self.due = Some(Trigger::Command),
        }
    }

    /// Reads the configuration again; a bad one is reported, and the old one stays.
    async fn reload(&mut self, reload: impl Fn() -> Result<Config, ConfigError>) {
        let monotonic = NotifyState::monotonic_usec_now();
        notify(&[NotifyState::Reloading].into_iter().chain(monotonic.ok()).collect::<Vec<_>>());
        match reload() {
            Ok(mut config) => {
                if let Some(places) = self.met_at(&config).await {
                    config.bot.meet_at(places);
                }
                self.take_over(config, "the configuration was read again").await;
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not read again; the old one stays");
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Where the bot is met, by `config` and its own lists; `None` when these cannot be read.
    async fn met_at(&self, config: &Config) -> Option<Places> {
        let places = cycle::met_at(&config.bot.written, &self.keys, &self.store).await;
        places
            .inspect_err(|error| tracing::error!(%error, "the bot's own lists of relays were not read"))
            .ok()
    }

    /// The bot's own lists name other relays.
    async fn move_on(&mut self) {
        let Some(places) = self.met_at(&self.config).await else { return };
        if !self.config.bot.is_met_at(&places) {
            let mut config = self.config.clone();
            config.bot.meet_at(places);
            self.take_over(config, "the bot's own lists name other relays now").await;
        }
    }

    async fn take_over(&mut self, mut config: Config, why: &str) {
        if config.bot.data_dir != self.config.bot.data_dir {
            tracing::error!("bot.data_dir changes with a restart only; the old one stays");
            config.bot.data_dir.clone_from(&self.config.bot.data_dir);
        }
        if config.http.listen != self.config.http.listen {
            tracing::error!("http.listen changes with a restart only; the old one stays");
            config.http.listen = self.config.http.listen;
        }
        match key::find(&config.environment.key, &config.bot.data_dir) {
            Ok(Some(bot)) if bot.keys.public_key() == self.keys.public_key() => {}
            Ok(_) => tracing::error!("the bot's key changes with a restart only; the old one stays"),
            Err(error) => tracing::error!(%error, "the bot's key was not read again; the old one stays"),
        }
        tracing::info!("{why}");
        if config.bot.cycle_interval != self.config.bot.cycle_interval {
            self.next_at = self.next_at.min(Instant::now() + config.bot.cycle_interval);
        }
        let signers = Arc::new(Signers::new(&config, &self.keys, &self.store, self.shared.learned()));
        match Follower::new(&config, &self.keys, &self.store, &signers, &self.shared) {
            Ok(follower) => {
                self.follower = follower;
                if let Some(settings) = &*self.doors.settings.borrow() {
                    self.follower.heed(settings);
                }
            }
            Err(error) => {
                tracing::error!(%error, "nobody can be listened to with the new configuration; the old one stays");
                return;
            }
        }
        self.signers = signers;
        self.config = config.clone();
        self.shown.reconfigure(&config);
        self.world = None;
        self.tell(Tidings::Config(Box::new(config))).await;
        self.begin_anew();
    }
}
