//! Looks before anything is done: what is wanted, where, and what the servers serve already.

use std::collections::{BTreeMap, BTreeSet};

use futures::join;
use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};

use super::{
    CycleError, Trigger,
    kept::Kept,
    late::{Answered, Late},
    servers::Server,
    sign::signing_name,
    subject::{Ground, Subject},
    threads::Talked,
    worked_out::{Worked, grasps},
    world::World,
};
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl},
    plan::{
        catalog::Repository,
        conversation::Threads,
        holdings::Recent,
        record::{Ending, RepositoryRecord},
        rest::{self, Look, Terms},
        signing::Signing,
        taken_out::TakenOut,
    },
    report::document::{LeftAlone, NotFound, ServerOutcome},
    store::records::Snapshot,
};

/// Everything known before the first change.
#[derive(Debug, Default)]
pub struct Survey {
    /// The servers and how they are.
    pub servers: BTreeMap<ServerUrl, Server>,
    /// Servers that the operator's rules keep away.
    pub(super) denied: Vec<ServerOutcome>,
    /// What is left alone.
    pub left_alone: LeftAlone,
    /// What is watched and nobody announces.
    pub(super) not_found: NotFound,
    /// One subject a repository.
    pub subjects: Vec<Subject>,
    /// Repositories about which nothing is new and which every server serves, with what is to be noted of them.
    pub(super) resting: BTreeMap<Coordinate, Endings>,
    /// New events of the bot's own that the mirrors need, signed and not yet stored or sent.
    pub signed: Vec<Event>,
    /// Repositories that a job is at, or was at while this was looked up, and their states.
    pub(super) busy: BTreeMap<Coordinate, Option<EventId>>,
}

/// Who else may be at the repositories that are worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nobody: the caller has the turns of the families.
    Nobody,
    /// Jobs, which are not to come in between.
    Jobs,
}

/// How those mirrors of a repository that rests end that do not stand as they stood.
pub(super) type Endings = BTreeMap<ServerUrl, Ending>;

/// What a catalog is made from.
pub(super) const SOURCES: [Kind; 4] =
    [Kind::GitRepoAnnouncement, Kind::RepoState, Kind::EventDeletion, Kind::MuteList];

/// The name of a repository's record.
pub(super) fn record_name(coordinate: &Coordinate) -> String {
    format!("mirrors/{coordinate}")
}

/// Repositories whose conversations are looked up together.
const LOOKED_UP_TOGETHER: usize = 100;

/// Above this number, all records are read at once.
const RECORDS_ONE_BY_ONE: usize = 20;

impl World {
    /// Reads servers and relays, and works out what is wanted. Changes nothing outside the store.
    ///
    /// What `kept` tells from the cycle before is not worked out again. With a `trigger` the work of a cycle follows:
    /// then some repositories are looked at in depth.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails. Relays and servers that fail are part of the result.
    pub(super) async fn survey(
        &self,
        kept: &mut Kept,
        trigger: Option<Trigger>,
        now: Timestamp,
    ) -> Result<Survey, CycleError> {
        self.take_up().await?;
        let mut servers = self.ask_servers(kept, now).await?;
        if let Some(worked_out) = &kept.worked_out {
            let discovered = worked_out.discovered.clone();
            servers.extend(self.introduced(discovered, kept, now).await?);
        }
        let mut of_late = Vec::new();
        if !kept.repositories.is_empty() {
            let up = servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.relay_url());
            of_late.extend(up.filter_map(|relay| kept.recent.remove_entry(relay)));
        }
        let (unread, answers) = join!(self.discover(&servers, kept), self.ask_of_late(of_late));
        let unread = unread?;
        if !kept.repositories.is_empty() {
            self.look_again(&mut servers, &unread, kept).await?;
        }
        self.note_down(&mut servers, now).await?;
        let mut catalog = None;
        let sources = self.store.news().sources;
        let grasps = grasps(&servers);
        if kept.worked_out.as_ref().is_none_or(|known| known.sources != sources || known.grasps != grasps) {
            let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
            let worked = self.work_out(events, &mut servers, kept, now).await?;
            if worked.repositories.is_empty() {
                // A server that broke off has not said that there is nothing.
                for (_, server) in servers.iter_mut().filter(|(url, _)| unread.contains_key(url.relay_url()))
                {
                    server
                        .down
                        .get_or_insert_with(|| "its announcements could not be read to the end".to_owned());
                }
            }
            catalog = Some(worked);
        }

