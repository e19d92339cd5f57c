//! Looks before anything is done: what is wanted, where, and what the servers serve already.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use sha2::{Digest, Sha256};

use super::{
    CycleError,
    servers::Server,
    world::{World, catalog_limits},
};
use crate::{
    model::{
        announcement::Announcement, coordinate::Coordinate, placement::Placement, server::ServerUrl,
        state::State,
    },
    plan::{
        catalog::{self, Catalog, Obstacle, Repository},
        converge::{Seen, Wanted},
        conversation::{self, PullRequest},
        namespace,
        placement::{self, Grasp, Place},
        record::RepositoryRecord,
    },
    report::document::ServerOutcome,
};

/// Everything known before the first change.
#[derive(Debug)]
pub struct Survey {
    /// The servers and how they are.
    pub servers: BTreeMap<ServerUrl, Server>,
    /// What is wanted, and what is left alone.
    pub catalog: Catalog,
    /// One subject a repository.
    pub subjects: Vec<Subject>,
    /// New events of the bot's own that the mirrors need, signed and not yet stored or sent.
    pub signed: Vec<Event>,
}

/// One repository with all its mirrors.
#[derive(Debug)]
pub struct Subject {
    /// What is wanted.
    pub repository: Repository,
    /// Why nothing can be done for it.
    pub obstacle: Option<Obstacle>,
    /// What each server is to have.
    pub wanted: BTreeMap<ServerUrl, Wanted>,
    /// What each server that answered serves already.
    pub seen: BTreeMap<ServerUrl, Seen>,
    /// Where it belongs, also when there is nothing to mirror yet.
    pub places: BTreeMap<ServerUrl, Place>,
    /// The conversation, in order: everything there is to send beside announcements and states.
    pub conversation: Vec<EventId>,
    /// Pull requests, whose commits may have to be fetched.
    pub pull_requests: Vec<PullRequest>,
    /// Fingerprint of the conversation.
    pub fingerprint: String,
    /// The announcements and states that `wanted` names. The conversation is loaded when somebody lacks it.
    pub events: Arc<BTreeMap<EventId, Event>>,
    /// What was remembered of its mirrors.
    pub record: RepositoryRecord,
    /// What people should know.
    pub notes: Vec<String>,
}

/// What a catalog is made from.
pub(super) const SOURCES: [Kind; 3] = [Kind::GitRepoAnnouncement, Kind::RepoState, Kind::EventDeletion];

/// The name of a repository's record.
pub(super) fn record_name(coordinate: &Coordinate) -> String {
    format!("mirrors/{coordinate}")
}

impl World {
    /// Reads servers and relays, and works out what is wanted. Changes nothing outside the store.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails. Relays and servers that fail are part of the result.
    pub async fn survey(&self, now: Timestamp) -> Result<Survey, CycleError> {
        let mut servers = self.ask_servers().await?;
        let unread = self.discover(&servers).await?;
        let mut events = self.store.query(Filter::new().kinds(SOURCES)).await?;
        let bot = self.bot();
        let catalog = catalog::build(&events, &self.settings.watched, &bot, catalog_limits(&self.config));
        if catalog.repositories.is_empty() {
            // A server that broke off has not said that there is nothing.
            for (_, server) in servers.iter_mut().filter(|(url, _)| unread.contains(url.relay_url())) {
                server
                    .down
                    .get_or_insert_with(|| "its announcements could not be read to the end".to_owned());
            }
        }
        if self.config.servers.discover {
            servers.extend(self.discover_servers(&catalog, &servers).await?);
        }
        let everywhere: BTreeSet<RelayUrl> = servers
            .iter()
            .filter(|(_, server)| server.is_up())
            .map(|(url, _)| url.relay_url().clone())
            .collect();
        self.collect_threads(&catalog.repositories, &everywhere).await?;

        events.retain(|event| event.pubkey == bot);
        let own: Vec<Announcement> = events.iter().cloned().filter_map(Announcement::read).collect();
        let copies = namespace::identifiers(&catalog.repositories, &own);
        let mut survey =
            Survey { servers, catalog: Catalog::default(), subjects: Vec::new(), signed: Vec::new() };
        for repository in &catalog.repositories {
            let copy = copies.get(&repository.coordinate).cloned().unwrap_or_default();
            let (subject, signed) =
                self.subject(repository.clone(), &copy, &survey.servers, &events, now).await?;
            survey.subjects.push(subject);
            survey.signed.extend(signed);
        }
        survey.catalog = catalog;
        self.read_back(&mut survey, now).await;
        Ok(survey)
    }

