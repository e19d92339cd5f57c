//! The part of the loop that follows what is heard between cycles: a burst is one job, and what is heard meanwhile is
//! the next one.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use nostr::prelude::{Keys, PublicKey, RelayUrl, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    config::Config,
    cycle::{
        self, CycleDone, CycleError, Shared, Signers, Turn, Turns, World,
        live::{Listening, Live, Noticed},
    },
    model::status::MirrorStatus,
    plan::{record::MirrorRecord, retry, settings::Settings},
    report::document::RepositoryOutcome,
    store::Store,
    transfer::guard::Guard,
};

/// How long after the first event of a burst the job begins. What comes later is the next job's, with all that comes
/// while this one works.
const COALESCE: Duration = Duration::from_millis(10);

/// The report of what was followed goes to relays so often at most; a cycle's always does.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Between two jobs that try failed mirrors again.
const BETWEEN_RETRIES: Duration = Duration::from_secs(5);

/// Repositories tried again in one job.
const RETRIES: usize = 50;

/// Families on their way.
const QUEUE: usize = 256;

/// Jobs at the same time.
const JOBS: usize = 4;

/// A job that takes longer waits for a slow server, and the others are not to wait for it.
const LONG: Duration = Duration::from_secs(3);

/// Jobs at the same time, with those that take long: each has connections of its own.
const JOBS_MAX: usize = 12;

/// Sets of connections kept for the next job.
const IDLE: usize = 2;

/// What a task hands back: what it worked with.
type Ended = Result<(Id, Result<World, CycleError>), JoinError>;

/// What the follower waits for.
pub(super) enum Step {
    /// Something was heard, or nobody else is at a family any more; nothing to do yet.
    Heard,
    /// It is time to begin a job.
    Due,
    /// This became of repositories.
    Walked(Vec<RepositoryOutcome>),
    /// A job or the writing of a report came to its end.
    Ended(Box<Ended>),
    /// The report is to go to the relays.
    Report,
    /// Mirrors that failed are to be tried again, or a hold is over.
    Retry,
    /// What to mirror, or where to, may have changed.
    Everything,
    /// A relay or server is listened to (again).
    CaughtUp(RelayUrl),
}

/// A job under way.
struct Job {
    families: BTreeSet<String>,
    settings: Settings,
    task: AbortHandle,
    begun: Instant,
}

pub(super) struct Follower {
    /// Decides where [`Live`] listens.
    guard: Guard,
    shared: Arc<Shared>,
    /// Connections of its own that nobody uses now.
    idle: Vec<World>,
    /// Families that wait until nobody else is at them.
    waiting: FuturesUnordered<BoxFuture<'static, (String, Turn)>>,
    waiting_for: BTreeSet<String>,
    /// Families for the next job.
    ready: Turns,
    due_at: Option<Instant>,
    jobs: HashMap<Id, Job>,
    /// What was last heeded.
    heeded: Settings,
    tasks: JoinSet<Result<World, CycleError>>,
    /// The task that writes the report.
    writing: Option<Id>,
    told: (mpsc::Sender<RepositoryOutcome>, mpsc::Receiver<RepositoryOutcome>),
    touched: mpsc::Receiver<Noticed>,
    listening: watch::Sender<Listening>,
    ear: JoinHandle<()>,
    /// What is known of everything: the last cycle, and what was followed since.
    known: Option<CycleDone>,
    /// Whether it is to be written down.
    unwritten: bool,
    report_at: Option<Instant>,
    reported: Instant,
    /// When the next mirror that failed is tried again, or a hold is over.
    retry_at: Option<Instant>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ear.abort();
    }
}

impl Follower {
    /// Listens to nothing before the first cycle has ended.
    ///
    /// # Errors
    ///
    /// [`CycleError::Client`] when no HTTP client can be made.
    pub(super) fn new(
        config: &Config,
        keys: &Keys,
        store: &Store,
        signers: &Signers,
        shared: &Arc<Shared>,
    ) -> Result<Self, CycleError> {
        let (touching, touched) = mpsc::channel(QUEUE);
        signers.tell(touching.clone());
        let (listening, heard) = watch::channel(Listening::default());
        let guard = cycle::guard(config);
        let live = Live::new(config, &guard, keys, store, shared, heard, touching)?;
        Ok(Self {
            guard,
            shared: Arc::clone(shared),
            idle: Vec::new(),
            waiting: FuturesUnordered::new(),
            waiting_for: BTreeSet::new(),
            ready: Turns::new(),
            due_at: None,
            jobs: HashMap::new(),
            heeded: Settings::default(),
            tasks: JoinSet::new(),
            writing: None,
            told: mpsc::channel(QUEUE),
            touched,
            listening,
            ear: tokio::spawn(live.run()),
            known: None,
            unwritten: false,
            report_at: None,
            reported: Instant::now(),
            retry_at: None,
        })
    }

