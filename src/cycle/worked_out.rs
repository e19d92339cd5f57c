//! What the catalog says, and what is forgotten of the cycle before because of that.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use nostr::prelude::{Event, EventId, Filter, Timestamp};

use super::{
    CycleError,
    copy::OwnCopies,
    kept::{Kept, WorkedOut},
    servers::Server,
    world::{AT_ONCE, World, catalog_limits},
};
use crate::{
    model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl},
    plan::{
        catalog::{self, Catalog, Repository},
        forget, namespace,
        placement::Grasp,
        rest::Known,
        settings::{SERVERS, listed_servers},
    },
    report::document::{LeftAlone, NotFound},
};

/// Servers taken from one author's list.
const SERVERS_PER_LIST: usize = 16;

/// Servers used that the configuration does not know; and those among which they are looked for.
const MAX_DISCOVERED: usize = 64;
const MAX_LOOKED_UP: usize = 256;

/// A catalog and what goes with it.
pub(super) struct Worked {
    pub(super) repositories: Vec<Repository>,
    /// What the bot has published of its copies.
    pub(super) own: OwnCopies,
    /// How its copies are called.
    pub(super) copies: BTreeMap<Coordinate, String>,
}

impl Worked {
    /// Leaves out the repositories that are called otherwise.
    pub(super) fn keep_only(&mut self, families: &BTreeSet<String>) {
        self.repositories.retain(|repository| families.contains(&repository.coordinate.identifier));
    }
}

impl World {
    /// Makes the catalog, and forgets what was kept of repositories that are not as they were.
    pub(super) async fn work_out(
        &self,
        events: Vec<Event>,
        servers: &mut BTreeMap<ServerUrl, Server>,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<Worked, CycleError> {
        let sources = self.store.news().sources;
        let bot = self.bot();
        let catalog = catalog::build(&events, &self.settings.watched, &bot, catalog_limits(&self.config));
        let (mut discovered, mut denied) = (BTreeSet::new(), BTreeSet::new());
        if self.config.servers.discover {
            (discovered, denied) = self.discover_servers(&catalog, servers).await?;
            servers.extend(self.introduced(discovered.clone(), kept, now).await?);
            discovered.extend(kept.worked_out.iter().flat_map(|known| known.discovered.clone()));
        }
        tracing::debug!(repositories = catalog.repositories.len(), "worked out what is wanted");
        let own = OwnCopies::of(events, &bot);
        let announced: Vec<Announcement> = own.events().cloned().filter_map(Announcement::read).collect();
        let copies = namespace::identifiers(&catalog.repositories, &announced);
        let unwanted = catalog.opted_out.values().flat_map(|one| &one.coordinates);
        let unwanted = unwanted.chain(self.settings.watched.forgotten.keys()).cloned().collect();
        let obsolete = announced.into_iter().filter(|own| forget::is_of(own, &unwanted)).collect();
        let grasps = grasps(servers);
        if kept.worked_out.as_ref().is_some_and(|known| known.grasps != grasps) {
            kept.repositories.clear();
        }
        let mut as_before: BTreeMap<Coordinate, Known> = BTreeMap::new();
        for repository in &catalog.repositories {
            let coordinate = &repository.coordinate;
            let copy = copies.get(coordinate).map(String::as_str).unwrap_or_default();
            let Some(known) = kept.repositories.remove(coordinate) else { continue };
            if is_made_of(&known.made_of, repository, own.called(copy)) {
                as_before.insert(coordinate.clone(), known);
            }
        }
        kept.repositories = as_before;
        let left_alone = LeftAlone {
            deleted: catalog.deleted,
            forgotten: catalog.opted_out.iter().map(|(name, one)| (name.clone(), one.reason())).collect(),
            private: catalog.private,
            over_limit: catalog.over_limit,
        };
        // What is denied is not wanted, announced or not.
        let wanted = |name: &Coordinate| self.policy.admits(name).is_ok();
        let not_found = NotFound {
            authors: catalog
                .silent
                .into_iter()
                .filter(|author| wanted(&Coordinate::new(*author, "")))
                .collect(),
            repos: catalog.unannounced.into_iter().filter(wanted).collect(),
            ..NotFound::default()
        };
        kept.worked_out =
            Some(WorkedOut { sources, grasps, discovered, denied, left_alone, not_found, obsolete });
        Ok(Worked { repositories: catalog.repositories, own, copies })
    }

    /// Servers that the announcements list, or watched authors for all they have (kind 10317), and the configuration
    /// does not know; and those of them that a rule keeps away.
    async fn discover_servers(
        &self,
        catalog: &Catalog,
        known: &BTreeMap<ServerUrl, Server>,
    ) -> Result<(BTreeSet<ServerUrl>, BTreeSet<ServerUrl>), CycleError> {
        let mut named: Vec<ServerUrl> = Vec::new();
        for announcement in catalog.repositories.iter().flat_map(|repository| &repository.announcements) {
            named.extend(announcement.servers());
        }
        let watched = &self.settings.watched.authors;
        if !watched.is_empty() {
            let lists = Filter::new().kind(SERVERS).authors(watched.iter().copied());
            for list in self.store.query(lists).await? {
                named.extend(listed_servers(&list).into_iter().take(SERVERS_PER_LIST));
            }
        }
        let mut met = BTreeSet::new();
        named.retain(|server| !known.contains_key(server) && met.insert(server.clone()));
        let (admitted, denied): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|server| self.policy.admits_server(server).is_ok());
        // Each costs a look-up of its name, which may take long: none is looked up twice, and none waits for another.
        let found = stream::iter(admitted.into_iter().take(MAX_LOOKED_UP)).map(|server| async move {
            let is_usable = self.guard.check(server.http_base()).await.is_ok();
            is_usable.then_some(server)
        });
        let found = found.buffered(AT_ONCE).filter_map(|server| async move { server });
        let found: BTreeSet<ServerUrl> = found.take(MAX_DISCOVERED).collect().await;
        for server in &found {
            tracing::info!(%server, "found a server");
        }
        Ok((found, denied.into_iter().take(MAX_DISCOVERED).collect()))
    }
}

pub(super) fn grasps(servers: &BTreeMap<ServerUrl, Server>) -> BTreeMap<ServerUrl, (Grasp, bool)> {
    servers.iter().map(|(url, server)| (url.clone(), (server.grasp.clone(), server.is_lost))).collect()
}

/// Whether a repository is still worked out from the same events: what its maintainers signed, and the bot's `copies` as
/// far as they count. One that is left from another placement does not.
fn is_made_of<'a>(
    known: &BTreeSet<EventId>,
    repository: &Repository,
    copies: impl Iterator<Item = &'a Event>,
) -> bool {
    let mut now: BTreeSet<EventId> = repository.announcements.iter().map(Announcement::id).collect();
    now.extend(repository.state.iter().map(|state| state.event.id));
    let copies: BTreeSet<EventId> = copies.map(|event| event.id).collect();
    let is_copy = |id: &EventId| copies.contains(id);
    repository.obstacle.is_none() && now.is_subset(known) && known.difference(&now).all(is_copy)
}