    /// Servers that the announcements list and the configuration does not know.
    async fn discover_servers(
        &self,
        catalog: &Catalog,
        known: &BTreeMap<ServerUrl, Server>,
    ) -> Result<BTreeMap<ServerUrl, Server>, CycleError> {
        const MAX_DISCOVERED: usize = 64;
        let mut found = BTreeSet::new();
        for announcement in catalog.repositories.iter().flat_map(|repository| &repository.announcements) {
            for url in &announcement.clone_urls {
                let Some((server, _, _)) = ServerUrl::parse_clone_url(url) else { continue };
                let fresh = !known.contains_key(&server) && !found.contains(&server);
                if fresh
                    && found.len() < MAX_DISCOVERED
                    && announcement.lists(&server)
                    && self.config.policy.admits_server(&server).is_ok()
                    && self.guard.check(server.http_base()).await.is_ok()
                {
                    tracing::info!(%server, repository = %announcement.coordinate, "found a server");
                    found.insert(server);
                }
            }
        }
        self.ask(found).await
    }

    /// Works out one repository's mirrors.
    async fn subject(
        &self,
        repository: Repository,
        copy: &str,
        servers: &BTreeMap<ServerUrl, Server>,
        own: &[Event],
        now: Timestamp,
    ) -> Result<(Subject, Vec<Event>), CycleError> {
        let policy = &self.config.policy;
        let exception = policy.exception(&repository.coordinate);
        let usable: BTreeMap<ServerUrl, Grasp> = servers
            .iter()
            .filter(|(url, _)| exception.servers.as_ref().is_none_or(|only| only.contains(*url)))
            .map(|(url, server)| (url.clone(), server.grasp.clone()))
            .collect();
        let reach = exception.reach.unwrap_or(self.config.mirror.reach);
        let places = placement::places(&repository, &usable, reach, &self.bot(), copy);
        let obstacle = match policy.admits(&repository.coordinate) {
            Err(rule) => Some(Obstacle::Limit(rule.to_string())),
            Ok(()) => repository.obstacle.clone(),
        };
        let mut record: RepositoryRecord =
            self.records.read(&record_name(&repository.coordinate)).await?.unwrap_or_default();
        if self.is_afresh(&repository.coordinate) {
            record.look_anew();
        }
        let mut subject = Subject {
            obstacle,
            wanted: BTreeMap::new(),
            seen: BTreeMap::new(),
            places,
            conversation: Vec::new(),
            pull_requests: Vec::new(),
            fingerprint: String::new(),
            events: Arc::default(),
            record,
            notes: Vec::new(),
            repository,
        };
        let state = match (&subject.obstacle, &subject.repository.state) {
            (Some(_), _) => return Ok((subject, Vec::new())),
            (None, None) => {
                subject.notes.push("empty: no maintainer has signed a state yet".to_owned());
                return Ok((subject, Vec::new()));
            }
            (None, Some(state)) if state.refs.is_empty() => {
                subject.notes.push("empty: the signed state names no branches and tags".to_owned());
                return Ok((subject, Vec::new()));
            }
            (None, Some(state)) => state.clone(),
        };
        let signed = self.sign_copy(&subject, &state, copy, &usable, own)?;

        let mut events: BTreeMap<EventId, Event> = BTreeMap::new();
        let coordinates: Vec<String> =
            subject.repository.coordinates().iter().map(ToString::to_string).collect();
        let thread = self.thread(&coordinates, self.config.limits.max_events_per_repo).await?;
        let talk = conversation::gather(
            &subject.repository.coordinates(),
            &thread,
            &subject.record.lost_now(now),
            now,
            self.config.limits.max_events_per_repo,
        );
        if talk.truncated {
            subject.notes.push("only part of its events: limits.max_events_per_repo is reached".to_owned());
        }
        if talk.kept_home > 0 {
            tracing::debug!(repository = %subject.repository.coordinate, events = talk.kept_home, "protected or expired, not forwarded");
        }
        for announcement in &subject.repository.announcements {
            events.insert(announcement.id(), announcement.event.clone());
        }
        events.insert(state.event.id, state.event.clone());
        for event in signed.current.iter() {
            events.insert(event.id, event.clone());
        }
        let in_namespace = subject.places.values().any(|place| place.placement.is_own());
        if in_namespace && copy != subject.repository.coordinate.identifier {
            subject.notes.push(format!(
                "its copies are called {copy}, since another owner's have its name; servers take their git data, \
                 not the conversation"
            ));
        }
        subject.fingerprint = fingerprint(&talk.events);
        let wanted = subject.places.iter().map(|(server, place)| {
            let wanted = wanted(&subject.repository, &state, server, place, &signed.current, &talk.events);
            (server.clone(), wanted)
        });
        subject.wanted = wanted.collect();
        subject.pull_requests = talk.pull_requests;
        subject.conversation = talk.events;
        subject.events = Arc::new(events);
        Ok((subject, signed.new))
    }
}

