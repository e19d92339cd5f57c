//! The part of the loop that follows what is heard between cycles: a burst is one job, and what is heard meanwhile is
//! the next one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use nostr::prelude::{Keys, RelayUrl, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until},
};

use crate::{
    config::Config,
    cycle::{
        self, CycleDone, CycleError, Signers, World,
        live::{Listening, Live, Noticed},
    },
    model::status::MirrorStatus,
    plan::{record::MirrorRecord, retry, settings::Settings},
    report::{Report, document::RepositoryOutcome},
    store::Store,
};

/// How long after the first event of a burst the job begins.
const COALESCE: Duration = Duration::from_millis(50);

/// The report of what was followed goes to relays so often at most; a cycle's always does.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Between two jobs that try failed mirrors again.
const BETWEEN_RETRIES: Duration = Duration::from_secs(5);

/// Repositories tried again in one job.
const RETRIES: usize = 50;

/// Families on their way.
const QUEUE: usize = 256;

/// What a job hands back: what it worked with, and what became of the repositories.
type Job = Result<(World, Vec<RepositoryOutcome>), CycleError>;

/// What the follower waits for.
pub(super) enum Step {
    /// Something was heard; nothing to do yet.
    Heard,
    /// It is time to begin a job.
    Due,
    /// A job came to its end.
    Ended(Box<Result<Job, JoinError>>),
    /// The report is to go to the relays.
    Report,
    /// Mirrors that failed are to be tried again, or a hold is over.
    Retry,
    /// What is left alone may have changed.
    MuteList,
    /// A relay or server is listened to (again).
    CaughtUp(RelayUrl),
}

pub(super) struct Follower {
    /// Its own connections: a cycle may be using the others.
    world: Option<World>,
    heard: BTreeSet<String>,
    /// What the job under way was begun with.
    begun: Option<(BTreeSet<String>, Settings)>,
    due_at: Option<Instant>,
    task: Option<JoinHandle<Job>>,
    touched: mpsc::Receiver<Noticed>,
    listening: watch::Sender<Listening>,
    ear: JoinHandle<()>,
    /// What is known of everything: the last cycle, and what was followed since.
    known: Option<CycleDone>,
    report_at: Option<Instant>,
    reported: Instant,
    /// When the next mirror that failed is tried again, or a hold is over.
    retry_at: Option<Instant>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ear.abort();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Follower {
    /// Listens to nothing before the first cycle has ended.
    pub(super) fn new(config: &Config, keys: &Keys, store: &Store, signers: &Signers) -> Self {
        let (touching, touched) = mpsc::channel(QUEUE);
        signers.tell(touching.clone());
        let (listening, heard) = watch::channel(Listening::default());
        let live = Live::new(config, keys, &cycle::guard(config), store, heard, touching);
        Self {
            world: None,
            heard: BTreeSet::new(),
            begun: None,
            due_at: None,
            task: None,
            touched,
            listening,
            ear: tokio::spawn(live.run()),
            known: None,
            report_at: None,
            reported: Instant::now(),
            retry_at: None,
        }
    }

    /// Waits for the next thing to happen. Nothing is lost when it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Step {
        let idle = self.task.is_none();
        let task = &mut self.task;
        let ended = async {
            match task {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        let at = |time: Option<Instant>| sleep_until(time.unwrap_or_else(Instant::now));
        tokio::select! {
            Some(noticed) = self.touched.recv() => match noticed {
                Noticed::Families(families) => {
                    self.heard.extend(families);
                    self.due_at.get_or_insert_with(|| Instant::now() + COALESCE);
                    Step::Heard
                }
                Noticed::MuteList => Step::MuteList,
                Noticed::CaughtUp(relay) => Step::CaughtUp(relay),
            },
            result = ended => Step::Ended(Box::new(result)),
            () = at(self.due_at), if idle && self.due_at.is_some() => Step::Due,
            () = at(self.report_at), if idle && self.report_at.is_some() => Step::Report,
            () = at(self.retry_at), if idle && self.retry_at.is_some() => Step::Retry,
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
        let families = std::mem::take(&mut self.heard);
        let Some(settings) = settings.filter(|settings| !settings.paused) else { return };
        let (config, keys, store) = (config.clone(), keys.clone(), store.clone());
        let (world, signers) = (self.world.take(), Arc::clone(signers));
        self.begun = Some((families.clone(), settings.clone()));
        self.task = Some(tokio::spawn(async move {
            let new = || World::new(&config, &keys, &store).map(|world| world.signing_with(&signers));
            let mut world = world.map_or_else(new, Ok)?;
            world.obey(settings);
            world.be_patient(BTreeSet::new());
            let outcomes = Box::pin(world.follow_up(&families)).await?;
            tracing::info!(?families, repositories = outcomes.len(), "followed");
            Ok((world, outcomes))
        }));
    }

    /// Drops a job that may be about what `settings` forbid, and begins it anew: nothing of that is fetched or sent any
    /// more.
    pub(super) fn heed(&mut self, settings: &Settings) {
        let forbids = |(_, begun): &mut (_, Settings)| settings.paused || begun.loses_by(settings);
        if let Some((families, _)) = self.begun.take_if(forbids) {
            if let Some(task) = self.task.take() {
                task.abort();
            }
            tracing::info!(?families, "what was being followed is begun anew");
            self.heard.extend(families);
            self.due_at.get_or_insert_with(Instant::now);
        }
    }

    /// Takes in what a job did; returns what is known of everything now, when that is something new.
    pub(super) fn end(
        &mut self,
        result: Result<Job, JoinError>,
        settings: Option<&Settings>,
    ) -> Option<CycleDone> {
        self.task = None;
        self.begun = None;
        let problem = match result {
            Ok(Ok((world, outcomes))) => {
                self.world = Some(world);
                let known = self.known.as_mut().filter(|_| !outcomes.is_empty())?;
                known.take_in(outcomes, &settings?.watched.authors);
                let known = known.clone();
                self.retry_at = next_try(&known);
                if Instant::now() >= self.reported + REPORT_EVERY {
                    self.report();
                } else {
                    self.report_at.get_or_insert(self.reported + REPORT_EVERY);
                    self.write(known.report.clone(), false);
                }
                return Some(known);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("it broke: {error}"),
        };
        tracing::error!(problem, "what was heard could not be followed; the next cycle finds it");
        None
    }

    /// Publishes the report.
    pub(super) fn report(&mut self) {
        self.report_at = None;
        self.reported = Instant::now();
        if let Some(known) = &self.known {
            self.write(known.report.clone(), true);
        }
    }

    /// Signs the report and keeps it here, and sends it to the relays if `sending`.
    fn write(&mut self, report: Report, sending: bool) {
        let Some(world) = self.world.take() else { return };
        self.task = Some(tokio::spawn(async move {
            if sending {
                world.publish(&report).await?;
            } else {
                world.keep(&report).await?;
            }
            Ok((world, Vec::new()))
        }));
    }

    /// A cycle came to its end.
    pub(super) fn know(&mut self, done: &CycleDone) {
        self.report_at = None;
        self.reported = Instant::now();
        if let Some(listening) = &done.listening {
            self.listening.send_replace(listening.clone());
        }
        self.retry_at = next_try(done);
        self.known = Some(done.clone());
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
        self.heard.extend(due);
        self.due_at.get_or_insert_with(Instant::now);
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
