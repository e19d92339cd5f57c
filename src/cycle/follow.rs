//! Between cycles: the families of which something was heard are walked at once.
//!
//! The same subjects, steps and records as in a cycle. Relays are not asked, since what they had to say was heard and
//! is stored; a server that does not answer in a moment is left to a cycle, which asks who is up.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use nostr::prelude::{Event, EventId, Filter, Kind, RelayUrl, Timestamp};
use tokio::{sync::mpsc, time::timeout};

use super::{
    CycleError, Trigger,
    kept::Kept,
    lanes::Lanes,
    live::Listening,
    repository::Course,
    shared::{Shared, Turns},
    sign::AllPlaces,
    subject::Subject,
    survey::{Beside, SOURCES, Survey},
    world::{World, catalog_limits},
};
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{catalog, forget, live::Concerns, record::HeldConversation, rest::Known},
    report::document::RepositoryOutcome,
    transfer::Asked,
};

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a walk of some families comes to.
pub(super) struct Walked {
    /// Of those that were not told already.
    pub(super) outcomes: Vec<RepositoryOutcome>,
    pub(super) known: Vec<(Coordinate, Known)>,
    /// Where their mirrors belong.
    pub(super) places: AllPlaces,
}

/// Tells what became of repositories, and lets others at a family when all of it is done.
pub(super) struct Telling<'a> {
    shared: &'a Shared,
    turns: Turns,
    /// Repositories of each family that are being walked still.
    left: HashMap<String, usize>,
    told: &'a mpsc::Sender<RepositoryOutcome>,
}

impl Telling<'_> {
    fn expect(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            *self.left.entry(subject.repository.coordinate.identifier.clone()).or_default() += 1;
        }
    }

    async fn tell(&mut self, outcome: RepositoryOutcome) {
        let family = outcome.coordinate.identifier.clone();
        self.shared.note(outcome.clone());
        // Nobody wants to know when the program stops.
        let _ = self.told.send(outcome).await;
        if let Some(left) = self.left.get_mut(&family) {
            *left -= 1;
            if *left == 0 {
                self.turns.remove(&family);
            }
        }
    }
}

impl World {
    /// Walks the repositories of the families that `turns` are for, and tells `told` what became of each.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails; everything else belongs to a mirror.
    pub async fn follow_up(
        &mut self,
        turns: Turns,
        told: &mpsc::Sender<RepositoryOutcome>,
    ) -> Result<(), CycleError> {
        let mut kept = mem::take(&mut self.kept);
        let done = Box::pin(self.walk_and_sign(&mut kept, turns, told)).await;
        self.kept = kept;
        done
    }

    async fn walk_and_sign(
        &self,
        kept: &mut Kept,
        turns: Turns,
        told: &mpsc::Sender<RepositoryOutcome>,
    ) -> Result<(), CycleError> {
        let now = Timestamp::now();
        let families = turns.keys().cloned().collect();
        let mut telling = Telling { shared: &self.shared, left: HashMap::new(), turns, told };
        if self.signers.keys().is_empty() {
            Box::pin(self.walk_families(kept, &families, now, Some(&mut telling))).await?;
            return Ok(());
        }
        let Walked { mut outcomes, places, .. } =
            Box::pin(self.walk_families(kept, &families, now, None)).await?;
        let servers = self.ask_servers(kept, now).await?;
        self.sign_and_walk(kept, &servers, &places, &mut outcomes, Beside::Nobody).await?;
        for outcome in outcomes {
            telling.tell(outcome).await;
        }
        Ok(())
    }

    /// Walks the families once, of which the caller has the turns.
    pub(super) async fn walk_families(
        &self,
        kept: &mut Kept,
        families: &BTreeSet<String>,
        now: Timestamp,
        mut telling: Option<&mut Telling<'_>>,
    ) -> Result<Walked, CycleError> {
        self.take_up().await?;
        self.relays.start_over().await;
        // Others may have written the records.
        kept.repositories.clear();
        let as_of = self.shared.word.as_of_now();
        let mut survey = Survey { servers: self.ask_servers(kept, now).await?, ..Survey::default() };
        self.note_down(&mut survey.servers, now).await?;
        let events = self.sources_of(families).await?;
        let mut worked = self.work_out(events, &mut survey.servers, kept, now).await?;
        worked.keep_only(families);
        self.subjects(worked, &mut survey, kept, (&BTreeSet::new(), Beside::Nobody), now).await?;
        for event in &survey.signed {
            self.store.save(event).await?;
        }
        self.note_tries(&mut survey.servers).await?;
        self.say_joined(&survey.subjects, &survey.signed).await;
        self.see_what_is_served(&mut survey, now).await;
        let lanes = Lanes::new(&survey, self.config.limits.transfers, None, Arc::clone(&self.relays));
        let subjects = mem::take(&mut survey.subjects);
        if let Some(telling) = &mut telling {
            telling.expect(&subjects);
        }
        let places =
            subjects.iter().map(|subject| (subject.repository.coordinate.clone(), subject.places.clone()));
        let places = places.collect();
        let course =
            Course { servers: &survey.servers, lanes: &lanes, trigger: Trigger::Live, now, as_of: &as_of };
        let mut walks: FuturesUnordered<_> =
            subjects.into_iter().map(|subject| Box::pin(self.mirror_repository(subject, &course))).collect();
        let mut walked = Walked { outcomes: Vec::new(), known: Vec::new(), places };
        while let Some(end) = walks.next().await {
            let (outcome, known) = end?;
            walked.known.push((outcome.coordinate.clone(), known));
            match &mut telling {
                Some(telling) => telling.tell(outcome).await,
                None => walked.outcomes.push(outcome),
            }
        }
        self.write_scoreboards(now).await?;
        Ok(walked)
    }

