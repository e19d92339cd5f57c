//! A stranger's check of a bot: finds its report, works out from signed events alone what its mirrors ought to have, and
//! looks whether the servers have it.
//!
//! Everything here comes from somebody who may be lying: addresses pass the guard, answers are bounded, and what the
//! report says of states counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use grasp_mirror_commands::clean;
use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};

use super::{
    CycleError,
    discovery::{RELAYS_PER_EVENT, write_relays},
    kept::Kept,
    servers::Server,
    survey::SOURCES,
    world::{AT_ONCE, World, catalog_limits},
};
use crate::{
    git::wire::WireError,
    model::{
        announcement::Announcement,
        coordinate::{Coordinate, npub},
        placement::Placement,
        policy::Reach,
        server::ServerUrl,
        state::State,
    },
    plan::{
        catalog::{self, Catalog, Limits, Repository, Watched},
        namespace,
        placement::{self, Grasp, Place},
    },
    report::{
        Report, ReportedRepository,
        audit::{self, Audit, Checked, Listing, Sight, Sums, difference, judge},
        document::IDENTIFIER,
    },
    store::StoreError,
};

/// Servers of a report that are looked at.
const SERVERS_MAX: usize = 256;

/// The longest reason, in characters.
const REASON_MAX: usize = 300;

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// Whose report.
    pub bot: PublicKey,
    /// Relays where it may be, by the word of whoever named the bot (NIP-19).
    pub hints: Vec<RelayUrl>,
    /// How many claims, chosen at random; `None` for all.
    pub sample: Option<usize>,
}

/// Why a report could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// This machine is at fault.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// Nobody has it.
    #[error("no report of {bot} was found; name a relay that has it with --relay. Asked: {asked}")]
    NoReport {
        /// Whose.
        bot: String,
        /// Which relays, and what they said.
        asked: String,
    },
    /// There is one, but it makes no sense.
    #[error("the report of {bot} (event {event}) cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        bot: String,
        /// In which event.
        event: EventId,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Cycle(error.into())
    }
}

/// One mirror that is said to be in sync.
struct Claim<'report> {
    repo: &'report ReportedRepository,
    server: ServerUrl,
    /// What the server ought to have; or why nobody can tell.
    signed: Result<Signed, String>,
}

/// What signed events say a mirror has.
struct Signed {
    /// Where; `None` when the server is none that could have it.
    place: Option<Place>,
    state: State,
    /// The states that say so: the maintainers', and where the bot's own governs the copy, that one.
    proofs: Vec<EventId>,
}

/// What is known beside the report, all of it signed.
struct Evidence {
    bot: PublicKey,
    catalog: Catalog,
    /// The bot's own announcements and states of its copies.
    announced: Vec<Announcement>,
    states: Vec<State>,
    /// How its copies are called.
    copies: BTreeMap<Coordinate, String>,
    servers: BTreeMap<ServerUrl, Server>,
}

