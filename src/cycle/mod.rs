//! One cycle: the whole walk, once, over every repository.
//!
//! `World::survey` looks (servers, discovery, catalog, what is served already); [`World::run`] then acts on
//! each repository by itself, remembers and reports; then the local copies are put in order ([`House`]). `plan` stops after the
//! look; `verify` goes on to compare refs. The daemon runs cycles, `mirror-once` runs one.

mod archive;
mod audit;
mod compare;
mod connection;
mod copy;
mod discovery;
mod follow;
mod forget;
mod git_data;
mod hold;
mod housekeeping;
mod kept;
mod lanes;
mod late;
mod left_behind;
pub mod live;
mod memory;
mod monitoring;
mod noted;
mod pairing;
mod preview;
mod progress;
mod read_back;
mod reporting;
mod repository;
mod servers;
mod settings;
mod shared;
mod sign;
mod signers;
mod subject;
mod survey;
mod taken_out;
mod talk;
mod threads;
mod verify;
mod worked_out;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered, try_join};
use indicatif::ProgressBar;
use nostr::prelude::{EventId, PublicKey, Timestamp};
use tokio::time::Instant;

use self::{lanes::Lanes, progress::Board, repository::Course};

pub use self::{
    archive::{local_copy, old_tips},
    audit::{AuditError, Inquiry},
    forget::{Matter, Say, say},
    hold::decide,
    housekeeping::House,
    memory::{all_remembered, described, known, last_report, remembered},
    monitoring::monitoring_filter,
    noted::{scoreboards, weeks},
    pairing::{PairError, Paired, Pairing},
    preview::Preview,
    progress::running,
    servers::Server,
    settings::{OwnWord, WRITTEN, met_at, own_filters, own_word, read_into, warn_of_contradictions},
    shared::{Shared, Turn, Turns},
    sign::requested,
    signers::Signers,
    subject::Subject,
    survey::Survey,
    world::{World, guard, listening_limits, own_addresses},
};
use self::{
    kept::Kept,
    survey::{Beside, Endings, record_name},
};
use crate::{
    git::wire::ClientError,
    model::{coordinate::Coordinate, draft::SignError, server::ServerUrl},
    plan::{record::RepositoryRecord, signing::Stands},
    report::{
        Report,
        document::{CycleSummary, LeftAlone, NotFound, RepositoryOutcome, ServerOutcome},
    },
    store::StoreError,
};

/// What started a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The daemon has just started.
    Start,
    /// It was time. Failing mirrors wait for their next try.
    Timer,
    /// `mirror-once`.
    Once,
    /// Somebody asked for it, or changed the bot's lists.
    Command,
    /// Something was heard of a repository.
    Live,
}

impl Trigger {
    /// The report's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Timer => "timer",
            Self::Once => "once",
            Self::Command => "command",
            Self::Live => "live",
        }
    }
}

/// What a cycle hands back.
#[derive(Clone, Debug)]
pub struct CycleDone {
    /// The report, as it was published.
    pub report: Report,
    /// Every repository, also those that the report had no room for; sorted by coordinate.
    pub outcomes: Vec<RepositoryOutcome>,
    /// Whether there was more to do than time: the next cycle goes on with it.
    pub unfinished: bool,
    /// What to listen to from now on; `None` when that is as before.
    pub listening: Option<live::Listening>,
    /// Remote signers that cannot be asked, and why.
    pub signers: BTreeMap<PublicKey, Stands>,
    /// Families that jobs were at for so long that the cycle did not wait: they are to be followed again.
    pub left_to_jobs: BTreeSet<String>,
    servers: Vec<ServerOutcome>,
    left_alone: LeftAlone,
    not_found: NotFound,
}

impl CycleDone {
    /// What is left alone on purpose, also what the report has no room for.
    #[must_use]
    pub fn left_alone(&self) -> &LeftAlone {
        &self.left_alone
    }

    /// Takes in what was done since for some repositories.
    pub fn take_in(&mut self, followed: Vec<RepositoryOutcome>, authors: &BTreeSet<PublicKey>) {
        replace(&mut self.outcomes, followed);
        self.outcomes.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));
        let silent = mem::take(&mut self.report.silent_inboxes);
        let cycle = CycleSummary { trigger: Trigger::Live.as_str().to_owned(), ..self.report.cycle.clone() };
        let (left_alone, not_found) = (self.left_alone.clone(), self.not_found.clone());
        self.report = Report::telling(cycle, authors, &self.servers, &self.outcomes, left_alone, not_found);
        self.report.silent_inboxes = silent;
    }
}

