//! The part of the loop that begins cycles, ends them, and drops them for one that knows more.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use grasp_mirror_commands::resync::Resync;
use indicatif::ProgressBar;
use nostr::prelude::{EventId, Timestamp};
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};

use super::Daemon;
use crate::{
    bot::Tidings,
    cycle::{CycleDone, CycleError, Trigger, World},
    model::{coordinate::Coordinate, status::MirrorStatus},
    plan::{record::MirrorRecord, retry, settings::Settings},
    report::{answers, document::RepositoryOutcome},
};

/// How long a cycle may go on when there is more to mirror than it knows of.
const FINISH: Duration = Duration::from_secs(10);

/// How long a cycle waits for slow servers before it reports and the next one goes on.
const CYCLE_MAX: Duration = Duration::from_secs(900);

/// Somebody who waits for the end of a cycle.
pub(super) struct Waiting {
    pub(super) question: EventId,
    pub(super) repositories: Option<BTreeSet<Coordinate>>,
    pub(super) since: Instant,
}

/// Repositories (`None`: all) that somebody wants looked at anew, by who wants that.
pub(super) type Afresh = Vec<Option<BTreeSet<Coordinate>>>;

/// How a cycle's task ended.
pub(super) type Ended = Result<Result<(World, CycleDone), CycleError>, JoinError>;

/// A cycle under way.
pub(super) struct Running {
    /// Hands back what it worked with, unless it failed.
    pub(super) task: JoinHandle<Result<(World, CycleDone), CycleError>>,
    /// What it was started with.
    pub(super) settings: Settings,
    pub(super) waiting: Vec<Waiting>,
    pub(super) afresh: Afresh,
    pub(super) since: Instant,
    /// When it is dropped for one that knows more.
    pub(super) drop_at: Option<Instant>,
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
    /// Starts a cycle when one is due, none is running, and writing is not paused.
    pub(super) async fn begin_if_due(&mut self) {
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
        let Some(trigger) = self.due else { return };
        if let Some(keeping) = &self.keeping {
            if trigger == Trigger::Timer {
                return;
            }
            // Somebody waits.
            keeping.abort();
            self.keeping = None;
        }
        self.due = None;
        self.next_at = Instant::now() + self.config.bot.cycle_interval;
        let waiting: Vec<Waiting> = self.queue.drain(..).collect();
        let mut afresh = mem::take(&mut self.afresh);
        afresh.extend(waiting.iter().map(|one| one.repositories.clone()));
        let (config, keys, store) = (self.config.clone(), self.keys.clone(), self.store.clone());
        let anew = afresh.clone();
        let (mine, silent) = (settings.clone(), self.doors.silent.borrow().clone());
        let next_at = Timestamp::from_secs(Timestamp::now().as_secs() + config.bot.cycle_interval.as_secs());
        let (world, awake) = (self.world.take(), mem::take(&mut self.awake));
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

    pub(super) async fn end_cycle(&mut self, result: Ended) {
        let Some(running) = self.running.take() else { return };
        self.doors.busy.send_replace(false);
        if running.drop_at.is_some() {
            self.due = Some(Trigger::Command);
        }
        let problem = match result {
            Ok(Ok((mut world, done))) => {
                self.keeping = world.house().map(|house| tokio::spawn(house.keep()));
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

    /// The next cycle begins when the first server that is down is tried again, if that is earlier.
    pub(super) fn hurry_for_servers(&mut self, done: &CycleDone) {
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

    /// Drops the running cycle; who waits for it waits for the next one.
    pub(super) async fn drop_cycle(&mut self) {
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

    /// A cycle that knows what has changed, soon: a running one gets some time to come to its end.
    pub(super) fn begin_anew(&mut self) {
        match &mut self.running {
            Some(running) => {
                running.drop_at.get_or_insert(Instant::now() + FINISH);
            }
            None => self.due = Some(Trigger::Command),
        }
    }
}
