//! Has servers listed in maintainers' announcements, where a maintainer's signature can be had.
//!
//! After a walk, since only a server that holds a copy in the bot's namespace is to be listed. The newest version is read
//! again everywhere before it is signed, and after it was sent; where somebody else signed meanwhile, theirs is the
//! one to begin with. Then the repository is walked again: the server has all its objects and the new path only needs
//! its refs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, future::try_join_all, stream};
use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::time::timeout;

use super::{
    CycleError,
    kept::Kept,
    replace,
    servers::Server,
    signers::Signature,
    subject::Subject,
    survey::{Beside, SOURCES},
    threads::relays_of,
    world::{AT_ONCE, World, catalog_limits},
};
use crate::{
    model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl},
    plan::{
        catalog::{self, Repository},
        converge::Answer,
        per_server::Places,
        permit::Permitted,
        record::is_no,
        signing::{Request, Signing, Stands},
        to_sign::{ToSign, to_sign},
    },
    report::document::RepositoryOutcome,
    store::{StoreError, records::Records},
};

/// Announcements signed in one run; the rest is left to the next.
const AT_MOST: usize = 25;

/// Once read again, and then this often begun anew, as long as other clients sign meanwhile.
const ROUNDS: usize = 4;

/// How long one relay may take to show or take an announcement.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the mirrors of each repository belong.
pub(super) type AllPlaces = BTreeMap<Coordinate, Places>;

/// How the names begin of the records of what was signed.
pub(super) const SIGNING: &str = "signing/";

/// The name of the record of what was signed for a repository. It is apart from the repository's own, which a cycle may
/// be about to write when somebody signs.
pub(super) fn signing_name(coordinate: &Coordinate) -> String {
    format!("{SIGNING}{coordinate}")
}

/// The request to a remote signer that a repository waits for.
///
/// # Errors
///
/// [`StoreError`].
pub async fn requested(records: &Records, coordinate: &Coordinate) -> Result<Option<Request>, StoreError> {
    let signing: Option<Signing> = records.read(&signing_name(coordinate)).await?;
    Ok(signing.and_then(|signing| signing.request))
}

/// What is to be signed for one repository.
struct Change {
    coordinate: Coordinate,
    to_sign: ToSign,
    /// Everyone whose newer word would count.
    maintainers: Vec<PublicKey>,
    /// Where the repository's announcements are published, servers aside.
    relays: BTreeSet<RelayUrl>,
    /// The servers that list it then.
    listed: BTreeSet<RelayUrl>,
}

impl World {
    /// Whether anybody's signature can be had.
    pub(super) async fn may_sign(&self) -> Result<bool, CycleError> {
        self.signers.begin().await?;
        Ok(!self.signers.keys().is_empty())
    }

    /// Has servers listed that hold a copy, walks what changed by it again, and says of each mirror that waits for a
    /// signature that it does. Whether something is left to do for lack of time.
    ///
    /// `beside` says whether the caller has the turns of all families in `outcomes`.
    pub(super) async fn sign_and_walk(
        &self,
        kept: &Kept,
        servers: &BTreeMap<ServerUrl, Server>,
        places: &AllPlaces,
        outcomes: &mut Vec<RepositoryOutcome>,
        beside: Beside,
    ) -> Result<bool, CycleError> {
        if !self.may_sign().await? {
            return Ok(false);
        }
        let turn = self.signers.turn().await;
        let (mut changed, mut more) = Box::pin(self.list(servers, places, outcomes)).await?;
        drop(turn);
        self.note_cool_downs().await?;
        if !changed.is_empty() {
            let mut scratch = kept.introductions();
            let turns = match beside {
                Beside::Nobody => None,
                Beside::Jobs => Some(self.shared.turns(&changed, PATIENCE).await),
            };
            if let Some(turns) = &turns {
                let all = changed.len();
                changed.retain(|family| turns.contains_key(family));
                more |= changed.len() < all;
            }
            let now = Timestamp::now();
            let again = Box::pin(self.walk_families(&mut scratch, &changed, now, None)).await?;
            replace(outcomes, again.outcomes);
        }
        for outcome in outcomes {
            if let Some(signing) = self.records.read::<Signing>(&signing_name(&outcome.coordinate)).await? {
                signing.show(&mut outcome.mirrors);
            }
        }
        Ok(more)
    }