/// Puts `newer` outcomes in the place of those of the same repositories.
fn replace(outcomes: &mut Vec<RepositoryOutcome>, newer: Vec<RepositoryOutcome>) {
    let again: BTreeSet<&Coordinate> = newer.iter().map(|outcome| &outcome.coordinate).collect();
    outcomes.retain(|known| !again.contains(&known.coordinate));
    outcomes.extend(newer);
}

/// Why a cycle as a whole failed: the local machine is at fault, never one repository or server.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No HTTP client.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] ClientError),
    /// An event could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The report or the settings could not be written.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The settings could not be encrypted.
    #[error("the bot's settings could not be encrypted: {0}")]
    Encrypt(String),
    /// No relay shows what would be replaced.
    #[error(
        "none of the bot's relays shows what it was told before, which would be replaced; try again later"
    )]
    Unread,
}

/// How long a cycle waits for jobs at its end.
const PATIENCE: Duration = Duration::from_secs(15);

impl World {
    /// Runs one cycle to its end and publishes the report. What is left is [`Self::house`].
    ///
    /// `next_at` is when the next one will begin, for the report.
    ///
    /// # Errors
    ///
    /// [`CycleError`]. A failing repository or server is not one: it is in the report.
    pub async fn run(
        &mut self,
        trigger: Trigger,
        next_at: Option<Timestamp>,
        progress: &ProgressBar,
    ) -> Result<CycleDone, CycleError> {
        // A run that breaks off leaves nothing.
        let mut kept = mem::take(&mut self.kept);
        let board = Board::new(progress);
        let walk = Box::pin(self.walk(&mut kept, trigger, next_at, &board));
        let cycle = board.kept_by(&self.records, walk).await;
        board.take_down(&self.records).await?;
        let (done, house) = cycle?;
        (self.kept, self.house) = (kept, Some(house));
        Ok(done)
    }

