//! Takes down what the bot announced of repositories that are left alone, and what it said of servers where that is
//! switched off, on every server and relay that may have it (NIP-09), until each has heard of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    CycleError,
    servers::Server,
    survey::SOURCES,
    world::{AT_ONCE, World, catalog_limits},
};
use crate::{
    config::Config,
    model::{
        announcement::Announcement,
        coordinate::{Coordinate, addressed},
        server::ServerUrl,
    },
    plan::{
        catalog::{self, Catalog, Repository, Watched},
        forget,
    },
    store::{Store, StoreError},
};

/// The record of deletions that somebody has yet to hear of.
const RECORD: &str = "deletions";

/// For how long a server that does not answer is told, in seconds.
const TELL_FOR_SECS: u64 = 60 * 24 * 3_600;

/// How long a server or relay may take to take one.
const PATIENCE: Duration = Duration::from_secs(15);

/// A deletion request, and who has not heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deletion {
    event: Event,
    left: BTreeSet<RelayUrl>,
}

/// Whose wishes count, and for what.
#[derive(Clone, Debug, Default)]
pub struct Say {
    /// What is watched: mirrored, or left alone.
    pub catalog: Catalog,
    /// Repositories that are watched no more, of which the bot still announces a copy, or that it was told to forget.
    pub others: BTreeSet<Coordinate>,
}

/// A repository about which somebody has a say.
#[derive(Clone, Debug)]
pub struct Matter {
    /// What it goes by.
    pub coordinate: Coordinate,
    /// All that it goes by: each maintainer's coordinate.
    pub names: Vec<Coordinate>,
    /// Who maintains it, as far as is known.
    pub maintainers: BTreeSet<PublicKey>,
    /// The maintainer whose mute list names the bot.
    pub muted: Option<PublicKey>,
}

impl Say {
    /// Every repository about which somebody has a say.
    pub fn matters(&self) -> impl Iterator<Item = Matter> {
        let mirrored = self.catalog.repositories.iter().map(|one| Matter {
            coordinate: one.coordinate.clone(),
            names: one.coordinates(),
            maintainers: forget::maintainers(one),
            muted: None,
        });
        let opted_out = self.catalog.opted_out.iter().map(|(coordinate, one)| Matter {
            coordinate: coordinate.clone(),
            names: one.coordinates.clone(),
            maintainers: one.maintainers.clone(),
            muted: one.muted,
        });
        let others = self.others.iter().map(|one| Matter {
            coordinate: one.clone(),
            names: vec![one.clone()],
            maintainers: BTreeSet::from([one.owner]),
            muted: None,
        });
        mirrored.chain(opted_out).chain(others)
    }
}

/// Who has a say about what the bot mirrors, watches or announces, by what is stored.
///
/// # Errors
///
/// [`StoreError`].
pub async fn say(
    config: &Config,
    store: &Store,
    bot: &PublicKey,
    watched: &Watched,
) -> Result<Say, StoreError> {
    let events = store.query(Filter::new().kinds(SOURCES)).await?;
    let catalog = catalog::build(&events, watched, bot, catalog_limits(config));
    let mut known: BTreeSet<Coordinate> =
        catalog.opted_out.values().flat_map(|one| one.coordinates.clone()).collect();
    known.extend(catalog.repositories.iter().flat_map(Repository::coordinates));
    let own = events.into_iter().filter(|event| event.pubkey == *bot).filter_map(Announcement::read);
    let announced = own.filter_map(|own| own.upstream);
    let others =
        announced.chain(watched.forgotten.keys().cloned()).filter(|one| !known.contains(one)).collect();
    Ok(Say { catalog, others })
}