impl Survey {
    /// How the servers are, for people.
    #[must_use]
    pub fn server_outcomes(&self) -> Vec<ServerOutcome> {
        self.servers.iter().map(|(url, server)| server.outcome(url)).collect()
    }
}

/// What `server` is to have of `repository`; `copy` is the bot's announcement and state.
fn wanted(
    repository: &Repository,
    state: &State,
    server: &ServerUrl,
    place: &Place,
    copy: &[Event],
    conversation: &[EventId],
) -> Wanted {
    let (governing, attached) = match place.placement {
        Placement::Namespace => {
            let order = repository.introduced_by(&repository.coordinate.owner);
            let owners = order.iter().map(|(announcement, _)| announcement.id()).chain([state.event.id]);
            (copy.iter().map(|event| event.id).collect(), owners.collect())
        }
        Placement::Lead => {
            let lead = repository.lead().unwrap_or(repository.coordinate.owner);
            let (leads, attached) = listed_events(repository, &lead, &state.event);
            (copy.iter().map(|event| event.id).chain(leads).collect(), attached)
        }
        _ => listed_events(repository, &place.path.owner, &state.event),
    };
    Wanted {
        repository: repository.coordinate.clone(),
        server: server.clone(),
        place: place.clone(),
        state: governing.last().copied(),
        governing,
        refs: state.refs.clone(),
        attached,
        pull_requests: Vec::new(),
        conversation: conversation.to_vec(),
    }
}

/// What makes a server take a repository that one of its maintainers listed there: the lister's announcement,
/// those through which it leads to the state's author, and the state. The other maintainers' announcements are
/// attached.
fn listed_events(repository: &Repository, lister: &PublicKey, state: &Event) -> (Vec<EventId>, Vec<EventId>) {
    let order = repository.introduced_by(lister);
    let mut needed = BTreeSet::from([0]);
    let mut at = order.iter().position(|(announcement, _)| announcement.author() == state.pubkey);
    while let Some(place) = at {
        needed.insert(place);
        at = order.get(place).and_then(|(_, host)| *host);
    }
    let ids = order.iter().map(|(announcement, _)| announcement.id()).enumerate();
    let (first, attached): (Vec<_>, Vec<_>) = ids.partition(|(place, _)| needed.contains(place));
    let id = |(_, id)| id;
    (first.into_iter().map(id).chain([state.id]).collect(), attached.into_iter().map(id).collect())
}

/// A short name for a set of events.
pub(super) fn fingerprint(ids: &[EventId]) -> String {
    let sorted: BTreeSet<&EventId> = ids.iter().collect();
    let mut hasher = Sha256::new();
    for id in sorted {
        hasher.update(id.as_bytes());
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