    /// Tells the relays around a repository that the bot is one of its maintainers; servers hear it with the rest.
    pub(super) async fn say_joined(&self, subjects: &[Subject], signed: &[Event]) {
        for event in signed.iter().filter(|event| event.kind == Kind::GitRepoAnnouncement) {
            let joined = subjects.iter().find(|subject| {
                let repository = &subject.repository;
                repository.invites(&self.bot())
                    && event.tags.identifier().is_some_and(|name| name == repository.coordinate.identifier)
            });
            if let Some(subject) = joined {
                let relays = self.relays_around(&subject.repository).await;
                self.send_to(&relays, event).await;
            }
        }
    }

    /// Writes down which servers asked for are listed now.
    pub(super) async fn note_come(&self, repository: &Repository) -> Result<(), StoreError> {
        let note = |signing: &mut Signing| {
            signing.note_come(repository);
        };
        self.records.update(&signing_name(&repository.coordinate), note).await
    }

    /// The identifiers of the repositories that have other announcements now, and whether there are more to sign.
    async fn list(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        places: &AllPlaces,
        outcomes: &[RepositoryOutcome],
    ) -> Result<(BTreeSet<String>, bool), CycleError> {
        let mut signed: BTreeSet<EventId> = BTreeSet::new();
        let mut changed = BTreeSet::new();
        if !self.knows_what_was_taken_out().await? {
            tracing::warn!(
                "none of the bot's relays can be read, and what people took out by hand is not known; nothing is signed"
            );
            return Ok((changed, false));
        }
        let mut seen: Option<BTreeSet<RelayUrl>> = None;
        let mut more = false;
        for _ in 0..ROUNDS {
            let repositories = self.catalogued().await?;
            self.signers.tell_idle(&repositories);
            self.signers.keep_to(&repositories);
            changed = repositories
                .iter()
                .filter(|repository| {
                    let said = repository.announcements.iter().map(Announcement::id);
                    let said = said.chain(repository.state_id());
                    said.into_iter().any(|id| signed.contains(&id))
                })
                .map(|repository| repository.coordinate.identifier.clone())
                .collect();
            let mut changes = self.changes(&repositories, places, outcomes).await?;
            // What nobody serves yet is not sent twice.
            changes.retain(|change| !change.to_sign.events.iter().all(|event| signed.contains(&event.id())));
            more = changes.len() > AT_MOST;
            changes.truncate(AT_MOST);
            if changes.is_empty() {
                break;
            }
            let Some(read) = &seen else {
                seen = Some(self.read_again(&changes, servers).await);
                continue;
            };
            changes.retain(|change| {
                let known = change.listed.iter().chain(&change.relays).any(|relay| read.contains(relay));
                if !known {
                    tracing::warn!(repository = %change.coordinate, "its announcement cannot be read again now; nothing is signed");
                }
                known
            });
            let made = self.obtain(&changes).await?;
            if made.is_empty() {
                break;
            }
            for (change, events) in &made {
                if let Some(server) = &change.to_sign.first_shown_to
                    && !self.is_taken(change, server, events).await?
                {
                    signed.extend(events.iter().map(|event| event.id));
                    continue;
                }
                let hosts: Vec<&str> = change.to_sign.servers.iter().map(ServerUrl::host).collect();
                tracing::info!(repository = %change.coordinate, servers = ?hosts, "signed for a maintainer");
                // The announcement first: the state is for the path that it lists.
                for event in events {
                    signed.insert(event.id);
                    self.send_to(&change.listed.union(&change.relays).cloned().collect(), event).await;
                }
            }
            seen = Some(self.read_again(&changes, servers).await);
        }
        Ok((changed, more))
    }

    /// Every repository that is to be mirrored, from everything stored.
    pub(super) async fn catalogued(&self) -> Result<Vec<Repository>, CycleError> {
        let events = self.store.query(Filter::new().kinds(SOURCES)).await?;
        let watched = &self.settings.watched;
        Ok(catalog::build(&events, watched, &self.bot(), catalog_limits(&self.config)).repositories)
    }

