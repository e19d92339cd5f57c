//! What the daemon shows to whoever looks at it: how it is, the last report, and every mirror, also those that the
//! report has no room for.
//!
//! The daemon changes its picture when something happens; the dashboard, the health checks and the metrics are made
//! from it.

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grasp_mirror_commands::clean;
use nostr::prelude::PublicKey;
use serde::Serialize;

pub use self::wire::{Brief, Header};
use super::{
    document::{Report, RepositoryOutcome},
    scoreboard::failed_anew,
};
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{record::MirrorRecord, retry::Failure},
};

/// The longest note or reason shown, in characters.
const TEXT_MAX: usize = 500;

/// Servers that failures are counted for; those of further ones are counted together, under `None`.
pub const SERVERS_MAX: usize = 100;

/// The daemon, as it is now. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Who it is.
    pub bot: Card,
    /// From the start of one cycle to the start of the next.
    pub interval_secs: u64,
    /// When it was started.
    pub started_at: u64,
    /// Whether what it is to mirror has been read from its lists.
    pub settled: bool,
    /// Whether it was told to pause.
    pub paused: bool,
    /// The cycle under way.
    pub running: Option<Running>,
    /// When the last cycle ended that did not fail as a whole, also one of an earlier process.
    pub good_at: Option<u64>,
    /// Why the last cycle failed as a whole; `None` when it did not.
    pub failed: Option<Failed>,
    /// The last report.
    pub report: Arc<Report>,
    /// Every repository, sorted by coordinate.
    pub rows: Arc<Vec<Arc<Row>>>,
    /// What was counted since the start.
    pub counts: Counts,
}

/// Who the bot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its key.
    pub key: PublicKey,
    /// Its name, as configured.
    pub name: String,
    /// Its NIP-05 name, if it has one.
    pub nip05: Option<String>,
}

/// A cycle under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Since when.
    pub since: u64,
    /// What started it, as in [`super::document::CycleSummary`].
    pub trigger: &'static str,
}

/// A cycle that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// When.
    pub at: u64,
    /// Why.
    pub reason: String,
}

/// What was counted since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cycles that came to their end.
    pub cycles: u64,
    /// Cycles that failed as a whole.
    pub failed_cycles: u64,
    /// Cycles that were dropped for one that knows more.
    pub dropped_cycles: u64,
    /// How long the cycles took that came to their end, in milliseconds.
    pub cycles_ms: u64,
    /// How long the last of them took, in milliseconds.
    pub last_cycle_ms: u64,
    /// Jobs between cycles, for what was heard or was due again.
    pub followed: u64,
    /// Tries of mirrors that failed, by server and by whose doing it was.
    pub failures: BTreeMap<(Option<ServerUrl>, &'static str), u64>,
}

/// One repository and its mirrors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub coordinate: Coordinate,
    /// Its mirrors.
    pub cells: BTreeMap<ServerUrl, Cell>,
    /// How many copies there should be.
    pub wanted: usize,
    /// What people should know.
    pub notes: Vec<String>,
    /// Whether a new state of it is held.
    pub held: bool,
}

/// One mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// How it stands.
    pub status: MirrorStatus,
    /// Why it is not in sync.
    pub reason: Option<String>,
    /// Since when it stands so.
    pub since: u64,
    /// When it is tried again.
    pub retry_at: Option<u64>,
    failures: u32,
    failure: Option<Failure>,
}

impl Cell {
    fn of(mirror: &MirrorRecord) -> Self {
        Self {
            status: mirror.status,
            reason: mirror.reason.as_deref().map(|reason| clean(reason, TEXT_MAX)),
            since: mirror.since,
            retry_at: mirror.retry_at,
            failures: mirror.failures,
            failure: mirror.failure,
        }
    }
}

impl Row {
    fn of(outcome: &RepositoryOutcome) -> Self {
        Self {
            coordinate: outcome.coordinate.clone(),
            cells: outcome.mirrors.iter().map(|(url, mirror)| (url.clone(), Cell::of(mirror))).collect(),
            wanted: outcome.copies_wanted(),
            notes: outcome.notes.iter().map(|note| clean(note, TEXT_MAX)).collect(),
            held: outcome.held.is_some(),
        }
    }

    /// Verified copies: all but one of those servers may vanish before its data is lost.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.cells.values().filter(|cell| cell.status == MirrorStatus::InSync).count()
    }
}

/// The kind of a failure, as a metric's label has it.
fn kind(failure: Failure) -> &'static str {
    match failure {
        Failure::Ours => "ours",
        Failure::Disk => "disk",
        Failure::SourceGone => "source_gone",
        Failure::SourceLies => "source_lies",
        Failure::ServerDown => "server_down",
        Failure::ServerFails => "server_fails",
        Failure::ServerRefused => "server_refused",
        Failure::RateLimited => "rate_limited",
    }
}

impl Picture {
    /// Of a daemon that has just started; `report` is its last one.
    #[must_use]
    pub fn new(bot: Card, interval_secs: u64, report: Report, now: u64) -> Self {
        Self {
            bot,
            interval_secs,
            started_at: now,
            settled: false,
            paused: false,
            running: None,
            good_at: (report.cycle.number > 0).then_some(report.cycle.finished_at),
            failed: None,
            report: Arc::new(report),
            rows: Arc::default(),
            counts: Counts::default(),
        }
    }