    /// Waits for the next thing to happen. Nothing is lost when it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Step {
        let room_at = self.room_at();
        let has_room = room_at.is_some_and(|at| at <= Instant::now());
        let is_written = self.writing.is_none();
        let at = |time: Option<Instant>| sleep_until(time.unwrap_or_else(Instant::now));
        tokio::select! {
            Some(noticed) = self.touched.recv() => match noticed {
                Noticed::Families(families) => {
                    self.hear(families);
                    Step::Heard
                }
                Noticed::Everything => Step::Everything,
                Noticed::CaughtUp(relay) => Step::CaughtUp(relay),
            },
            Some((family, turn)) = self.waiting.next() => {
                self.waiting_for.remove(&family);
                self.ready.insert(family, turn);
                self.due_at.get_or_insert_with(|| Instant::now() + COALESCE);
                Step::Heard
            }
            Some(outcome) = self.told.1.recv() => Step::Walked(self.all_told(outcome)),
            Some(result) = self.tasks.join_next_with_id() => Step::Ended(Box::new(result)),
            () = at(room_at), if !has_room && room_at.is_some() => Step::Heard,
            () = at(self.due_at), if has_room && self.due_at.is_some() => Step::Due,
            () = at(self.report_at), if is_written && self.report_at.is_some() => Step::Report,
            () = at(self.retry_at), if has_room && self.retry_at.is_some() => Step::Retry,
        }
    }

    /// When there is room for a job more; `None` before one ends.
    fn room_at(&self) -> Option<Instant> {
        if self.jobs.len() >= JOBS_MAX {
            return None;
        }
        // Each that takes long leaves its place to another one.
        let mut long_from: Vec<Instant> = self.jobs.values().map(|job| job.begun + LONG).collect();
        long_from.sort_unstable_by(|a, b| b.cmp(a));
        Some(long_from.get(JOBS - 1).copied().unwrap_or_else(Instant::now))
    }

    fn all_told(&mut self, first: RepositoryOutcome) -> Vec<RepositoryOutcome> {
        let more = std::iter::from_fn(|| self.told.1.try_recv().ok()).take(QUEUE);
        std::iter::once(first).chain(more).collect()
    }

    /// Has these families walked as soon as nobody else is at them.
    fn hear(&mut self, families: impl IntoIterator<Item = String>) {
        for family in families {
            // Whoever begins with it reads what is stored by then.
            if !self.ready.contains_key(&family) && self.waiting_for.insert(family.clone()) {
                let shared = Arc::clone(&self.shared);
                self.waiting.push(Box::pin(async move {
                    let turn = shared.turn(&family).await;
                    (family, turn)
                }));
            }
        }
    }

    /// Begins a job for all that was heard, unless the bot is to write nothing: then the next cycle finds it.
    pub(super) fn begin(
        &mut self,
        config: &Config,
        keys: &Keys,
        store: &Store,
        signers: &Arc<Signers>,
        settings: Option<Settings>,
    ) {
        self.due_at = None;
        let turns = mem::take(&mut self.ready);
        let Some(settings) = settings.filter(|settings| !settings.paused) else { return };
        let families: BTreeSet<String> = turns.keys().cloned().collect();
        let (config, keys, store) = (config.clone(), keys.clone(), store.clone());
        let (world, signers, shared) = (self.idle.pop(), Arc::clone(signers), Arc::clone(&self.shared));
        let (names, mine, told) = (families.clone(), settings.clone(), self.told.0.clone());
        let task = self.tasks.spawn(async move {
            let new = || World::beside(&config, &keys, &store, &signers, &shared);
            let mut world = world.map_or_else(new, Ok)?;
            world.obey(mine);
            world.be_patient(BTreeSet::new());
            Box::pin(world.follow_up(turns, &told)).await?;
            tracing::info!(families = ?names, "followed");
            Ok(world)
        });
        self.jobs.insert(task.id(), Job { families, settings, task, begun: Instant::now() });
    }

    /// Drops the jobs that may be about what `settings` forbid, and begins them anew: nothing of that is fetched or sent
    /// any more.
    pub(super) fn heed(&mut self, settings: &Settings) {
        if settings.paused || self.heeded.loses_by(settings) {
            self.shared.break_off();
        }
        // As a cycle does: only who has the bot's key can put an address there.
        self.guard.trust(settings.servers.iter().map(|server| server.http_base().clone()));
        self.heeded = settings.clone();
        let forbids = |job: &Job| settings.paused || job.settings.loses_by(settings);
        let dropped: Vec<Job> = self.jobs.extract_if(|_, job| forbids(job)).map(|(_, job)| job).collect();
        for job in dropped {
            job.task.abort();
            tracing::info!(families = ?job.families, "what was being followed is begun anew");
            self.hear(job.families);
        }
    }

    /// A job or the writing of a report came to its end.
    pub(super) fn end(&mut self, ended: Ended) {
        let (id, problem) = match ended {
            Ok((id, Ok(world))) => {
                self.idle.push(world);
                self.idle.truncate(IDLE);
                (id, None)
            }
            Ok((id, Err(error))) => (id, Some(error.to_string())),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => (error.id(), Some(format!("it broke: {error}"))),
        };
        self.jobs.remove(&id);
        self.writing.take_if(|writing| *writing == id);
        if let Some(problem) = problem {
            tracing::error!(problem, "what was heard could not be followed; the next cycle finds it");
        }
        self.write();
    }

    /// Takes in what became of repositories; returns what is known of everything now.
    pub(super) fn take_in(
        &mut self,
        outcomes: Vec<RepositoryOutcome>,
        settings: Option<&Settings>,
    ) -> Option<CycleDone> {
        let known = self.known.as_mut()?;
        known.take_in(outcomes, &settings?.watched.authors);
        let known = known.clone();
        self.retry_at = next_try(&known);
        self.unwritten = true;
        self.write();
        Some(known)
    }

    /// It is time to publish the report.
    pub(super) fn report(&mut self) {
        self.report_at = None;
        self.unwritten = true;
        self.write();
    }

    /// Signs the report and keeps it here, when there is something new in it; sends it to the relays now or later.
    fn write(&mut self) {
        if !self.unwritten || self.writing.is_some() {
            return;
        }
        // Without a world it is written at the end of a job, which has one.
        let (Some(known), Some(world)) = (&self.known, self.idle.pop()) else { return };
        self.unwritten = false;
        let report = known.report.clone();
        let due_at = self.reported + REPORT_EVERY;
        let sending = Instant::now() >= due_at;
        if sending {
            self.reported = Instant::now();
        }
        self.report_at = (!sending).then_some(due_at);
        let task = self.tasks.spawn(async move {
            if sending {
                world.publish(&report).await?;
            } else {
                world.keep(&report).await?;
            }
            Ok(world)
        });
        self.writing = Some(task.id());
    }

    /// A cycle came to its end; returns what is known of everything now, with what was followed while it reported.
    pub(super) fn know(&mut self, mut done: CycleDone, authors: &BTreeSet<PublicKey>) -> CycleDone {
        self.report_at = None;
        self.reported = Instant::now();
        if let Some(listening) = &done.listening {
            self.listening.send_replace(listening.clone());
        }
        self.hear(mem::take(&mut done.left_to_jobs));
        let mut newer = self.shared.followed();
        newer.retain(|outcome| !done.outcomes.contains(outcome));
        self.unwritten = !newer.is_empty();
        if self.unwritten {
            done.take_in(newer, authors);
        }
        self.retry_at = next_try(&done);
        self.known = Some(done.clone());
        self.write();
        done
    }

    /// Whether mirrors are not in sync since the server at `relay` could not be reached.
    pub(super) fn waits_for(&self, relay: &RelayUrl) -> bool {
        let mut mirrors =
            self.known.iter().flat_map(|known| &known.outcomes).flat_map(|outcome| &outcome.mirrors);
        mirrors
            .any(|(server, mirror)| mirror.status == MirrorStatus::Unreachable && server.relay_url() == relay)
    }

    /// Has the repositories walked again whose mirrors are due.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        let now = Timestamp::now();
        let is_due = |outcome: &&RepositoryOutcome| due(outcome).is_some_and(|due| due <= now);
        let known = self.known.iter().flat_map(|known| &known.outcomes);
        let due = known.filter(is_due).take(RETRIES).map(|outcome| outcome.coordinate.identifier.clone());
        let due: Vec<String> = due.collect();
        self.hear(due);
    }
}

/// The mirrors to be tried again by themselves. One whose server is down waits for a cycle, which asks who is up.
fn failed(outcome: &RepositoryOutcome) -> impl Iterator<Item = &MirrorRecord> {
    outcome.mirrors.values().filter(|mirror| mirror.status != MirrorStatus::Unreachable)
}

/// When a repository is to be walked again though nobody says anything: a mirror of it failed, or a state of it is held.
fn due(outcome: &RepositoryOutcome) -> Option<Timestamp> {
    let end_of_hold = outcome.held.as_ref().map(|held| Timestamp::from_secs(held.until));
    retry::next_due(failed(outcome)).into_iter().chain(end_of_hold).min()
}

/// When the first repository is due.
fn next_try(done: &CycleDone) -> Option<Instant> {
    let due = done.outcomes.iter().filter_map(due).min()?;
    let due = due.as_secs().saturating_sub(Timestamp::now().as_secs());
    Some(Instant::now() + Duration::from_secs(due).max(BETWEEN_RETRIES))
}