        let in_depth = self.due_in_depth(catalog.as_ref(), trigger, kept, now).await?;
        let mut anew = self.collect(catalog.as_ref(), &servers, answers, &in_depth, kept, now).await?;
        anew.extend(self.decided(kept, now).await?);
        let resting = self.resting(&servers, &anew, trigger, kept, now);
        let left_alone = kept.worked_out.as_ref().map(|known| known.left_alone.clone()).unwrap_or_default();
        let mut survey = Survey { servers, left_alone, resting, ..Survey::default() };
        if catalog.is_none() && survey.resting.len() < kept.repositories.len() {
            let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
            catalog = Some(self.work_out(events, &mut survey.servers, kept, now).await?);
            survey.resting.retain(|coordinate, _| kept.repositories.contains_key(coordinate));
        }
        if let Some(catalog) = catalog {
            self.subjects(catalog, &mut survey, kept, (&in_depth, Beside::Jobs), now).await?;
            self.read_back(&mut survey, kept, now).await?;
        }
        survey.denied = self.denied_servers(kept);
        survey.not_found = not_found(&survey.servers, unread, kept);
        for (url, _) in survey.servers.iter().filter(|(_, server)| server.down.is_some()) {
            kept.introduced.remove(url);
        }
        if trigger.is_some() {
            self.note_tries(&mut survey.servers).await?;
        }
        Ok(survey)
    }

    /// Servers that broke off get a second chance; then they are down.
    async fn look_again(
        &self,
        servers: &mut BTreeMap<ServerUrl, Server>,
        unread: &BTreeMap<RelayUrl, String>,
        kept: &mut Kept,
    ) -> Result<(), CycleError> {
        let authors: Vec<PublicKey> =
            kept.people.iter().flat_map(|people| &people.authors).copied().collect();
        let broken = servers.iter().filter(|(url, _)| unread.contains_key(url.relay_url()));
        let todo: Vec<_> = broken.map(|(url, _)| (url.relay_url().clone(), authors.clone())).collect();
        if todo.is_empty() {
            return Ok(());
        }
        let asked: Vec<RelayUrl> = todo.iter().map(|(relay, _)| relay.clone()).collect();
        let failed = self.ask_relays(todo, kept).await?;
        for relay in asked.into_iter().filter(|relay| !failed.contains_key(relay)) {
            kept.compared.insert(relay, authors.iter().copied().collect());
        }
        for (url, server) in servers {
            if let Some(error) = failed.get(url.relay_url()) {
                server.down.get_or_insert_with(|| error.clone());
            }
        }
        Ok(())
    }

    async fn due_in_depth(
        &self,
        catalog: Option<&Worked>,
        trigger: Option<Trigger>,
        kept: &Kept,
        now: Timestamp,
    ) -> Result<BTreeSet<Coordinate>, CycleError> {
        let interval = self.config.bot.cycle_interval.as_secs();
        match (trigger, catalog) {
            (None, _) => Ok(BTreeSet::new()),
            (Some(_), Some(catalog)) if kept.repositories.is_empty() => {
                let records = self.records.snapshot().await?;
                let checked: Vec<_> = catalog
                    .repositories
                    .iter()
                    .map(|repository| {
                        let record = records.read::<RepositoryRecord>(&record_name(&repository.coordinate));
                        (&repository.coordinate, record.and_then(|record| record.as_of(now).deep_checked_at))
                    })
                    .collect();
                Ok(rest::due_in_depth(checked.into_iter(), now, interval))
            }
            (Some(_), _) => {
                let known = kept.repositories.iter();
                let checked = known.map(|(coordinate, known)| (coordinate, known.record.deep_checked_at));
                Ok(rest::due_in_depth(checked, now, interval))
            }
        }
    }

    /// Brings what was said into the store, and returns the repositories that have to be worked out anew.
    async fn collect(
        &self,
        catalog: Option<&Worked>,
        servers: &BTreeMap<ServerUrl, Server>,
        answers: Vec<Answered>,
        in_depth: &BTreeSet<Coordinate>,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<BTreeSet<Coordinate>, CycleError> {
        let everywhere: BTreeSet<RelayUrl> = servers
            .iter()
            .filter(|(_, server)| server.is_up())
            .map(|(url, _)| url.relay_url().clone())
            .collect();
        let mut late = Late::default();
        if kept.repositories.is_empty() {
            kept.recent.extend(answers.into_iter().map(Answered::unheard));
        } else {
            late = self.listen(&everywhere, answers, kept, now).await?;
        }
        let mut anew = late.touched;
        anew.extend(in_depth.iter().cloned());
        anew.extend(kept.repositories.keys().filter(|coordinate| self.is_afresh(coordinate)).cloned());
        // Of what is denied nothing more is fetched.
        anew.retain(|coordinate| kept.repositories.get(coordinate).is_none_or(|known| self.admits(known)));
        let mut to_read: Vec<Talked> = Vec::new();
        for coordinate in &anew {
            to_read.extend(kept.repositories.get(coordinate).map(Talked::from));
        }
        let new = catalog.iter().flat_map(|catalog| &catalog.repositories);
        let new = new.filter(|repository| !kept.repositories.contains_key(&repository.coordinate));
        let new = new.filter(|repository| self.policy.admits_all(&repository.coordinates()).is_ok());
        to_read.extend(new.map(Talked::from));
        let first_time = kept.repositories.is_empty();
        let mut per_relay = self.whom_to_ask(&to_read, &everywhere, kept).await;
        // A relay that was not listened to is read to the end, for all.
        let told = self.store.news().talk;
        let unknown = !late.unknown.is_empty();
        for known in kept.repositories.values().filter(|known| unknown && self.admits(known)) {
            for relay in late
                .unknown
                .iter()
                .filter(|relay| everywhere.contains(*relay) || known.relays.contains(*relay))
            {
                let coordinates = known.coordinates.iter().map(ToString::to_string);
                per_relay.entry(relay.clone()).or_default().extend(coordinates);
            }
        }
        let read: Vec<RelayUrl> = per_relay.keys().cloned().collect();
        let failed = self.collect_threads(per_relay).await?;
        for relay in read.into_iter().filter(|relay| !failed.contains(relay)) {
            if first_time || late.unknown.contains(&relay) {
                kept.read_at.insert(relay.clone(), now);
                if everywhere.contains(&relay) {
                    kept.recent.insert(relay, Recent::after(now));
                }
            }
        }
        if !late.unknown.is_empty() && self.store.news().talk != told {
            anew.extend(kept.repositories.keys().cloned());
        }
        Ok(anew)
    }

    /// The repositories for which nothing is to be done.
    fn resting(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        anew: &BTreeSet<Coordinate>,
        trigger: Option<Trigger>,
        kept: &Kept,
        now: Timestamp,
    ) -> BTreeMap<Coordinate, Endings> {
        let terms = |coordinate: &Coordinate| {
            let max_repo_bytes = self.max_repo_bytes(coordinate);
            Terms { now, patient: trigger == Some(Trigger::Timer), max_repo_bytes }
        };
        let looks = servers.iter().map(|(url, server)| {
            let relay = url.relay_url();
            let look = match (&server.down, kept.holdings.get(relay)) {
                (Some(reason), _) if server.left_alone => Look::LeftAlone(reason),
                (Some(reason), _) => Look::Down(reason),
                (None, Some(holdings)) if kept.compared.contains_key(relay) => Look::Has(holdings),
                _ => Look::NotSeen,
            };
            (url, look)
        });
        let looks: BTreeMap<&ServerUrl, Look<'_>> = looks.collect();
        let look = |url: &ServerUrl| looks.get(url).copied().unwrap_or(Look::NotSeen);
        let known = kept.repositories.iter().filter(|(coordinate, _)| !anew.contains(*coordinate));
        known
            .filter_map(|(coordinate, known)| {
                Some((coordinate.clone(), rest::endings(known, terms(coordinate), look)?))
            })
            .collect()
    }

    /// Works out every repository that does not rest, and that no job is at.
    pub(super) async fn subjects(
        &self,
        catalog: Worked,
        survey: &mut Survey,
        kept: &Kept,
        (in_depth, beside): (&BTreeSet<Coordinate>, Beside),
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let Worked { repositories, own, copies } = catalog;
        let todo: Vec<Repository> = repositories
            .into_iter()
            .filter(|repository| !survey.resting.contains_key(&repository.coordinate))
            .collect();
        let records = match todo.len() {
            ..=RECORDS_ONE_BY_ONE => None,
            _ => Some(self.records.snapshot().await?),
        };
        let out = self.taken_out().await?;
        let candidates = self.candidates(&survey.servers, kept);
        let ground = Ground { candidates: &candidates, own: &own, copies: &copies, in_depth, now };
        let mut todo = todo.into_iter();
        loop {
            let some: Vec<Repository> = todo.by_ref().take(LOOKED_UP_TOGETHER).collect();
            if some.is_empty() {
                return Ok(());
            }
            let coordinates: Vec<String> =
                some.iter().flat_map(Repository::coordinates).map(|name| name.to_string()).collect();
            let most = self.config.limits.max_events_per_repo.saturating_mul(some.len());
            let events = self.thread(&coordinates, most).await?;
            let threads = Threads::of(&events);
            for repository in some {
                // From here on: the record that is read and the copies that are signed are to be the last ones.
                let turn = match beside {
                    Beside::Nobody => None,
                    Beside::Jobs => {
                        let turn = self.shared.join_unless_followed(&repository.coordinate);
                        if turn.is_none() {
                            let state = repository.state_id();
                            survey.busy.insert(repository.coordinate.clone(), state);
                            continue;
                        }
                        turn
                    }
                };
                let remembered =
                    self.what_is_remembered(&repository.coordinate, records.as_ref(), kept, now).await?;
                let (mut subject, signed) =
                    self.subject_as_it_stands(repository, remembered, &threads, &ground, &out).await?;
                subject.turn = turn;
                survey.subjects.push(subject);
                survey.signed.extend(signed);
            }
        }
    }

    /// What is remembered of a repository, as far as something is.
    async fn what_is_remembered(
        &self,
        coordinate: &Coordinate,
        records: Option<&Snapshot>,
        kept: &Kept,
        now: Timestamp,
    ) -> Result<(RepositoryRecord, Signing), CycleError> {
        let (name, signing) = (record_name(coordinate), signing_name(coordinate));
        let record: Option<RepositoryRecord> = match (kept.repositories.get(coordinate), records) {
            (Some(known), _) => {
                let mut record = known.record.clone();
                record.confirm(&kept.proved);
                Some(record)
            }
            (None, Some(records)) => records.read(&name),
            (None, None) => self.records.read(&name).await?,
        };
        let signing = match records {
            Some(records) => records.read(&signing),
            None => self.records.read(&signing).await?,
        };
        Ok((record.unwrap_or_default().as_of(now), signing.unwrap_or_default()))
    }

    /// Works out one repository, with what people decided about its states and said of its servers.
    async fn subject_as_it_stands(
        &self,
        mut repository: Repository,
        (mut record, mut signing): (RepositoryRecord, Signing),
        threads: &Threads<'_>,
        ground: &Ground<'_>,
        taken_out: &TakenOut,
    ) -> Result<(Subject, Vec<Event>), CycleError> {
        self.hold_back(&mut repository, &mut record, ground.now).await?;
        if signing.note_come(&repository) {
            self.note_come(&repository).await?;
        }
        signing.take_out(taken_out.of(&repository.coordinate));
        signing.look_at(&repository);
        repository.signed_on = signing.signed_on().cloned().collect();
        let (mut subject, signed) = self.subject(repository, record, threads, ground)?;
        let removed: Vec<&str> = signing.removed().iter().map(ServerUrl::host).collect();
        if !removed.is_empty() {
            let removed = removed.join(", ");
            let note = format!("taken out of its announcement by hand, and not added again: {removed}");
            subject.notes.push(note);
        }
        Ok((subject, signed))
    }
}

/// What nobody announces, and where that was looked for beside the servers; `unread` are those that broke off at first.
fn not_found(
    servers: &BTreeMap<ServerUrl, Server>,
    unread: BTreeMap<RelayUrl, String>,
    kept: &Kept,
) -> NotFound {
    let Some(worked_out) = &kept.worked_out else { return NotFound::default() };
    let servers: BTreeSet<&RelayUrl> = servers.keys().map(ServerUrl::relay_url).collect();
    let read = kept.compared.keys().filter(|relay| !servers.contains(relay));
    let is_unread = |relay: &RelayUrl| !servers.contains(relay) && !kept.compared.contains_key(relay);
    NotFound {
        relays: read.count(),
        unread: unread.into_keys().filter(is_unread).collect(),
        ..worked_out.not_found.clone()
    }
}

impl Survey {
    /// How the servers are, for people.
    #[must_use]
    pub fn server_outcomes(&self) -> Vec<ServerOutcome> {
        self.servers.iter().map(|(url, server)| server.outcome(url)).collect()
    }
}
