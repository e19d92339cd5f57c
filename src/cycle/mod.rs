//! One cycle: the whole walk, once, over every repository.
//!
//! [`World::survey`] looks (servers, discovery, catalog, what is served already); [`World::run`] then acts on
//! each repository by itself, remembers, and reports. `plan` stops after the look; `verify` goes on to compare
//! refs. The daemon runs cycles, `mirror-once` runs one.

mod copy;
mod discovery;
pub mod live;
mod memory;
mod read_back;
mod repository;
mod servers;
mod settings;
mod survey;
mod talk;
mod threads;
mod verify;
mod world;

use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use nostr::prelude::{Kind, Tag, Timestamp};

pub use self::{
    memory::{known, last_report, remembered},
    servers::Server,
    settings::{OwnWord, own_filters, own_word, read_into},
    survey::{Subject, Survey},
    world::{World, guard, own_addresses},
};
use crate::{
    model::{
        draft::{Draft, SignError},
        replace::dated_after,
    },
    plan::converge::{Outcome, Step, next_step},
    report::{
        Report,
        document::{CycleSummary, IDENTIFIER, LeftAlone, RepositoryOutcome},
        tables::PlannedStep,
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
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Timer => "timer",
            Self::Once => "once",
            Self::Command => "command",
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
}

/// Why a cycle as a whole failed: the local machine is at fault, never one repository or server.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No HTTP client.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
    /// An event could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The report or the settings could not be written.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The settings could not be encrypted.
    #[error("the bot's settings could not be encrypted: {0}")]
    Encrypt(String),
}

/// The record that counts cycles.
const RECORD: &str = "cycle";

impl World {
    /// Runs one cycle to its end and publishes the report.
    ///
    /// `next_at` is when the next one will begin, for the report.
    ///
    /// # Errors
    ///
    /// [`CycleError`]. A failing repository or server is not one: it is in the report.
    pub async fn run(
        &self,
        trigger: Trigger,
        next_at: Option<Timestamp>,
        progress: &ProgressBar,
    ) -> Result<CycleDone, CycleError> {
        let started = Timestamp::now();
        progress.set_message("looking at servers and relays");
        let survey = self.survey(started).await?;
        for event in &survey.signed {
            self.store.save(event).await?;
        }
        progress.set_length(survey.subjects.len() as u64);
        progress.set_message("mirroring");
        let servers = &survey.servers;
        let outcomes: Vec<Result<RepositoryOutcome, CycleError>> = stream::iter(survey.subjects)
            .map(|subject| async {
                let done = Box::pin(self.mirror_repository(subject, servers, trigger, started)).await;
                progress.inc(1);
                done
            })
            .buffer_unordered(self.config.limits.transfers)
            .collect()
            .await;
        let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        outcomes.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));

        let number = self.records.read::<u64>(RECORD).await?.unwrap_or(0) + 1;
        self.records.write(RECORD, &number).await?;
        let cycle = CycleSummary {
            number,
            trigger: trigger.as_str().to_owned(),
            started_at: started.as_secs(),
            finished_at: Timestamp::now().as_secs(),
            next_at: next_at.map(|at| at.as_secs()),
        };
        let authors = &self.settings.watched.authors;
        let mut server_outcomes: Vec<_> = servers.iter().map(|(url, server)| server.outcome(url)).collect();
        server_outcomes.extend(self.denied_servers());
        let left_alone = LeftAlone {
            deleted: survey.catalog.deleted,
            private: survey.catalog.private,
            over_limit: survey.catalog.over_limit,
        };
        let mut report = Report::of(cycle, authors, &server_outcomes, &outcomes, left_alone);
        report.silent_inboxes = self.silent.iter().cloned().collect();
        progress.set_message("publishing the report");
        self.publish(&report).await?;
        Ok(CycleDone { report, outcomes })
    }

    /// What a cycle would do first for each mirror. Sends nothing to anyone.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub async fn plan(&self) -> Result<(Vec<PlannedStep>, Vec<String>), CycleError> {
        let survey = self.survey(Timestamp::now()).await?;
        let mut steps = Vec::new();
        let mut notes = Vec::new();
        for (url, server) in &survey.servers {
            let outcome = server.outcome(url);
            if let Some(reason) =
                outcome.unused.or_else(|| server.down.clone().map(|why| format!("down: {why}")))
            {
                notes.push(format!("{}: {reason}", url.host()));
            }
        }
        for server in self.denied_servers() {
            notes.push(format!("{}: {}", server.url.host(), server.unused.unwrap_or_default()));
        }
        for subject in &survey.subjects {
            let coordinate = &subject.repository.coordinate;
            notes.extend(subject.notes.iter().map(|note| format!("{}: {note}", coordinate.for_people())));
            for (server, place) in &subject.places {
                let step = match (&subject.obstacle, subject.wanted.get(server), subject.seen.get(server)) {
                    (Some(obstacle), _, _) => format!("nothing: {}", obstacle.reason()),
                    (None, None, _) => "nothing: the repository is empty".to_owned(),
                    (None, Some(_), None) => "nothing: the server is down".to_owned(),
                    (None, Some(wanted), Some(seen)) => describe(&next_step(wanted, seen)),
                };
                steps.push(PlannedStep {
                    repo: coordinate.clone(),
                    server: server.clone(),
                    placement: place.placement,
                    step,
                });
            }
        }
        Ok((steps, notes))
    }

    async fn publish(&self, report: &Report) -> Result<(), CycleError> {
        let before = memory::latest_report_event(&self.store, &self.keys).await?;
        let draft = Draft {
            kind: Kind::ApplicationSpecificData,
            tags: vec![
                Tag::identifier(IDENTIFIER),
                Tag::hashtag("grasp-mirror"),
                Tag::custom("alt", ["status report of a grasp-mirror bot"]),
            ],
            content: serde_json::to_string(report)?,
            created_at: dated_after(before.as_ref(), Timestamp::now()),
        };
        let event = draft.sign(&self.keys)?;
        self.store.save(&event).await?;
        let event = &event;
        stream::iter(&self.config.bot.relays)
            .for_each_concurrent(None, |relay| async move {
                match self.relays.send(relay, event).await {
                    Ok(answer) => tracing::debug!(%relay, ?answer, "report published"),
                    Err(error) => tracing::warn!(%relay, %error, "the report was not published there"),
                }
            })
            .await;
        Ok(())
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Send(ids) => format!("send {} events, then the git data the server asks for", ids.len()),
        Step::Push => "push git data".to_owned(),
        Step::PushRequests(requests) => format!("push the commits of {} pull requests", requests.len()),
        Step::Look => "look whether the state is served".to_owned(),
        Step::LookAtConversation => "compare the conversation and send what is missing".to_owned(),
        Step::Settled(outcome) => match outcome {
            Outcome::InSync => "nothing: in sync".to_owned(),
            Outcome::Pending(reason) => format!("wait: {reason}"),
            Outcome::Refused(reason) => format!("nothing: refused: {reason}"),
        },
    }
}
