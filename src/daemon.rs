//! The loop: a cycle at start, one whenever it is time, one whenever somebody changes what is to be mirrored or asks
//! for it, until a signal says stop; between them what is heard of a repository is followed at once. The
//! [bot](crate::bot) hears and answers beside it.

mod cycles;
mod follow;
mod reload;
mod shown;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use nostr::prelude::{Keys, RelayUrl};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, interval, sleep_until, timeout},
};

use self::{
    cycles::{Afresh, Ended, Running, Waiting},
    follow::{Follower, Step},
    shown::Shown,
};
use crate::{
    bot::{Bot, Doors, Request, Tidings},
    config::{Config, ConfigError},
    cycle::{self, CycleError, Shared, Signers, Trigger, World},
    http::ListenError,
    model::coordinate::npub,
    store::{Store, StoreError, lock::Lock},
};

/// How long a cycle may take to come to its end after a signal, before it is dropped.
const GRACE: Duration = Duration::from_secs(5);

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

/// What the loop waits for.
enum Happened {
    /// The cycle came to its end.
    Ended(Box<Ended>),
    /// The local copies are in order.
    InOrder,
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
    /// The local copies are put in order, after a cycle.
    keeping: Option<JoinHandle<()>>,
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
        keeping: None,
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
            Happened::InOrder => daemon.keeping = None,
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
        let keeping = &mut self.keeping;
        let in_order = async {
            match keeping {
                // What it could not do is in the log.
                Some(keeping) => drop(keeping.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = ended => Happened::Ended(Box::new(result)),
            () = in_order => Happened::InOrder,
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

    async fn tell(&self, tidings: Tidings) {
        // The bot's task has ended only when something is very wrong, and that is seen elsewhere.
        let _ = self.doors.tidings.send(tidings).await;
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
}
