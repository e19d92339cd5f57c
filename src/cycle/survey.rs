//! Looks before anything is done: what is wanted, where, and what the servers serve already.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use nostr::prelude::{
    Event, EventBuilder, EventId, Filter, FinalizeEvent, Kind, PublicKey, RelayUrl, Tag, Timestamp,
};
use sha2::{Digest, Sha256};

use super::{CycleError, servers::Server, world::World};
use crate::{
    model::{announcement::Announcement, coordinate::Coordinate, placement::Placement, server::ServerUrl},
    plan::{
        catalog::{self, Catalog, Obstacle, Repository},
        converge::{Seen, Wanted},
        conversation::{self, PullRequest},
        namespace::{self, Draft},
        placement::{self, Grasp, Place},
        record::RepositoryRecord,
    },
    report::document::ServerOutcome,
};

/// Authors in one filter.
const AUTHORS_PER_FILTER: usize = 200;

/// Servers asked at the same time.
const AT_ONCE: usize = 16;

/// Events asked for, by author: filters are made from authors.
type PerAuthor = BTreeMap<PublicKey, Vec<(EventId, Timestamp)>>;

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
    /// Pull requests, whose commits may have to be fetched.
    pub pull_requests: Vec<PullRequest>,
    /// Fingerprint of the conversation.
    pub fingerprint: String,
    /// The events that `wanted` names.
    pub events: Arc<BTreeMap<EventId, Event>>,
    /// What was remembered of its mirrors.
    pub record: RepositoryRecord,
    /// What people should know.
    pub notes: Vec<String>,
}

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
        let kinds = [Kind::GitRepoAnnouncement, Kind::RepoState, Kind::EventDeletion];
        let mut events = self.store.query(Filter::new().kinds(kinds)).await?;
        let bot = self.bot();
        let catalog = catalog::build(&events, &self.watched(), &bot, self.catalog_limits());
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
        let record = self.records.read(&record_name(&repository.coordinate)).await?.unwrap_or_default();
        let mut subject = Subject {
            obstacle,
            wanted: BTreeMap::new(),
            seen: BTreeMap::new(),
            places,
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
            now,
            self.config.limits.max_events_per_repo,
        );
        if talk.truncated {
            subject.notes.push("only part of its events: limits.max_events_per_repo is reached".to_owned());
        }
        if talk.kept_home > 0 {
            tracing::debug!(repository = %subject.repository.coordinate, events = talk.kept_home, "protected or expired, not forwarded");
        }
        events.extend(thread.into_iter().map(|event| (event.id, event)));
        for announcement in &subject.repository.announcements {
            events.insert(announcement.id(), announcement.event.clone());
        }
        events.insert(state.event.id, state.event.clone());
        for event in signed.current.iter() {
            events.insert(event.id, event.clone());
        }
        let in_namespace = subject.places.values().any(|place| place.placement == Placement::Namespace);
        if in_namespace && copy != subject.repository.coordinate.identifier {
            subject.notes.push(format!(
                "its copies are called {copy}, since another owner's have its name; servers take their git data, \
                 not the conversation"
            ));
        }
        subject.fingerprint = fingerprint(&talk.events);
        for (server, place) in &subject.places {
            let (governing, attached) = match place.placement {
                Placement::Namespace => {
                    let governing = signed.current.iter().map(|event| event.id).collect();
                    let owner = &subject.repository.coordinate.owner;
                    let order = subject.repository.introduced_by(owner);
                    let mut attached: Vec<EventId> =
                        order.iter().map(|(announcement, _)| announcement.id()).collect();
                    attached.push(state.event.id);
                    (governing, attached)
                }
                _ => listed_events(&subject.repository, &place.path.owner, &state.event),
            };
            let governing_state = governing.last().copied();
            subject.wanted.insert(
                server.clone(),
                Wanted {
                    repository: subject.repository.coordinate.clone(),
                    server: server.clone(),
                    place: place.clone(),
                    governing,
                    state: governing_state,
                    refs: state.refs.clone(),
                    attached,
                    pull_requests: Vec::new(),
                    conversation: talk.events.clone(),
                },
            );
        }
        subject.pull_requests = talk.pull_requests;
        subject.events = Arc::new(events);
        Ok((subject, signed.new))
    }

    /// The bot's announcement and state for its copy: those already published where they still say what they
    /// should, else newly signed.
    fn sign_copy(
        &self,
        subject: &Subject,
        state: &crate::model::state::State,
        copy: &str,
        servers: &BTreeMap<ServerUrl, Grasp>,
        own: &[Event],
    ) -> Result<Signed, CycleError> {
        let announced = placement::announced_servers(&subject.places, servers);
        let mut signed = Signed::default();
        if announced.is_empty() {
            return Ok(signed);
        }
        let announcement = namespace::announcement(&subject.repository, &self.bot(), copy, &announced);
        for draft in announcement.into_iter().chain([namespace::state(state, copy)]) {
            let existing = own
                .iter()
                .find(|event| event.kind == draft.kind && event.tags.identifier().as_deref() == Some(copy));
            let event = match (draft.unless_said(existing), existing) {
                (None, Some(existing)) => existing.clone(),
                (Some(draft), _) => {
                    let event = self.sign(draft)?;
                    signed.new.push(event.clone());
                    event
                }
                (None, None) => continue,
            };
            signed.current.push(event);
        }
        Ok(signed)
    }

    fn sign(&self, draft: Draft) -> Result<Event, CycleError> {
        let tags: Result<Vec<Tag>, _> = draft.tags.into_iter().map(Tag::parse).collect();
        let tags = tags.map_err(|error| CycleError::Sign(error.to_string()))?;
        EventBuilder::new(draft.kind, "")
            .tags(tags)
            .custom_created_at(draft.created_at)
            .finalize(&self.keys)
            .map_err(|error| CycleError::Sign(error.to_string()))
    }

    /// Asks every server which of the wanted announcements and states it serves: one round a server,
    /// however many repositories there are.
    async fn read_back(&self, survey: &mut Survey, now: Timestamp) {
        let mut asks: Vec<(ServerUrl, PerAuthor)> = Vec::new();
        for (url, _) in survey.servers.iter().filter(|(_, server)| server.is_up()) {
            let mut per_author = PerAuthor::new();
            for subject in &survey.subjects {
                let Some(wanted) = subject.wanted.get(url) else { continue };
                for event in wanted.proofs().filter_map(|id| subject.events.get(id)) {
                    per_author.entry(event.pubkey).or_default().push((event.id, event.created_at));
                }
            }
            asks.push((url.clone(), per_author));
        }
        let answers: Vec<_> = stream::iter(asks)
            .map(|(url, per_author)| async move {
                let lacks = self.lacks(&url, per_author).await;
                (url, lacks)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (url, lacks) in answers {
            match lacks {
                Ok(lacks) => survey.note_served(&url, &lacks, now),
                Err(error) => {
                    tracing::warn!(server = %url, %error, "could not be read; its mirrors wait for the next run");
                    if let Some(server) = survey.servers.get_mut(&url) {
                        server.down = Some(error.to_string());
                    }
                }
            }
        }
    }

    async fn lacks(
        &self,
        server: &ServerUrl,
        per_author: PerAuthor,
    ) -> Result<BTreeSet<EventId>, crate::relay::RelayError> {
        let mut lacks = BTreeSet::new();
        let authors: Vec<PublicKey> = per_author.keys().copied().collect();
        for some in authors.chunks(AUTHORS_PER_FILTER) {
            let mut wanted: Vec<(EventId, Timestamp)> =
                some.iter().filter_map(|author| per_author.get(author)).flatten().copied().collect();
            wanted.sort_unstable();
            wanted.dedup();
            let filter = Filter::new()
                .kinds([Kind::GitRepoAnnouncement, Kind::RepoState])
                .authors(some.iter().copied());
            lacks.extend(self.relays.lacks(server.relay_url(), filter, &wanted).await?);
        }
        Ok(lacks)
    }
}

/// The bot's events for one copy.
#[derive(Default)]
struct Signed {
    /// Announcement and state, as they are to stand.
    current: Vec<Event>,
    /// Those of them that nobody has seen yet.
    new: Vec<Event>,
}

impl Survey {
    /// How the servers are, for people.
    #[must_use]
    pub fn server_outcomes(&self) -> Vec<ServerOutcome> {
        self.servers.iter().map(|(url, server)| server.outcome(url)).collect()
    }

    fn note_served(&mut self, url: &ServerUrl, lacks: &BTreeSet<EventId>, now: Timestamp) {
        for subject in &mut self.subjects {
            let Some(wanted) = subject.wanted.get(url) else { continue };
            let record = subject.record.mirrors.get(url);
            let mut seen = Seen {
                served: wanted.proofs().copied().filter(|id| !lacks.contains(id)).collect(),
                fresh: true,
                refused: record.map(|record| record.refused.clone()).unwrap_or_default(),
                ..Seen::default()
            };
            // A server that lost the repository may have lost the conversation, too.
            let held = record.and_then(|record| record.conversation.as_ref());
            if held.is_some_and(|held| held.covers(&subject.fingerprint, now)) && wanted.is_proved_by(&seen) {
                seen.lacks = Some(BTreeSet::new());
            }
            subject.seen.insert(url.clone(), seen);
        }
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
