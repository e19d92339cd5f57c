//! What must never happen, and what must be so in the end. Nothing in here asks the code that is judged: who may
//! sign, for example, is worked out once more, in another way.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement, coordinate::Coordinate, placement::Placement, policy::Policy, refs::Refs,
        server::ServerUrl, state::State, status::MirrorStatus,
    },
    plan::{
        catalog::{self, Limits, Repository},
        converge::Wanted,
        conversation, namespace, placement,
        record::RepositoryRecord,
        retry::Failure,
        spread::{LOST_AFTER_SECS, Spread, Usual},
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
};

use crate::{bot::bot, disk::Disk, world::World};

/// Who may sign the state of `coordinate`, by everything on the disk: grown one by one from the owner.
fn confirmed(disk: &Disk, coordinate: &Coordinate) -> BTreeSet<PublicKey> {
    let mut lists: BTreeMap<PublicKey, (u64, BTreeSet<String>)> = BTreeMap::new();
    for event in disk.events.values().filter(|event| event.kind == Kind::GitRepoAnnouncement) {
        if event.tags.identifier().as_ref() != Some(&coordinate.identifier) || event.pubkey == bot() {
            continue;
        }
        let words = event.tags.iter().map(|tag| tag.as_slice());
        let listed = words.filter(|tag| matches!(tag[0].as_str(), "M" | "m" | "maintainers"));
        let listed: BTreeSet<String> = listed.flat_map(|tag| tag[1..].iter().cloned()).collect();
        lists.insert(event.pubkey, (event.created_at.as_secs(), listed));
    }
    let mut all = BTreeSet::from([coordinate.owner]);
    loop {
        let before = all.len();
        for (candidate, (_, own)) in &lists {
            let is_listed = all
                .iter()
                .any(|key| lists.get(key).is_some_and(|(_, listed)| listed.contains(&candidate.to_hex())));
            if is_listed && all.iter().any(|key| own.contains(&key.to_hex())) {
                all.insert(*candidate);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

/// The refs that the newest state of a confirmed maintainer names.
fn signed(disk: &Disk, coordinate: &Coordinate) -> Option<Refs> {
    let confirmed = confirmed(disk, coordinate);
    let states = disk.events.values().filter(|event| {
        event.kind == Kind::RepoState
            && event.tags.identifier().as_ref() == Some(&coordinate.identifier)
            && confirmed.contains(&event.pubkey)
    });
    let newest = states.max_by_key(|event| (event.created_at, std::cmp::Reverse(event.id)))?;
    State::read(newest.clone()).ok().map(|state| state.refs)
}

/// A push: are these the refs that a confirmed maintainer signed last, as far as the bot knows?
pub(crate) fn is_signed(world: &mut World, disk: &Disk, wanted: &Wanted) {
    let signed = signed(disk, &wanted.repository);
    if signed.as_ref() != Some(&wanted.refs) {
        world.break_promise(|| {
            format!("{}: pushes {:?}, signed is {signed:?}", wanted.repository, wanted.refs)
        });
    }
    if wanted.place.own != (wanted.place.path.owner == bot()) {
        world.break_promise(|| format!("{}: pushed to a path that is not its own", wanted.repository));
    }
}

/// An event to a server: nothing protected, expired or private leaves.
pub(crate) fn may_be_sent(world: &mut World, disk: &Disk, at: usize, event: &Event) {
    if event.is_protected() {
        world.break_promise(|| format!("the protected event {} is sent to server {at}", event.id));
    }
    let now = world.time();
    if event.is_expired_at(now) && event.tags.iter().all(|tag| tag.kind() != "d") {
        // Found out when it is sent, so what expires during a cycle may still go.
        let grace = nostr::types::Timestamp::from_secs(now.as_secs().saturating_sub(7_200));
        if event.is_expired_at(grace) {
            world.break_promise(|| format!("the expired event {} is sent to server {at}", event.id));
        }
    }
    let url = world.hosts[at].grasp.url.clone();
    let about: Vec<Coordinate> = match (event.kind, event.tags.identifier()) {
        (Kind::GitRepoAnnouncement | Kind::RepoState, Some(d)) => vec![Coordinate::new(event.pubkey, d)],
        _ => event
            .tags
            .iter()
            .filter(|tag| tag.kind() == "a")
            .filter_map(|tag| tag.content()?.parse().ok())
            .collect(),
    };
    for coordinate in about {
        let known = disk.events.values().filter(|known| {
            known.kind == Kind::GitRepoAnnouncement
                && known.pubkey == coordinate.owner
                && known.tags.identifier().as_ref() == Some(&coordinate.identifier)
        });
        let private = known.filter_map(|known| Announcement::read(known.clone())).find(|found| found.private);
        if private.is_some_and(|found| !found.lists(&url)) {
            world.break_promise(|| format!("{} of private {coordinate} is sent to server {at}", event.id));
        }
    }
}

/// Where a repository goes: a copy leaves a server for another one only when that server has been away for longer than
/// a day, and servers that maintainers list are never left out. `held` is where it was.
pub(crate) fn moves_what_is_lost_only(
    world: &mut World,
    repository: &Repository,
    held: &BTreeSet<ServerUrl>,
    spread: &Spread,
) {
    let name = &repository.coordinate;
    let is_listed = |url: &&ServerUrl| repository.announcements.iter().any(|found| found.lists(url));
    let left: Vec<&ServerUrl> = held
        .iter()
        .filter(|url| !spread.places.contains_key(*url) && !spread.barred.contains_key(*url))
        .collect();
    if let Some(url) = left.iter().find(|url| is_listed(url)) {
        let words = format!("{name} is listed on {url}, and is not brought there");
        world.break_promise(|| words);
    }
    let new = spread.places.keys().filter(|url| !held.contains(*url) && !is_listed(url)).count();
    if new == 0 || left.is_empty() {
        return;
    }
    world.totals.moves += 1;
    for url in left {
        let last = world.ledger.noted.get(&world.host(url)).copied();
        if last.is_some_and(|last| world.now <= last + LOST_AFTER_SECS) {
            let words = format!("{name} leaves {url} for another one, which was there {last:?}");
            world.break_promise(|| words);
        }
    }
}

/// A mirror is tried though nobody asked for it: has it waited longer with every failure?
pub(crate) fn has_waited(
    world: &mut World,
    url: &ServerUrl,
    coordinate: &Coordinate,
    state: Option<EventId>,
) {
    let at = world.host(url);
    let Some((of, count, last)) = world.ledger.failed.get(&(at, coordinate.clone())).copied() else { return };
    let wait = (0..count.min(8)).fold(15, |wait: u64, _| wait * 2).min(3_600);
    if of == state && world.now < last + wait * 3 / 4 {
        let waited = world.now - last;
        world.break_promise(|| {
            format!("{coordinate} on server {at} failed {count} times, and waited {waited} s")
        });
    }
}

/// A server that was down is asked though nobody asked for it: has it waited longer with every failure?
pub(crate) fn server_has_waited(world: &mut World, at: usize) {
    let Some((count, last)) = world.ledger.tries.get(&at).copied() else { return };
    let wait = (0..count.min(8)).fold(15, |wait: u64, _| wait * 2).min(3_600);
    if world.now < last + wait * 3 / 4 {
        let waited = world.now - last;
        world.break_promise(|| {
            format!("server {at} was down {count} times, and was left alone for {waited} s")
        });
    }
}

/// A mirror is called in sync: did the server say so itself, in this cycle?
pub(crate) fn was_read_back(
    world: &mut World,
    at: usize,
    repository: &Coordinate,
    governing: Option<&[EventId]>,
) {
    let Some(governing) = governing else {
        return world.break_promise(|| format!("server {at}: in sync, and nothing was wanted"));
    };
    for id in governing {
        if !world.ledger.said_to_serve.contains(&(at, *id)) {
            world.break_promise(|| {
                format!("{repository} on server {at}: in sync, but {id} was not read back")
            });
        }
    }
}

/// The records of what is mirrored now. Others stay as they were, and nobody waits for them.
pub(crate) fn records_of_wanted(disk: &Disk) -> Vec<RepositoryRecord> {
    let events: Vec<Event> = disk.events.values().cloned().collect();
    let limits = Limits { max_refs: 100, max_repos_per_author: 10 };
    let catalog = catalog::build(&events, &disk.watched, &bot(), limits);
    catalog.repositories.iter().map(|repository| disk.record(&repository.coordinate)).collect()
}

/// How it must stand when everything has calmed down: what is wanted is there, by the servers' own word and in truth.
///
/// Returns whether nothing at all is left to do.
pub(crate) fn has_converged(world: &mut World, disk: &Disk, policy: &Policy, usual: Usual) -> bool {
    let mut at_rest = true;
    let events: Vec<Event> = disk.events.values().cloned().collect();
    let limits = Limits { max_refs: 100, max_repos_per_author: 10 };
    let catalog = catalog::build(&events, &disk.watched, &bot(), limits);
    let own = events.iter().filter(|event| event.pubkey == bot());
    let announced: Vec<Announcement> = own.cloned().filter_map(Announcement::read).collect();
    let copies = namespace::identifiers(&catalog.repositories, &announced);
    let servers: BTreeMap<_, _> = world
        .hosts
        .iter()
        .filter(|host| policy.admits_server(&host.grasp.url).is_ok())
        .map(|host| (host.grasp.url.clone(), placement::Grasp::Full))
        .collect();
    for mut repository in catalog.repositories {
        let record = disk.record(&repository.coordinate);
        repository.heed(&record);
        let repository = &repository;
        let Some(state) = &repository.state else { continue };
        if state.refs.is_empty() || repository.obstacle.is_some() {
            continue;
        }
        let coordinate = &repository.coordinate;
        let copy = copies.get(coordinate).cloned().unwrap_or_default();
        let refs: BTreeMap<String, _> = state.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect();
        let talk = conversation::gather(
            &repository.coordinates(),
            &events,
            &BTreeSet::new(),
            world.time(),
            usize::MAX,
        );
        let mut places = placement::places(repository, &servers, usual.reach, &bot(), &copy);
        if let Some(wanted) = usual.copies_wanted {
            // Which servers they are is the bot's choice; how many, and those that are listed, is not.
            let is_listed = |url: &ServerUrl| repository.listed_by(url).is_some();
            let (all, listed) = (places.len(), places.keys().filter(|url| is_listed(url)).count());
            places.retain(|url, _| is_listed(url) || record.mirrors.contains_key(url));
            let expected = all.min(listed.max(wanted as usize));
            if places.len() != expected {
                let words = format!("{coordinate}: {} copies in the end, and not {expected}", places.len());
                world.break_promise(|| words);
            }
        }
        for (url, place) in places {
            let at = world.host(&url);
            let name = format!(
                "{} of owner {} on server {at}",
                coordinate.identifier,
                &coordinate.owner.to_hex()[..2]
            );
            let Some(mirror) = record.mirrors.get(&url) else {
                world.break_promise(|| format!("{name}: no record in the end"));
                continue;
            };
            let grasp = &world.hosts[at].grasp;
            // Where a lead's own word governs, the lead has to be welcome.
            let governs = match repository.lead().filter(|_| place.placement == Placement::Lead) {
                Some(lead) => Coordinate::new(lead, coordinate.identifier.clone()),
                None => place.path.clone(),
            };
            if mirror.status == MirrorStatus::Refused && grasp.denied.contains(&governs) {
                continue;
            }
            let listed = grasp.repositories().find(|(path, _)| **path == place.path).map(|(_, refs)| refs);
            // Only a newer state brings the git data of a repository back that the server serves already.
            let is_served = grasp.serves(&state.event.id) && listed.as_ref() != Some(&refs);
            if is_served
                && mirror.failure == Some(Failure::ServerFails)
                && place.placement != Placement::Namespace
            {
                at_rest = false;
                continue;
            }
            if mirror.status != MirrorStatus::InSync {
                let words = format!("{name}: {:?} in the end: {:?}", mirror.status, mirror.reason);
                world.break_promise(|| words);
                continue;
            }
            if listed.as_ref() != Some(&refs) {
                let words = format!("{name}: in sync, but it lists {listed:?} and signed is {refs:?}");
                world.break_promise(|| words);
                continue;
            }
            // Without the owner's announcement a server takes none of it.
            let owners = repository.announcement().map(Announcement::id);
            let renamed = place.placement == Placement::Namespace
                && (copy != coordinate.identifier
                    || owners.is_some_and(|id| mirror.refused.contains_key(&id)));
            let lacks: Vec<_> = talk
                .events
                .iter()
                .filter(|id| !renamed && !grasp.serves(id) && !mirror.refused.contains_key(*id))
                .collect();
            if !lacks.is_empty() {
                let words = format!("{name}: in sync, but it lacks {lacks:?} of the conversation");
                world.break_promise(|| words);
            }
        }
    }
    at_rest
}