    /// What is to be signed, from what is known now. Requests that have no reason any more are struck off.
    async fn changes(
        &self,
        repositories: &[Repository],
        places: &AllPlaces,
        outcomes: &[RepositoryOutcome],
    ) -> Result<Vec<Change>, CycleError> {
        let keys = self.signers.keys();
        let mut changes = Vec::new();
        let known_out = self.taken_out().await?;
        let mut out = known_out.clone();
        let outcomes: BTreeMap<_, _> =
            outcomes.iter().map(|outcome| (&outcome.coordinate, outcome)).collect();
        for repository in repositories {
            let coordinate = &repository.coordinate;
            let (Some(places), Some(outcome)) = (places.get(coordinate), outcomes.get(coordinate)) else {
                continue;
            };
            let name = signing_name(coordinate);
            let known: Signing = self.records.read(&name).await?.unwrap_or_default();
            let mut signing = known.clone();
            signing.take_out(known_out.of(coordinate));
            signing.look_at(repository);
            if !out.remember(coordinate, signing.removed()) {
                tracing::warn!(repository = %coordinate, "what was taken out by hand is remembered on this machine only: too much for one event");
            }
            let afresh = self.is_afresh(coordinate);
            let next =
                to_sign(repository, &signing, &keys, places, &outcome.mirrors, afresh, Timestamp::now());
            let next = next.unwrap_or_else(|error| {
                tracing::error!(repository = %coordinate, %error, "it is not signed");
                None
            });
            if let Some(to_sign) = next {
                changes.push(Change {
                    coordinate: coordinate.clone(),
                    maintainers: repository.announcements.iter().map(Announcement::author).collect(),
                    relays: self.relays_around(repository).await,
                    listed: to_sign.listed.iter().map(|server| server.relay_url().clone()).collect(),
                    to_sign,
                });
            } else {
                signing.request = None;
                self.signers.forget(coordinate);
            }
            if signing != known {
                let waits = signing.request.is_some();
                let note = |known: &mut Signing| {
                    known.take_out(known_out.of(coordinate));
                    known.look_at(repository);
                    known.request = known.request.take().filter(|_| waits);
                };
                self.records.update(&name, note).await?;
            }
        }
        if out != known_out {
            self.remember_taken_out(&out).await?;
        }
        Ok(changes)
    }

    /// The relays that carry a repository's announcements: the bot's, the indexes, and those that it names.
    async fn relays_around(&self, repository: &Repository) -> BTreeSet<RelayUrl> {
        let named = self.usable_relays(relays_of(repository)).await;
        self.config.bot.relays.iter().chain(&self.config.bot.index_relays).cloned().chain(named).collect()
    }

