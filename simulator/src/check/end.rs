//! What must be so in the end, when everything has calmed down.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement, coordinate::Coordinate, placement::Placement, policy::Policy,
        refs::ObjectId, server::ServerUrl, status::MirrorStatus,
    },
    plan::{
        catalog::{self, Repository},
        conversation, namespace,
        placement::{self, Grasp, Place},
        record::RepositoryRecord,
        retry::Failure,
        spread::Usual,
    },
};
use nostr::event::{Event, EventId};

use crate::{
    bot::{LIMITS, bot},
    discover::{first_authors, is_compared, named},
    disk::Disk,
    own::is_own,
    world::World,
};

/// In the end the bot knows what relays and servers have of those whom it follows.
pub(crate) fn knows_what_there_is(world: &mut World, disk: &Disk, policy: &Policy) {
    let mut authors = first_authors(disk);
    loop {
        let more = named(disk, &authors);
        if more.is_subset(&authors) {
            break;
        }
        authors.extend(more);
    }
    let hosts = world.hosts.iter().filter(|host| policy.admits_server(&host.grasp.url).is_ok());
    let served = hosts.flat_map(|host| host.grasp.served());
    let all = world.relays.iter().flat_map(|relay| relay.events.values()).chain(served);
    let unknown = all.filter(|event| is_compared(event, &authors)).find(|event| disk.lacks(event));
    if let Some((kind, id)) = unknown.map(|event| (event.kind, event.id)) {
        world.break_promise(|| format!("in the end {id} (kind {kind}) is not known"));
    }
}

/// In the end every relay has the newest of the bot's lists.
pub(crate) fn lists_are_everywhere(world: &mut World, disk: &Disk) {
    for event in disk.events.values().filter(|event| is_own(event)) {
        for (at, relay) in world.relays.iter().enumerate() {
            if !relay.events.contains_key(&event.id) {
                let (id, kind) = (event.id, event.kind);
                world.break_promise(|| format!("in the end relay {at} lacks {id} (kind {kind})"));
                return;
            }
        }
    }
    let newest = world.newest_list();
    if newest.as_ref() != world.ledger.own.authors.as_ref() {
        world.break_promise(|| "in the end a newer list is not obeyed".to_owned());
    }
}

/// The records of what is mirrored now. Others stay as they were, and nobody waits for them.
pub(crate) fn records_of_wanted(disk: &Disk) -> Vec<RepositoryRecord> {
    let events: Vec<Event> = disk.events.values().cloned().collect();
    let catalog = catalog::build(&events, &disk.watched, &bot(), LIMITS);
    catalog.repositories.iter().map(|repository| disk.record(&repository.coordinate)).collect()
}

/// How it must stand when everything has calmed down: what is wanted is there, by the servers' own word and in truth.
///
/// Returns whether nothing at all is left to do.
pub(crate) fn has_converged(world: &mut World, disk: &Disk, policy: &Policy, usual: Usual) -> bool {
    let mut at_rest = true;
    let events: Vec<Event> = disk.events.values().cloned().collect();
    let catalog = catalog::build(&events, &disk.watched, &bot(), LIMITS);
    let own = events.iter().filter(|event| event.pubkey == bot());
    let announced: Vec<Announcement> = own.cloned().filter_map(Announcement::read).collect();
    let copies = namespace::identifiers(&catalog.repositories, &announced);
    let servers: BTreeMap<_, _> = world
        .hosts
        .iter()
        .filter(|host| policy.admits_server(&host.grasp.url).is_ok())
        .map(|host| (host.grasp.url.clone(), Grasp::Full))
        .collect();
    for mut repository in catalog.repositories {
        let record = disk.record(&repository.coordinate);
        let mut signing = disk.signing(&repository.coordinate);
        signing.look_at(&repository);
        repository.signed_on = signing.signed_on().cloned().collect();
        repository.heed(&record);
        let Some(state) = &repository.state else { continue };
        if state.refs.is_empty() || repository.obstacle.is_some() {
            at_rest &= record.mirrors.values().all(|mirror| mirror.status == MirrorStatus::InSync);
            continue;
        }
        if world.ledger.decisions.said.get(&state.event.id) == Some(&false) {
            let open = record.mirrors.values().find(|mirror| mirror.status != MirrorStatus::Blocked);
            if let Some(status) = open.map(|mirror| mirror.status) {
                world.break_promise(|| format!("{}: rejected, and {status:?}", repository.coordinate));
            }
            continue;
        }
        let copy = copies.get(&repository.coordinate).cloned().unwrap_or_default();
        let places = places(world, &repository, &record, &servers, usual, &copy);
        let (roots, nothing) = (repository.coordinates(), BTreeSet::new());
        let talk = conversation::gather(&roots, &events, &nothing, world.time(), usize::MAX).events;
        let refs = state.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect();
        let promised = Promised { state: state.event.id, repository: &repository, record, copy, refs, talk };
        for (url, place) in places {
            at_rest &= promised.is_kept(world, &url, &place);
        }
    }
    at_rest
}