    async fn walk(
        &self,
        kept: &mut Kept,
        trigger: Trigger,
        next_at: Option<Timestamp>,
        board: &Board<'_>,
    ) -> Result<(CycleDone, House), CycleError> {
        let started = Timestamp::now();
        board.say("looking at servers and relays");
        self.relays.start_over().await;
        kept.begin(started);
        for walked in self.shared.begin() {
            if let Some(known) = kept.repositories.get_mut(&walked)
                && let Some(record) = self.records.read::<RepositoryRecord>(&record_name(&walked)).await?
            {
                known.record = record.as_of(started);
            }
        }
        let as_of = self.shared.word.as_of_now();
        let mut survey = Box::pin(self.look(kept, trigger, started)).await?;
        let until = self.bound.map(|bound| Instant::now() + bound);
        let lanes = Lanes::new(&survey, self.config.limits.transfers, until, Arc::clone(&self.relays));
        let subjects = mem::take(&mut survey.subjects);
        let copies = subjects.iter().map(|subject| self.copy(&subject.repository)).collect();
        let lanes = board.begin(subjects.len(), lanes);
        let servers = &survey.servers;
        let mut outcomes = self.rest(mem::take(&mut survey.resting), servers, kept, started).await?;
        let is_any_at_rest = !outcomes.is_empty();
        let course = Course { servers, lanes, trigger, now: started, as_of: &as_of };
        // All at once: each waits for its turn by itself, and holds nothing meanwhile.
        let mut walks: FuturesUnordered<_> =
            subjects.into_iter().map(|subject| Box::pin(self.mirror_repository(subject, &course))).collect();
        while let Some(end) = walks.next().await {
            let (outcome, known) = end?;
            kept.repositories.insert(outcome.coordinate.clone(), known);
            outcomes.push(outcome);
            board.one_more();
        }
        drop(walks);
        replace(&mut outcomes, self.shared.followed());
        let left_to_jobs = self.walk_busy(&survey.busy, kept, &mut outcomes, started).await?;
        let mut more = false;
        if self.may_sign().await? {
            let places = kept.repositories.iter();
            let places = places.map(|(name, known)| (name.clone(), known.places.clone())).collect();
            more = self.sign_and_walk(kept, servers, &places, &mut outcomes, Beside::Jobs).await?;
        }
        let unfinished = lanes.is_unfinished() || more;
        outcomes.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));

        let (number, cycle) = self.summary(kept, trigger, (started, next_at), unfinished).await?;
        let (server_outcomes, report) = self.report(cycle, &survey, &outcomes);
        board.say("publishing the report");
        let up = servers.iter().filter(|(_, server)| is_any_at_rest && server.is_up());
        kept.proved.extend(up.map(|(url, _)| (url.clone(), started.as_secs())));
        // At once: the database then writes it at once, too.
        try_join!(
            self.publish(&report),
            async { Ok(self.records.write(reporting::RECORD, &number).await?) },
            async { Ok(memory::note_proved(&self.records, &kept.proved).await?) },
        )?;
        kept.number = Some(number);
        let listening = self.listening(kept, servers.keys()).await?;
        self.expire_archives(kept.repositories.keys(), started).await?;
        self.write_scoreboards(started).await?;
        self.publish_monitoring(servers, Timestamp::now()).await?;
        let house = self.house_of(copies, trigger, started);
        let (servers, left_alone, not_found) = (server_outcomes, survey.left_alone, survey.not_found);
        let signers = self.signers.troubles();
        let done = CycleDone {
            report,
            outcomes,
            unfinished,
            listening,
            signers,
            left_to_jobs,
            servers,
            left_alone,
            not_found,
        };
        Ok((done, house))
    }

    /// Looks, says what is new of the bot's copies, and takes down what it announced of repositories that are left alone.
    async fn look(&self, kept: &mut Kept, trigger: Trigger, now: Timestamp) -> Result<Survey, CycleError> {
        // Who refuses is heard of meanwhile.
        self.signers.connect().await?;
        let survey = Box::pin(self.survey(kept, Some(trigger), now)).await?;
        if matches!(trigger, Trigger::Start | Trigger::Once) && !self.signers.keys().is_empty() {
            self.signers.tell_idle(&self.catalogued().await?);
        }
        let before = self.store.news().sources;
        for event in &survey.signed {
            self.store.save(event).await?;
        }
        if let Some(worked_out) = kept.worked_out.as_mut().filter(|known| known.sources == before) {
            // The bot's own copies are in it already.
            worked_out.sources = self.store.news().sources;
        }
        let obsolete =
            kept.worked_out.as_mut().map(|known| mem::take(&mut known.obsolete)).unwrap_or_default();
        self.take_down(&survey.servers, &obsolete, now).await?;
        self.say_joined(&survey.subjects, &survey.signed).await;
        Ok(survey)
    }

    /// Walks the repositories that jobs were at, when these are done with them. Those of which one is not done soon are left
    /// to the job and whoever follows it: returns their families.
    async fn walk_busy(
        &self,
        busy: &BTreeMap<Coordinate, Option<EventId>>,
        kept: &mut Kept,
        outcomes: &mut Vec<RepositoryOutcome>,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, CycleError> {
        let mut families: BTreeSet<String> = busy.keys().map(|name| name.identifier.clone()).collect();
        let turns = self.shared.turns(&families, PATIENCE).await;
        if !turns.is_empty() {
            families.retain(|family| !turns.contains_key(family));
            let mine: BTreeSet<String> = turns.keys().cloned().collect();
            let mut scratch = kept.introductions();
            let again = Box::pin(self.walk_families(&mut scratch, &mine, now, None)).await?;
            kept.repositories.extend(again.known);
            replace(outcomes, again.outcomes);
        }
        for (coordinate, state) in busy.iter().filter(|(name, _)| families.contains(&name.identifier)) {
            if !kept.repositories.contains_key(coordinate) {
                // The next cycle finds it again.
                kept.worked_out = None;
            }
            if !outcomes.iter().any(|outcome| outcome.coordinate == *coordinate) {
                let record: RepositoryRecord =
                    self.records.read(&record_name(coordinate)).await?.unwrap_or_default();
                let state = record.read_back_state().or(*state);
                outcomes.push(RepositoryOutcome::recorded(coordinate.clone(), state, &record));
            }
        }
        Ok(families)
    }

    /// Notes of the repositories that rest that their servers were seen to serve them. One record says it for all; only
    /// where more has changed a repository's own is written.
    async fn rest(
        &self,
        resting: BTreeMap<Coordinate, Endings>,
        servers: &BTreeMap<ServerUrl, Server>,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<Vec<RepositoryOutcome>, CycleError> {
        let mut outcomes = Vec::new();
        let some_wait = servers.values().any(|server| server.retry_at.is_some());
        for (coordinate, endings) in resting {
            let Some(known) = kept.repositories.get_mut(&coordinate) else { continue };
            let before = known.record.mirrors.clone();
            let changed = known.rest(&endings, now);
            if some_wait {
                for (server, mirror) in known.record.mirrors.iter_mut() {
                    mirror.wait_for_server(servers.get(server).and_then(|server| server.retry_at));
                }
            }
            // A job's outcome, which may be newer, is its own to write.
            let turn = if changed { self.shared.join_unless_followed(&coordinate) } else { None };
            if turn.is_some() {
                self.records.write(&record_name(&coordinate), &known.record).await?;
                self.note_changes(&coordinate, &before, &known.record.mirrors, now).await?;
            }
            let outcome = RepositoryOutcome::recorded(coordinate, known.state, &known.record);
            outcomes.push(RepositoryOutcome { notes: known.notes.clone(), ..outcome });
        }
        Ok(outcomes)
    }
}