impl World {
    /// Checks the newest report of a bot, which is looked for on the relays of the configuration and where the hints and
    /// the bot's relay list (NIP-65) say.
    ///
    /// # Errors
    ///
    /// [`AuditError`]. Servers and relays that fail are part of the result.
    pub async fn audit(&mut self, inquiry: Inquiry) -> Result<Audit, AuditError> {
        let Inquiry { bot, hints, sample } = inquiry;
        let event = self.find_report(bot, hints).await?;
        let report = read(&event)?;
        let mut told: Vec<&ReportedRepository> = report.repos.iter().filter(|repo| repo.copies > 0).collect();
        if let Some(sample) = sample {
            fastrand::shuffle(&mut told);
            told.truncate(sample);
        }
        let evidence = self.evidence(bot, &report, &told).await?;
        let mut claims: Vec<Claim<'_>> =
            told.iter().flat_map(|repo| evidence.claims(&report, repo)).collect();
        if let Some(sample) = sample {
            fastrand::shuffle(&mut claims);
            claims.truncate(sample);
        }
        let served = self.states_served(&claims, &evidence.servers).await;
        let claimed_at = report.cycle.finished_at;
        let check = async |claim: &Claim<'_>| {
            let signed_since = claim.signed.as_ref().is_ok_and(|signed| {
                let state = &signed.state.event;
                claim.repo.state != Some(state.id) && state.created_at > event.created_at
            });
            let sight = self.sight(claim, &evidence.servers, &served).await;
            let (verdict, reason) = judge(sight, signed_since);
            let reason = reason.map(|reason| clean(&reason, REASON_MAX));
            let place = claim.signed.as_ref().ok().and_then(|signed| signed.place.as_ref());
            Checked {
                a: claim.repo.a.clone(),
                server: claim.server.clone(),
                placement: place.map(|place| place.placement),
                verdict,
                reason,
                claimed_at,
            }
        };
        let mut checked: BTreeMap<Coordinate, Vec<Checked>> = BTreeMap::new();
        let mut checks = stream::iter(&claims).map(check).buffer_unordered(AT_ONCE);
        while let Some(one) = checks.next().await {
            checked.entry(one.a.clone()).or_default().push(one);
        }
        drop(checks);
        let copies = |a: &Coordinate| told.iter().find(|repo| repo.a == *a).map_or(0, |repo| repo.copies);
        let settled = checked.into_iter().flat_map(|(a, all)| audit::settle(all, copies(&a)));
        let claims: Vec<Checked> = settled.collect();
        Ok(Audit {
            bot: npub(&bot),
            report: event.id,
            signed_at: event.created_at.as_secs(),
            claimed_at,
            age_secs: Timestamp::now().as_secs().saturating_sub(claimed_at),
            totals: Sums::of(&claims, &report),
            claims,
            contradictions: audit::contradictions(&report),
        })
    }

    /// The newest report of `bot` that a relay has.
    async fn find_report(&self, bot: PublicKey, hints: Vec<RelayUrl>) -> Result<Event, AuditError> {
        let config = &self.config.bot;
        let mut relays: BTreeSet<RelayUrl> =
            config.relays.iter().chain(&config.index_relays).cloned().collect();
        relays.extend(self.usable_relays(hints.into_iter().take(RELAYS_PER_EVENT)).await);
        let reports = Filter::new().kind(Kind::ApplicationSpecificData).author(bot).identifier(IDENTIFIER);
        let lists = Filter::new().kind(Kind::RelayList).author(bot);
        let filters = [reports.clone(), lists.clone()];
        let mut said = self.read_all(&relays, &filters).await;
        let list = self.store.query(lists).await?.into_iter().next();
        let named = list.as_ref().map(write_relays).unwrap_or_default();
        let named = named.iter().take(RELAYS_PER_EVENT).filter_map(|relay| RelayUrl::parse(relay).ok());
        let named: BTreeSet<RelayUrl> = named.filter(|relay| !relays.contains(relay)).collect();
        let named = self.usable_relays(named).await.into_iter().collect();
        said.extend(self.read_all(&named, &filters).await);
        let found = self.store.query(reports).await?.into_iter().next();
        found.ok_or_else(|| AuditError::NoReport { bot: npub(&bot), asked: said.join("; ") })
    }

    /// Brings what `filters` match into the store. Returns what became of each relay, for people.
    async fn read_all(&self, relays: &BTreeSet<RelayUrl>, filters: &[Filter]) -> Vec<String> {
        stream::iter(relays)
            .map(|relay| async move {
                match self.relays.read(relay, filters.to_vec()).await {
                    Ok(events) if events.is_empty() => format!("{relay} has nothing of it"),
                    Ok(_) => format!("{relay} knows its relay list only"),
                    Err(error) => error.to_string(),
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Brings together what maintainers and bot have signed, and who the servers are.
    async fn evidence(
        &mut self,
        bot: PublicKey,
        report: &Report,
        told: &[&ReportedRepository],
    ) -> Result<Evidence, AuditError> {
        let repositories: BTreeSet<Coordinate> = told.iter().map(|repo| repo.a.clone()).collect();
        // The bot's own announcements say where its copies are.
        self.settings.watched = Watched {
            authors: BTreeSet::from([bot]),
            repositories: repositories.clone(),
            ..Watched::default()
        };
        let servers = self.who_are(report).await?;
        self.discover(&servers, &mut Kept::default()).await?;
        let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
        let limits = Limits { max_repos_per_author: usize::MAX, ..catalog_limits(&self.config) };
        let catalog = catalog::build(&events, &Watched { repositories, ..Watched::default() }, &bot, limits);
        let own = events.into_iter().filter(|event| event.pubkey == bot);
        let (announced, others): (Vec<Event>, Vec<Event>) =
            own.partition(|event| event.kind == Kind::GitRepoAnnouncement);
        let announced: Vec<Announcement> = announced.into_iter().filter_map(Announcement::read).collect();
        let states = others.into_iter().filter_map(|event| State::read(event).ok()).collect();
        let copies = namespace::identifiers(&catalog.repositories, &announced);
        Ok(Evidence { bot, catalog, announced, states, copies, servers })
    }

    /// The servers that the report says are in use. One whose address may not be used is none that can be reached.
    async fn who_are(&self, report: &Report) -> Result<BTreeMap<ServerUrl, Server>, CycleError> {
        let used = report.servers.iter().filter(|server| server.unused.is_none());
        let (mut usable, mut servers) = (BTreeSet::new(), BTreeMap::new());
        for server in used.take(SERVERS_MAX) {
            match self.guard.check(server.url.http_base()).await {
                Ok(()) => {
                    usable.insert(server.url.clone());
                }
                Err(error) => {
                    let down = Some(error.to_string());
                    servers.insert(server.url.clone(), Server::new(Grasp::Unknown, None, down));
                }
            }
        }
        servers.extend(self.introduced(usable, &mut Kept::default(), Timestamp::now()).await?);
        Ok(servers)
    }

    /// Which of the states that the claims need each server serves, or why that could not be read.
    async fn states_served(
        &self,
        claims: &[Claim<'_>],
        servers: &BTreeMap<ServerUrl, Server>,
    ) -> BTreeMap<ServerUrl, Result<BTreeSet<EventId>, String>> {
        let mut wanted: BTreeMap<&ServerUrl, BTreeSet<EventId>> = BTreeMap::new();
        for claim in claims.iter().filter(|claim| servers.get(&claim.server).is_some_and(Server::is_up)) {
            let proofs = claim.signed.iter().flat_map(|signed| signed.proofs.iter().copied());
            wanted.entry(&claim.server).or_default().extend(proofs);
        }
        stream::iter(wanted)
            .map(|(server, ids)| async move {
                let ids: Vec<EventId> = ids.into_iter().collect();
                let served = self.relays.serves(server.relay_url(), &ids).await;
                (server.clone(), served.map_err(|error| error.to_string()))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn sight(
        &self,
        claim: &Claim<'_>,
        servers: &BTreeMap<ServerUrl, Server>,
        served: &BTreeMap<ServerUrl, Result<BTreeSet<EventId>, String>>,
    ) -> Sight {
        let serves_state = match (served.get(&claim.server), &claim.signed) {
            (Some(Ok(ids)), Ok(signed)) => Ok(signed.proofs.iter().any(|id| ids.contains(id))),
            (Some(Err(reason)), _) => Err(reason.clone()),
            _ => Err("its events were not read".to_owned()),
        };
        let refs = match (&claim.signed, servers.get(&claim.server)) {
            (_, None) => Listing::Unseen(format!("one of more than {SERVERS_MAX} servers")),
            (_, Some(Server { down: Some(reason), .. })) => Listing::Unseen(reason.clone()),
            (Err(reason), _) => Listing::Unseen(reason.clone()),
            (_, Some(Server { grasp: Grasp::NotGrasp(reason), .. })) => {
                Listing::Absent(format!("no GRASP server: {reason}"))
            }
            (Ok(Signed { place: None, .. }), _) => Listing::Absent("it has no place there".to_owned()),
            (Ok(Signed { place: Some(place), state, .. }), _) => {
                match self.listed(&claim.server, place).await {
                    Ok(listed) => difference(&state.refs, &listed).map_or(Listing::Same, Listing::Differ),
                    Err(error) if says_no(&error) => Listing::Absent(error.to_string()),
                    Err(error) => Listing::Unseen(error.to_string()),
                }
            }
        };
        Sight { refs, serves_state }
    }
}

impl Evidence {
    /// What `report` claims about `repo`, server by server.
    fn claims<'report>(&self, report: &Report, repo: &'report ReportedRepository) -> Vec<Claim<'report>> {
        let found = self.signed(&repo.a);
        let copy = self.copies.get(&repo.a).map(String::as_str).unwrap_or_default();
        let announced = self.announced.iter().find(|own| own.coordinate.identifier == copy);
        let named = |server: &ServerUrl| {
            let by_maintainer = found.as_ref().is_ok_and(|(one, _)| one.listed_by(server).is_some());
            by_maintainer || announced.is_some_and(|announcement| announcement.lists(server))
        };
        let servers = audit::claimed(report, repo, named);
        let grasp = |url: &ServerUrl| Some((url.clone(), self.servers.get(url)?.grasp.clone()));
        let grasps: BTreeMap<ServerUrl, Grasp> = servers.iter().filter_map(grasp).collect();
        let known = found.as_ref().map(|(repository, state)| {
            let mut repository = (*repository).clone();
            if let Some(announced) = announced {
                repository.heed_copy(announced);
            }
            (*state, placement::places(&repository, &grasps, Reach::Everywhere, &self.bot, copy))
        });
        let claim = |server: ServerUrl| {
            let signed = match &known {
                Ok((state, places)) => {
                    let place = places.get(&server).cloned();
                    let proofs = self.proofs(state, copy, place.as_ref());
                    Ok(Signed { place, state: (*state).clone(), proofs })
                }
                Err(reason) => Err((*reason).clone()),
            };
            Claim { repo, server, signed }
        };
        servers.into_iter().map(claim).collect()
    }

    /// The repository and its state.
    fn signed(&self, coordinate: &Coordinate) -> Result<(&Repository, &State), String> {
        let catalog = &self.catalog;
        let Some(repository) = catalog.repositories.iter().find(|one| one.coordinate == *coordinate) else {
            if let Some(opt_out) = catalog.opted_out.get(coordinate) {
                return Err(opt_out.reason());
            }
            let gone = catalog.deleted.contains(coordinate);
            let what = if gone { "its author has deleted it" } else { "no announcement of it was found" };
            return Err(what.to_owned());
        };
        if let Some(obstacle) = &repository.obstacle {
            return Err(obstacle.reason().to_owned());
        }
        let state = repository.state.as_ref().ok_or("no state signed by a maintainer was found")?;
        Ok((repository, state))
    }

    /// The states that say at `place` what `state` says: itself, and the bot's own of `copy` if it names the same refs
    /// and no maintainer's governs there.
    fn proofs(&self, state: &State, copy: &str, place: Option<&Place>) -> Vec<EventId> {
        let governs = place.is_some_and(|place| place.placement == Placement::Namespace);
        let own = self.states.iter().filter(|_| governs);
        let same = own.filter(|own| own.coordinate.identifier == copy && own.refs == state.refs);
        same.map(|own| own.event.id).chain([state.event.id]).collect()
    }
}

fn read(event: &Event) -> Result<Report, AuditError> {
    let unreadable = |reason| AuditError::Unreadable { bot: npub(&event.pubkey), event: event.id, reason };
    let report: Report = serde_json::from_str(&event.content)
        .map_err(|error| unreadable(clean(&error.to_string(), REASON_MAX)))?;
    match report.version {
        1 => Ok(report),
        other => Err(unreadable(format!("its version is {other}, known here is 1"))),
    }
}

/// Whether a server answered, and what it answered is that it has no such repository.
fn says_no(error: &WireError) -> bool {
    matches!(
        error,
        WireError::RepositoryUnknown { .. }
            | WireError::Malformed { .. }
            | WireError::Status { status: 404 | 410, .. }
    )
}