    /// What a catalog is made from that is right for `families`. The states of the others are most of what there is.
    async fn sources_of(&self, families: &BTreeSet<String>) -> Result<Vec<Event>, CycleError> {
        let others = SOURCES.into_iter().filter(|kind| *kind != Kind::RepoState);
        let states = || Filter::new().kind(Kind::RepoState);
        // The bot's copies may be called otherwise.
        let filters =
            [Filter::new().kinds(others), states().identifiers(families), states().author(self.bot())];
        let mut events = BTreeSet::new();
        for filter in filters {
            events.extend(self.store.query(filter).await?);
        }
        Ok(events.into_iter().collect())
    }

    /// Asks each server which of the wanted announcements and states it serves. One that does not say counts as down,
    /// but for the mirrors for which there is nothing new.
    async fn see_what_is_served(&self, survey: &mut Survey, now: Timestamp) {
        let up = survey.servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.clone());
        let asks = up.map(|url| {
            let wanted = survey.subjects.iter().filter_map(|subject| subject.wanted.get(&url));
            let proofs: BTreeSet<EventId> = wanted.flat_map(|wanted| wanted.proofs().copied()).collect();
            let proofs: Vec<EventId> = proofs.into_iter().collect();
            async move {
                let served = self.served(url.relay_url(), &proofs).await;
                (url, served)
            }
        });
        let answers: HashMap<ServerUrl, Result<BTreeSet<EventId>, String>> =
            join_all(asks).await.into_iter().collect();
        for subject in &mut survey.subjects {
            let servers: Vec<ServerUrl> = subject.wanted.keys().cloned().collect();
            for url in servers {
                if let Some(Ok(served)) = answers.get(&url) {
                    subject.note_served(&url, |event| served.contains(&event.id), now);
                } else if subject.has_nothing_new_for(&url, now) {
                    subject.standing.insert(url);
                }
            }
        }
        for (url, server) in &mut survey.servers {
            if let Some(Err(reason)) = answers.get(url) {
                server.down = Some(reason.clone());
            }
        }
    }

    /// Which of `proofs` the server at `relay` serves; or why it did not say.
    async fn served(&self, relay: &RelayUrl, proofs: &[EventId]) -> Result<BTreeSet<EventId>, String> {
        self.transfer.is_heard(relay)?;
        match timeout(PATIENCE, self.relays.serves(relay, proofs)).await {
            Ok(served) => {
                self.transfer.note_answer(relay, Asked::Look, None);
                served.map_err(|error| error.to_string())
            }
            Err(_) => {
                let reason = format!("{relay} was silent for {} s", PATIENCE.as_secs());
                self.transfer.note_answer(relay, Asked::Look, Some(&reason));
                Err(reason)
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
        let mut concerns =
            Concerns::of(watched, repositories).minding_mute_lists(maintainers, &catalog.muters);
        if self.config.servers.discover {
            concerns = concerns.minding_server_lists();
        }
        // Those that nobody names any more are left.
        let named: BTreeSet<&RelayUrl> = kept.repositories.values().flat_map(|known| &known.relays).collect();
        kept.usable.retain(|relay| named.contains(relay));
        let own = self.config.bot.relays.iter().cloned().collect();
        let relays = kept.usable.clone();
        kept.told = Some(told);
        Ok(Some(Listening { own, servers, relays, concerns }))
    }
}

impl Subject {
    /// Whether the mirror on `server` was last seen to have all there is.
    fn has_nothing_new_for(&self, server: &ServerUrl, now: Timestamp) -> bool {
        let state = self.repository.state_id();
        self.record.mirrors.get(server).is_some_and(|record| {
            let covers = |held: &HeldConversation| held.covers(&self.fingerprint, now);
            record.status == MirrorStatus::InSync
                && record.state == state
                && record.conversation.as_ref().is_some_and(covers)
        })
    }
}
