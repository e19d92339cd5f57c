//! Between cycles: the families of which something was heard are walked at once.
//!
//! The same subjects, steps and records as in a cycle. Relays are not asked, since what they had to say was heard and
//! is stored; a server that does not answer in a moment is left to the next cycle.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use nostr::prelude::{EventId, Filter, RelayUrl, Timestamp};
use tokio::time::timeout;

use super::{
    CycleError, Trigger,
    kept::Kept,
    lanes::Lanes,
    live::Listening,
    repository::Course,
    sign::Places,
    survey::{SOURCES, Survey},
    world::{World, catalog_limits},
};
use crate::{
    model::server::ServerUrl,
    plan::{catalog, forget, live::Concerns},
    relay::RelayError,
    report::document::RepositoryOutcome,
};

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(3);

impl World {
    /// Walks the repositories whose identifier is one of `families`.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails; everything else belongs to a mirror.
    pub async fn follow_up(
        &mut self,
        families: &BTreeSet<String>,
    ) -> Result<Vec<RepositoryOutcome>, CycleError> {
        let mut kept = mem::take(&mut self.kept);
        let done = Box::pin(self.walk_and_sign(&mut kept, families)).await;
        self.kept = kept;
        done
    }

    async fn walk_and_sign(
        &self,
        kept: &mut Kept,
        families: &BTreeSet<String>,
    ) -> Result<Vec<RepositoryOutcome>, CycleError> {
        let now = Timestamp::now();
        let (mut outcomes, places) = Box::pin(self.walk_families(kept, families, now)).await?;
        let servers = self.ask_servers(kept, now).await?;
        self.sign_and_walk(kept, &servers, &places, &mut outcomes).await?;
        Ok(outcomes)
    }

    /// Walks the families once, and says also where their mirrors belong.
    pub(super) async fn walk_families(
        &self,
        kept: &mut Kept,
        families: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(Vec<RepositoryOutcome>, Places), CycleError> {
        self.relays.start_over().await;
        // A cycle beside this one may have written the records.
        kept.repositories.clear();
        let mut survey = Survey { servers: self.ask_servers(kept, now).await?, ..Survey::default() };
        self.note_down(&mut survey.servers, now).await?;
        let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
        let mut worked = self.work_out(events, &mut survey.servers, kept, now).await?;
        worked.keep_only(families);
        self.subjects(worked, &mut survey, kept, &BTreeSet::new(), now).await?;
        for event in &survey.signed {
            self.store.save(event).await?;
        }
        self.note_tries(&mut survey.servers).await?;
        self.say_joined(&survey.subjects, &survey.signed).await;
        self.see_what_is_served(&mut survey, now).await;
        let lanes = Lanes::new(&survey, self.config.limits.transfers, None, Arc::clone(&self.relays));
        let subjects = mem::take(&mut survey.subjects);
        let places =
            subjects.iter().map(|subject| (subject.repository.coordinate.clone(), subject.places.clone()));
        let places = places.collect();
        let course = Course { servers: &survey.servers, lanes: &lanes, trigger: Trigger::Live, now };
        let mut walks: FuturesUnordered<_> =
            subjects.into_iter().map(|subject| Box::pin(self.mirror_repository(subject, &course))).collect();
        let mut outcomes = Vec::new();
        while let Some(end) = walks.next().await {
            outcomes.push(end?.0);
        }
        self.write_scoreboards(now).await?;
        Ok((outcomes, places))
    }

    /// Asks each server which of the wanted announcements and states it serves. A mirror whose server does not answer
    /// stands as it stood.
    async fn see_what_is_served(&self, survey: &mut Survey, now: Timestamp) {
        let up = survey.servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.clone());
        let asks = up.map(|url| {
            let wanted = survey.subjects.iter().filter_map(|subject| subject.wanted.get(&url));
            let proofs: BTreeSet<EventId> = wanted.flat_map(|wanted| wanted.proofs().copied()).collect();
            let proofs: Vec<EventId> = proofs.into_iter().collect();
            async move {
                let served = timeout(PATIENCE, self.relays.serves(url.relay_url(), &proofs)).await;
                let served = served.unwrap_or_else(|_| Err(silent(url.relay_url())));
                (url, served)
            }
        });
        let answers: HashMap<ServerUrl, Result<BTreeSet<EventId>, RelayError>> =
            join_all(asks).await.into_iter().collect();
        for subject in &mut survey.subjects {
            let servers: Vec<ServerUrl> = subject.wanted.keys().cloned().collect();
            for url in servers {
                if let Some(Ok(served)) = answers.get(&url) {
                    subject.note_served(&url, |event| served.contains(&event.id), now);
                } else {
                    subject.wanted.remove(&url);
                }
            }
        }
    }

    /// What to listen to until the next cycle; `None` when that has not changed since it was last asked.
    pub(super) async fn listening(
        &self,
        kept: &mut Kept,
        servers: impl IntoIterator<Item = &ServerUrl>,
    ) -> Result<Option<Listening>, CycleError> {
        let servers: BTreeSet<RelayUrl> = servers.into_iter().map(|url| url.relay_url().clone()).collect();
        let news = self.store.news();
        let told = (news.sources, news.talk, servers.clone());
        if kept.told.as_ref() == Some(&told) {
            return Ok(None);
        }
        let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
        let watched = &self.settings.watched;
        let mut catalog = catalog::build(&events, watched, &self.bot(), catalog_limits(&self.config));
        catalog.repositories.retain(|repository| self.policy.admits_all(&repository.coordinates()).is_ok());
        let threads: Vec<Vec<EventId>> = catalog
            .repositories
            .iter()
            .map(|repository| kept.repositories.get(&repository.coordinate))
            .map(|known| known.map(|known| known.thread.keys().copied().collect()).unwrap_or_default())
            .collect();
        let repositories = catalog.repositories.iter().zip(threads.iter().map(Vec::as_slice));
        let alone = catalog.opted_out.values().flat_map(|one| one.maintainers.iter().copied());
        let maintainers = catalog.repositories.iter().flat_map(forget::maintainers).chain(alone);
        let concerns = Concerns::of(watched, repositories).minding_mute_lists(maintainers, &catalog.muters);
        let relays = self.config.bot.relays.iter().chain(&kept.usable).cloned().collect();
        kept.told = Some(told);
        Ok(Some(Listening { servers, relays, concerns }))
    }
}

fn silent(relay: &RelayUrl) -> RelayError {
    let reason = format!("silent for {} s", PATIENCE.as_secs());
    RelayError::Incomplete { relay: relay.to_string(), reason }
}