    /// Brings the newest versions of the announcements into the store, wherever they may be. Returns the relays that
    /// showed what they have.
    async fn read_again(
        &self,
        changes: &[Change],
        servers: &BTreeMap<ServerUrl, Server>,
    ) -> BTreeSet<RelayUrl> {
        let up = servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.relay_url().clone());
        let mut relays: BTreeSet<RelayUrl> = up.collect();
        relays.extend(changes.iter().flat_map(|change| change.relays.iter().chain(&change.listed)).cloned());
        let filter = Filter::new()
            .kinds([Kind::GitRepoAnnouncement, Kind::RepoState])
            .authors(changes.iter().flat_map(|change| change.maintainers.iter().copied()))
            .identifiers(changes.iter().map(|change| change.coordinate.identifier.clone()));
        let read = stream::iter(relays).map(|relay| {
            let filter = filter.clone();
            async move {
                match timeout(PATIENCE, self.relays.read(&relay, vec![filter])).await {
                    Ok(Ok(_)) => Some(relay),
                    Ok(Err(error)) => {
                        tracing::debug!(%relay, %error, "its announcements were not read again");
                        None
                    }
                    Err(_) => None,
                }
            }
        });
        read.buffer_unordered(AT_ONCE).filter_map(|read| async move { read }).collect().await
    }

    /// Those that are signed now; of the others it is written down what they wait for.
    async fn obtain<'a>(&self, changes: &'a [Change]) -> Result<Vec<(&'a Change, Vec<Event>)>, CycleError> {
        let now = Timestamp::now();
        let mut made = Vec::new();
        let answers = changes.iter().map(|change| async move {
            let name = signing_name(&change.coordinate);
            let signing: Signing = self.records.read(&name).await?.unwrap_or_default();
            let ids: BTreeSet<EventId> = change.to_sign.events.iter().map(Permitted::id).collect();
            let refused = signing.request.as_ref().filter(|request| {
                request.events == ids
                    && !request.is_due(now)
                    && !self.is_afresh(&change.coordinate)
                    && !self.signers.has_key_of(&change.to_sign.by)
            });
            let signature = match refused {
                Some(request) => Signature::Waits(request.stands.clone()),
                None => {
                    self.signers.sign(&change.to_sign.by, &change.coordinate, &change.to_sign.events).await
                }
            };
            Ok::<_, StoreError>((change, name, signing, signature))
        });
        for (change, name, signing, signature) in try_join_all(answers).await? {
            match signature {
                Signature::Made(events) => {
                    // Before anybody else can see it: whoever takes it out later does so knowingly.
                    let note = |signing: &mut Signing| {
                        signing.note_signed(change.to_sign.by, &change.to_sign.servers, now);
                        signing.note_given_back(&change.to_sign.given_back, now);
                        signing.request = None;
                    };
                    self.records.update(&name, note).await?;
                    made.push((change, events));
                }
                Signature::Waits(stands) => {
                    let before = signing.request.as_ref().map(|request| &request.stands);
                    if let Stands::TooLarge(words, _) = &stands
                        && before != Some(&stands)
                    {
                        tracing::error!(repository = %change.coordinate, words, "too large for a remote signer");
                    }
                    let since = signing.request.as_ref().map_or(now.as_secs(), |request| request.since);
                    let events = change.to_sign.events.iter().map(Permitted::id).collect();
                    let (by, servers) = (change.to_sign.by, change.to_sign.servers.clone());
                    let request = Some(Request { events, by, servers, since, stands });
                    self.records.update(&name, |signing: &mut Signing| signing.request = request).await?;
                }
            }
        }
        Ok(made)
    }

    /// Whether `server` takes the announcement that lists it. One that says no is remembered: nobody else has seen it, and
    /// nobody is sent there.
    async fn is_taken(
        &self,
        change: &Change,
        server: &ServerUrl,
        events: &[Event],
    ) -> Result<bool, CycleError> {
        for event in events {
            let words =
                match timeout(PATIENCE, self.shared.transfer.send(&self.relays, server.relay_url(), event))
                    .await
                {
                    Ok(Ok(Answer::Taken | Answer::Purgatory)) => continue,
                    Ok(Ok(Answer::Refused(words))) if is_no(&words) => words,
                    Ok(Ok(Answer::Refused(reason))) => {
                        tracing::warn!(%server, reason, "an announcement that lists it was not taken now");
                        return Ok(false);
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%server, %error, "an announcement that lists it was not taken now");
                        return Ok(false);
                    }
                    Err(_) => return Ok(false),
                };
            tracing::warn!(repository = %change.coordinate, %server, words, "it takes no announcement that lists it");
            let note = |signing: &mut Signing| signing.decline(server, &words, Timestamp::now());
            self.records.update(&signing_name(&change.coordinate), note).await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn send_to(&self, relays: &BTreeSet<RelayUrl>, event: &Event) {
        stream::iter(relays)
            .for_each_concurrent(AT_ONCE, |relay| async move {
                match timeout(PATIENCE, self.shared.transfer.send(&self.relays, relay, event)).await {
                    Ok(Ok(answer)) => tracing::debug!(%relay, ?answer, event = %event.id, "announced"),
                    Ok(Err(error)) => tracing::warn!(%relay, %error, "an announcement was not taken there"),
                    Err(_) => tracing::warn!(%relay, "an announcement was not taken there in time"),
                }
            })
            .await;
    }
}