    /// How the mirrors were when they were last looked at. Once a cycle has ended, that is known better.
    pub fn remember(&mut self, outcomes: &[RepositoryOutcome]) {
        if self.counts.cycles == 0 {
            self.rows = Arc::new(outcomes.iter().map(|outcome| Arc::new(Row::of(outcome))).collect());
        }
    }

    /// A cycle begins.
    pub fn begin(&mut self, trigger: &'static str, now: u64) {
        self.running = Some(Running { since: now, trigger });
    }

    /// The cycle came to its end.
    pub fn end(&mut self, report: &Report, outcomes: &[RepositoryOutcome], elapsed_ms: u64, now: u64) {
        self.running = None;
        self.failed = None;
        self.good_at = Some(now);
        self.counts.cycles += 1;
        self.counts.cycles_ms = self.counts.cycles_ms.saturating_add(elapsed_ms);
        self.counts.last_cycle_ms = elapsed_ms;
        self.take_in(report, outcomes);
    }

    /// What was heard between two cycles was followed.
    pub fn follow(&mut self, report: &Report, outcomes: &[RepositoryOutcome]) {
        self.counts.followed += 1;
        self.take_in(report, outcomes);
    }

    /// The cycle failed as a whole.
    pub fn fail(&mut self, reason: &str, now: u64) {
        self.running = None;
        self.counts.failed_cycles += 1;
        self.failed = Some(Failed { at: now, reason: clean(reason, TEXT_MAX) });
    }

    /// The cycle was dropped.
    pub fn drop_cycle(&mut self) {
        self.running = None;
        self.counts.dropped_cycles += 1;
    }

    fn take_in(&mut self, report: &Report, outcomes: &[RepositoryOutcome]) {
        let before: BTreeMap<&Coordinate, &Arc<Row>> =
            self.rows.iter().map(|row| (&row.coordinate, row)).collect();
        let mut failures = Vec::new();
        let mut rows: Vec<Arc<Row>> = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let known = before.get(&outcome.coordinate);
            for (server, mirror) in &outcome.mirrors {
                let cell = known.and_then(|row| row.cells.get(server));
                if let Some(kind) = new_failure(cell, mirror) {
                    failures.push((server.clone(), kind));
                }
            }
            let row = Row::of(outcome);
            rows.push(match known {
                Some(same) if ***same == row => Arc::clone(same),
                _ => Arc::new(row),
            });
        }
        for (server, kind) in failures {
            self.counts.note_failure(server, kind);
        }
        rows.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));
        self.rows = Arc::new(rows);
        self.report = Arc::new(report.clone());
    }

    /// The servers with a column of their own.
    #[must_use]
    pub fn columns(&self) -> Vec<ServerUrl> {
        let reported = self.report.servers.iter().map(|server| &server.url);
        let all: BTreeSet<&ServerUrl> =
            reported.chain(self.rows.iter().flat_map(|row| row.cells.keys())).collect();
        all.into_iter().cloned().collect()
    }

    /// How many repositories have so many verified copies.
    #[must_use]
    pub fn redundancy(&self) -> BTreeMap<usize, usize> {
        let mut repositories = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.wanted > 0) {
            *repositories.entry(row.copies()).or_default() += 1;
        }
        repositories
    }

    /// How it is, in a word.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match &self.running {
            _ if self.paused => "paused",
            Some(_) => "mirroring",
            None if !self.settled => "starting",
            None if self.failed.is_some() => "failing",
            None => "resting",
        }
    }

    /// The repository, if it is one of those that are mirrored.
    #[must_use]
    pub fn row(&self, coordinate: &Coordinate) -> Option<&Row> {
        let at = self.rows.binary_search_by(|row| row.coordinate.cmp(coordinate)).ok()?;
        self.rows.get(at).map(Arc::as_ref)
    }

    /// The rows that are not as in `before`, and the coordinates of those that are gone.
    #[must_use]
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> (Vec<&'a Row>, Vec<&'a Coordinate>) {
        let known: BTreeMap<&Coordinate, &Arc<Row>> =
            before.rows.iter().map(|row| (&row.coordinate, row)).collect();
        let is_new = |row: &&Arc<Row>| {
            known.get(&row.coordinate).is_none_or(|known| !Arc::ptr_eq(known, row) && known != row)
        };
        let changed = self.rows.iter().filter(is_new).map(Arc::as_ref).collect();
        let gone = before.rows.iter().map(|row| &row.coordinate);
        (changed, gone.filter(|coordinate| self.row(coordinate).is_none()).collect())
    }
}

/// Whose doing it was, when a mirror was tried and failed since it was `before`.
fn new_failure(before: Option<&Cell>, after: &MirrorRecord) -> Option<&'static str> {
    let failure = after.failure?;
    let refused = failure == Failure::ServerRefused && before.map(|cell| cell.status) != Some(after.status);
    // A cell has all of the record that this depends on.
    let tried = match before {
        Some(before) => after.failures > 0 && before.failures != after.failures,
        None => failed_anew(None, after),
    };
    (refused || tried).then(|| kind(failure))
}

impl Counts {
    fn note_failure(&mut self, server: ServerUrl, kind: &'static str) {
        let servers: BTreeSet<&ServerUrl> =
            self.failures.keys().filter_map(|(server, _)| server.as_ref()).collect();
        let fits = servers.len() < SERVERS_MAX || servers.contains(&server);
        *self.failures.entry((fits.then_some(server), kind)).or_default() += 1;
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