/// Where a repository has its copies.
fn places(
    world: &mut World,
    repository: &Repository,
    record: &RepositoryRecord,
    servers: &BTreeMap<ServerUrl, Grasp>,
    usual: Usual,
    copy: &str,
) -> BTreeMap<ServerUrl, Place> {
    let mut places = placement::places(repository, servers, usual.reach, &bot(), copy);
    if let Some(wanted) = usual.copies_wanted {
        // Which servers they are is the bot's choice; how many, and those that are listed, is not.
        let is_listed =
            |url: &ServerUrl| repository.listed_by(url).is_some() && !repository.signed_on.contains(url);
        let (all, listed) = (places.len(), places.keys().filter(|url| is_listed(url)).count());
        places.retain(|url, _| is_listed(url) || record.mirrors.contains_key(url));
        let expected = all.min(listed.max(wanted as usize));
        if places.len() != expected {
            let (name, found) = (&repository.coordinate, places.len());
            world.break_promise(|| format!("{name}: {found} copies in the end, and not {expected}"));
        }
    }
    places
}

/// What a repository's servers are to have.
struct Promised<'a> {
    repository: &'a Repository,
    record: RepositoryRecord,
    /// What it is called in the bot's namespace.
    copy: String,
    state: EventId,
    refs: BTreeMap<String, ObjectId>,
    talk: Vec<EventId>,
}

impl Promised<'_> {
    /// Checks one server; `false` when it can have it only with a newer state.
    fn is_kept(&self, world: &mut World, url: &ServerUrl, place: &Place) -> bool {
        let coordinate = &self.repository.coordinate;
        let at = world.host(url);
        let name =
            format!("{} of owner {} on server {at}", coordinate.identifier, &coordinate.owner.to_hex()[..2]);
        let Some(mirror) = self.record.mirrors.get(url) else {
            world.break_promise(|| format!("{name}: no record in the end"));
            return true;
        };
        let grasp = &world.hosts[at].grasp;
        // Where a lead's own word governs, the lead has to be welcome.
        let governs = match self.repository.lead().filter(|_| place.placement == Placement::Lead) {
            Some(lead) => Coordinate::new(lead, coordinate.identifier.clone()),
            None => place.path.clone(),
        };
        if mirror.status == MirrorStatus::Refused && grasp.denied.contains(&governs) {
            return true;
        }
        let listed = grasp.repositories().find(|(path, _)| **path == place.path).map(|(_, refs)| refs);
        let has_refs = listed.as_ref() == Some(&self.refs);
        // Only a newer state brings the git data of a repository back that the server serves already.
        if grasp.serves(&self.state)
            && !has_refs
            && mirror.failure == Some(Failure::ServerFails)
            && place.placement != Placement::Namespace
        {
            return false;
        }
        // Without the owner's announcement a server takes none of it.
        let owners = self.repository.announcement().map(Announcement::id);
        let renamed = place.placement == Placement::Namespace
            && (self.copy != coordinate.identifier
                || owners.is_some_and(|id| mirror.refused.contains_key(&id)));
        let is_lacking = |id: &&EventId| !renamed && !grasp.serves(id) && !mirror.refused.contains_key(*id);
        let lacks: Vec<_> = self.talk.iter().filter(is_lacking).collect();
        let broken = if mirror.status != MirrorStatus::InSync {
            format!("{name}: {:?} in the end: {:?}", mirror.status, mirror.reason)
        } else if !has_refs {
            format!("{name}: in sync, but it lists {listed:?} and signed is {:?}", self.refs)
        } else if !lacks.is_empty() {
            format!("{name}: in sync, but it lacks {lacks:?} of the conversation")
        } else {
            return true;
        };
        world.break_promise(|| broken);
        true
    }
}