impl World {
    /// Signs deletion requests for the bot's `obsolete` announcements and for what it says of servers no more, and tells
    /// `servers` and relays of all that they have not heard of. One that is down hears of it later.
    pub(super) async fn take_down(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        obsolete: &[Announcement],
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let before: Option<Vec<Deletion>> = self.records.read(RECORD).await?;
        let mut deletions = match &before {
            Some(deletions) => deletions.clone(),
            // On a new machine nobody knows who has heard of what.
            None => self.signed_before(servers).await?,
        };
        let mut new = Vec::new();
        for announcement in obsolete {
            let states = Filter::new().kind(Kind::RepoState).author(self.bot());
            let states = states.identifier(&announcement.coordinate.identifier);
            let states: Vec<EventId> = self.store.query(states).await?.iter().map(|event| event.id).collect();
            let event = forget::deletion(announcement, &states, now).sign(&self.keys)?;
            let clone_urls = announcement.clone_urls.iter();
            let named =
                clone_urls.filter_map(|url| ServerUrl::parse_clone_url(url)).map(|(server, ..)| server);
            let mut left = self.everywhere(servers);
            left.extend(named.map(|server| server.relay_url().clone()));
            tracing::info!(
                copy = announcement.coordinate.identifier,
                "its maintainers do not want it: my announcement is deleted"
            );
            new.push(Deletion { event, left });
        }
        if let Some(event) = self.monitoring_taken_back(now).await? {
            new.push(Deletion { event, left: self.config.bot.relays.iter().cloned().collect() });
        }
        deletions.extend(new.iter().cloned());
        if !new.is_empty() || before.is_none() {
            // Before the store forgets what is deleted.
            self.records.write(RECORD, &deletions).await?;
        }
        for one in &new {
            self.store.save(&one.event).await?;
        }
        let told = self.tell(&deletions, servers).await;
        let mut left = deletions.clone();
        for (id, relay) in told {
            left.iter_mut().filter(|one| one.event.id == id).for_each(|one| {
                one.left.remove(&relay);
            });
        }
        let is_late =
            |one: &Deletion| one.event.created_at.as_secs().saturating_add(TELL_FOR_SECS) < now.as_secs();
        left.retain(|one| !one.left.is_empty() && !is_late(one));
        if left != deletions {
            self.records.write(RECORD, &left).await?;
        }
        Ok(())
    }

    /// Sends each its deletions; returns which were taken, or refused for good: then there is nothing to delete.
    async fn tell(
        &self,
        deletions: &[Deletion],
        servers: &BTreeMap<ServerUrl, Server>,
    ) -> Vec<(EventId, RelayUrl)> {
        let down: BTreeSet<&RelayUrl> =
            servers.iter().filter(|(_, server)| !server.is_up()).map(|(url, _)| url.relay_url()).collect();
        let mut todo: BTreeMap<RelayUrl, Vec<Event>> = BTreeMap::new();
        for one in deletions {
            for relay in one.left.iter().filter(|relay| !down.contains(relay)) {
                todo.entry(relay.clone()).or_default().push(one.event.clone());
            }
        }
        let told: Vec<Vec<(EventId, RelayUrl)>> = stream::iter(todo)
            .map(|(relay, events)| async move {
                let mut told = Vec::new();
                for event in events {
                    match timeout(PATIENCE, self.relays.send(&relay, &event)).await {
                        Ok(Ok(answer)) => {
                            tracing::debug!(%relay, deletion = %event.id, ?answer, "told");
                            told.push((event.id, relay.clone()));
                            continue;
                        }
                        Ok(Err(error)) => {
                            tracing::warn!(%relay, deletion = %event.id, %error, "not told yet")
                        }
                        Err(_) => tracing::warn!(%relay, deletion = %event.id, "no answer to a deletion"),
                    }
                    break;
                }
                told
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        told.into_iter().flatten().collect()
    }

    /// What the bot's own events say was deleted, for everybody to hear once more.
    async fn signed_before(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
    ) -> Result<Vec<Deletion>, StoreError> {
        let own = self.store.query(Filter::new().kind(Kind::EventDeletion).author(self.bot())).await?;
        let is_of_copy = |event: &Event| addressed(event).any(|(kind, ..)| kind == Kind::GitRepoAnnouncement);
        let own = own.into_iter().filter(is_of_copy);
        Ok(own.map(|event| Deletion { event, left: self.everywhere(servers) }).collect())
    }

    fn everywhere(&self, servers: &BTreeMap<ServerUrl, Server>) -> BTreeSet<RelayUrl> {
        let servers = servers.keys().map(ServerUrl::relay_url);
        servers.chain(&self.config.bot.relays).cloned().collect()
    }
}
