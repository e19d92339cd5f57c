//! The report: what a cycle came to, signed, kept and sent to the bot's relays.

use std::{slice, time::Duration};

use futures::{StreamExt, join, stream};
use nostr::prelude::{Event, Kind, Tag, Timestamp};
use tokio::time::timeout;

use super::{CycleError, Trigger, kept::Kept, memory, survey::Survey, world::World};
use crate::{
    model::{draft::Draft, replace::dated_after},
    report::{
        Report,
        document::{CycleSummary, IDENTIFIER, NotFound, RepositoryOutcome, ServerOutcome},
    },
};

/// The record that counts cycles.
pub(super) const RECORD: &str = "cycle";

/// How long a relay may take to take an event of the bot's own: the end of the cycle, and whoever asked for it, waits for
/// that. One that asks to slow down would be waited for much longer.
const PATIENCE: Duration = Duration::from_secs(15);

impl World {
    /// The number of a cycle that ends now, and what is told of it.
    pub(super) async fn summary(
        &self,
        kept: &Kept,
        trigger: Trigger,
        (started, next_at): (Timestamp, Option<Timestamp>),
        unfinished: bool,
    ) -> Result<(u64, CycleSummary), CycleError> {
        let before = match kept.number {
            Some(before) => before,
            None => self.records.read(RECORD).await?.unwrap_or(0),
        };
        let number = before + 1;
        let finished_at = Timestamp::now().as_secs();
        let cycle = CycleSummary {
            number,
            trigger: trigger.as_str().to_owned(),
            started_at: started.as_secs(),
            finished_at,
            // One that took longer than the interval is followed at once, too.
            next_at: next_at.map(|at| if unfinished { finished_at } else { at.as_secs().max(finished_at) }),
        };
        Ok((number, cycle))
    }

    /// How the servers were, also those that are not used, and the report.
    pub(super) fn report(
        &self,
        cycle: CycleSummary,
        survey: &Survey,
        outcomes: &[RepositoryOutcome],
    ) -> (Vec<ServerOutcome>, Report) {
        let mut servers = survey.server_outcomes();
        servers.extend(survey.denied.iter().cloned());
        let authors = &self.settings.watched.authors;
        let (left_alone, not_found) = (survey.left_alone.clone(), survey.not_found.clone());
        let mut report = Report::telling(cycle, authors, &servers, outcomes, left_alone, not_found);
        for repository in &report.not_found.repos {
            let NotFound { relays, unread, .. } = &report.not_found;
            tracing::warn!(%repository, relays_read = relays, ?unread, "it is watched, and nobody announces it");
        }
        report.silent_inboxes = self.silent.iter().cloned().collect();
        (servers, report)
    }

    /// Signs the report and sends it to the bot's relays.
    ///
    /// # Errors
    ///
    /// [`CycleError`]; a relay that does not take it is none.
    pub async fn publish(&self, report: &Report) -> Result<(), CycleError> {
        let turn = self.shared.reporting.lock().await;
        let event = self.signed(report).await?;
        let save = async {
            let saved = self.store.save(&event).await;
            drop(turn);
            saved
        };
        let (saved, ()) = join!(save, self.send_to_own_relays(slice::from_ref(&event)));
        saved?;
        Ok(())
    }

    /// Sends `events` of the bot's own to its relays; a relay that does not take one gets the rest another time.
    pub(super) async fn send_to_own_relays(&self, events: &[Event]) {
        stream::iter(&self.config.bot.relays)
            .for_each_concurrent(None, |relay| async move {
                for event in events {
                    let kind = event.kind.as_u16();
                    match timeout(PATIENCE, self.relays.send(relay, event)).await {
                        Ok(Ok(answer)) => tracing::debug!(%relay, kind, ?answer, "published"),
                        Ok(Err(error)) => {
                            tracing::warn!(%relay, kind, %error, "an event of the bot's was not published there");
                            return;
                        }
                        Err(_) => {
                            tracing::warn!(%relay, kind, "an event of the bot's was not taken there in time");
                            return;
                        }
                    }
                }
            })
            .await;
    }

    /// Signs the report and keeps it here, for whoever asks.
    ///
    /// # Errors
    ///
    /// [`CycleError`].
    pub async fn keep(&self, report: &Report) -> Result<(), CycleError> {
        let _turn = self.shared.reporting.lock().await;
        self.store.save(&self.signed(report).await?).await?;
        Ok(())
    }

    async fn signed(&self, report: &Report) -> Result<Event, CycleError> {
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
        Ok(draft.sign(&self.keys)?)
    }
}
