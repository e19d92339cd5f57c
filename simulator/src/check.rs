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
        conversation,
        hold::{Held, Stands},
        namespace, placement,
        record::RepositoryRecord,
        retry::Failure,
        spread::{LOST_AFTER_SECS, Spread, Usual},
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
};

use crate::{
    bot::bot,
    discover::{first_authors, is_compared, named},
    disk::Disk,
    inbox::Order,
    own::{is_own, person},
    people::key,
    world::{Target, World},
};

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

/// Something is signed with an owner's key: it is what the owner signed last as far as the bot knows, but that it lists
/// `servers`, too; and none of them was taken out knowingly. `shown` is who sees it first since it refuses the copy.
pub(crate) fn only_adds_servers(
    world: &mut World,
    disk: &Disk,
    repository: &Coordinate,
    event: &Event,
    servers: &BTreeSet<ServerUrl>,
    shown: Option<&ServerUrl>,
) {
    let id = event.id;
    let now = world.now;
    let may_sign = match event.kind {
        Kind::RepoState => confirmed(disk, repository),
        _ => BTreeSet::from([event.pubkey]),
    };
    let same = |known: &&Event| {
        known.kind == event.kind
            && known.tags.identifier() == event.tags.identifier()
            && may_sign.contains(&known.pubkey)
    };
    let before =
        disk.events.values().filter(same).max_by_key(|known| (known.created_at, std::cmp::Reverse(known.id)));
    let Some(before) = before else {
        return world.break_promise(|| format!("{id} is signed for an owner, and replaces nothing"));
    };
    if event.created_at.as_secs() != before.created_at.as_secs() + 1 || event.content != before.content {
        world.break_promise(|| format!("{id} is signed for an owner, and dated {}", event.created_at));
    }
    let mut added: BTreeSet<String> = BTreeSet::new();
    for (at, tag) in event.tags.iter().enumerate() {
        let old = before.tags.as_slice().get(at).map(|tag| tag.as_slice()).unwrap_or_default();
        let may_grow = event.kind == Kind::GitRepoAnnouncement && matches!(tag.kind(), "clone" | "relays");
        match tag.as_slice().strip_prefix(old) {
            Some([]) => {}
            Some(more) if may_grow => added.extend(more.iter().cloned()),
            _ => return world.break_promise(|| format!("{id} is signed for an owner, and changes {tag:?}")),
        }
    }
    world.ledger.signed_for_owners.insert(id);
    let (Some(found), Some(old)) = (Announcement::read(event.clone()), Announcement::read(before.clone()))
    else {
        return;
    };
    if event.kind != Kind::GitRepoAnnouncement {
        return;
    }
    if old.private {
        world.break_promise(|| format!("{id} is signed for an owner, of a private repository"));
    }
    let urls = |server: &ServerUrl| {
        [server.to_string(), server.clone_url(&event.pubkey, &found.coordinate.identifier).to_string()]
    };
    let known: BTreeSet<String> = servers.iter().flat_map(urls).collect();
    if !added.is_subset(&known) {
        world.break_promise(|| format!("{id} is signed for an owner, and adds {added:?}"));
    }
    for server in servers.iter().filter(|server| !old.lists(server)) {
        let at = world.host(server);
        let name = (found.coordinate.clone(), at);
        let by_hand = !world.ledger.signed_for_owners.contains(&before.id);
        let taken_out = world
            .ledger
            .listings
            .get(&name)
            .is_some_and(|(at, seen)| *seen && by_hand && before.created_at.as_secs() > *at);
        if taken_out {
            world.break_promise(|| format!("server {at} was taken out of {}, and is listed again", name.0));
        }
        let copies = disk
            .events
            .values()
            .filter(|known| known.pubkey == bot() && known.kind == Kind::GitRepoAnnouncement);
        let has_copy =
            copies.map(|known| (at, known.id)).any(|known| world.ledger.said_to_serve.contains(&known));
        if shown != Some(server) && !has_copy {
            world.break_promise(|| format!("server {at} is listed for {}, and shows no copy", name.0));
        }
        world.ledger.listings.insert(name, (now, false));
    }
}

/// Notes which of the servers that the bot had listed it has seen to be listed: whoever takes one out from then on, and
/// later than it was signed, does so knowingly. What an owner signed before that, and replaces it, takes nothing out.
pub(crate) fn note_listings(world: &mut World, disk: &Disk) {
    let World { ledger, hosts, .. } = world;
    let owners: BTreeSet<PublicKey> = ledger.listings.keys().map(|(name, _)| name.owner).collect();
    let announced = disk
        .events
        .values()
        .filter(|event| event.kind == Kind::GitRepoAnnouncement && owners.contains(&event.pubkey));
    for found in announced.cloned().filter_map(Announcement::read) {
        let by_hand = !ledger.signed_for_owners.contains(&found.id());
        ledger.listings.retain(|(name, at), (signed_at, seen)| {
            if *name != found.coordinate {
                return true;
            }
            let lists = found.lists(&hosts[*at].grasp.url);
            *seen |= lists && !by_hand;
            lists || !by_hand || found.created_at().as_secs() > *signed_at
        });
    }
}

/// A state goes to a server, or what it says: is it one that takes most of the repository away, and nobody has decided?
pub(crate) fn may_be_followed(world: &mut World, wanted: &Wanted, state: Option<EventId>) {
    let Some(state) = state.filter(|_| world.habits.holds) else { return };
    let (now, decisions) = (world.now, &mut world.ledger.decisions);
    decisions.sent.insert(state);
    let Some(names) = decisions.followed.get(&wanted.repository) else { return };
    let lost = names.iter().filter(|name| wanted.refs.keys().all(|kept| kept.as_str() != *name)).count();
    if lost * 2 <= names.len() {
        return;
    }
    let since = decisions.seen.get(&state).copied().unwrap_or(now);
    let may = match decisions.said.get(&state) {
        Some(approved) => *approved,
        None => now >= since + decisions.hold_secs,
    };
    if !may {
        let (of, said) = (names.len(), decisions.said.get(&state).copied());
        world.break_promise(|| {
            format!("{}: {state} takes {lost} of {of} away, and goes out {} s after it was seen; approved: {said:?}",
                wanted.repository, now - since)
        });
    }
}

/// A cycle is over that began after somebody decided: it is done.
pub(crate) fn decisions_are_minded(world: &mut World, repository: &Coordinate, held: Option<&Held>) {
    let Some(held) = held else { return };
    let expected = match world.ledger.decisions.said.get(&held.state) {
        Some(true) => Stands::Followed,
        Some(false) => Stands::Rejected,
        None => return,
    };
    if held.stands != expected {
        let (state, stands) = (held.state, held.stands);
        world.break_promise(|| format!("{repository}: {state} is {stands:?} still, and was {expected:?}"));
    }
}

/// Somebody decided about a state, and is told that it counts: it has not gone out already.
pub(crate) fn is_heard_in_time(world: &mut World, repository: &Coordinate, state: EventId, approved: bool) {
    if !approved && world.ledger.decisions.sent.contains(&state) {
        world
            .break_promise(|| format!("{repository}: {state} is rejected, and servers have it from the bot"));
    }
    world.ledger.decisions.said.insert(state, approved);
}

/// Something goes to a server: has the time passed for which it wanted to be left alone?
pub(crate) fn is_left_alone(world: &mut World, at: usize, repository: &Coordinate, insists: bool) {
    let said = world.ledger.cools.get(&at).copied();
    let Some(until) = said.max(world.ledger.told.get(&(at, repository.clone())).copied()) else { return };
    if !insists && world.now < until {
        let left = until - world.now;
        world.break_promise(|| {
            format!("server {at} wants to be left alone for {left} s more, and something is sent")
        });
    }
}

/// What is remembered of a relay or server is what it has just shown.
pub(crate) fn holds_what_was_shown(
    world: &mut World,
    source: Target,
    held: &BTreeSet<EventId>,
    shown: &BTreeSet<EventId>,
) {
    if let Some(id) = held.difference(shown).next() {
        world.break_promise(|| format!("{source:?} is believed to have {id}, which it did not show"));
    }
}

/// What was brought is known from now on.
pub(crate) fn was_taken_in(world: &mut World, disk: &Disk, brought: &[Event]) {
    if let Some(event) = brought.iter().find(|event| disk.lacks(event)) {
        world.break_promise(|| format!("{} was brought, and is not known", event.id));
    }
}

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

/// The bot follows whom the newest list names that it has signed or seen.
pub(crate) fn obeys_the_newest_list(world: &mut World, authors: &BTreeSet<PublicKey>) {
    let Some(list) = &world.ledger.own.authors else { return };
    let named = list.tags.iter().filter(|tag| tag.kind() == "p").filter_map(|tag| tag.content());
    let named: BTreeSet<PublicKey> =
        named.filter_map(|key| PublicKey::from_hex(key).ok().map(|key| person(&key))).collect();
    if named != *authors {
        let id = list.id;
        world.break_promise(|| {
            format!("the list {id} names {}, and {} are followed", named.len(), authors.len())
        });
    }
}

/// First lists are signed on a blank machine: could every relay be read that may have older ones, or had they all a
/// second chance?
pub(crate) fn first_lists_wait(world: &mut World, is_first: bool, readable: usize) {
    let all = world.relays.len();
    if readable < if is_first { all } else { 1 } {
        world.break_promise(|| format!("first lists are signed, and {readable} of {all} relays were read"));
    }
}

/// Somebody told the bot to do this, and was told that it does.
pub(crate) fn does_what_it_was_told(
    world: &mut World,
    order: Order,
    authors: &BTreeSet<PublicKey>,
    paused: bool,
) {
    let does = match order {
        Order::Watch(owner) => authors.contains(&key(owner)),
        Order::Unwatch(owner) => !authors.contains(&key(owner)),
        Order::Pause => paused,
        Order::Resume => !paused,
        _ => true,
    };
    if !does {
        world.break_promise(|| format!("{order:?} was carried out, and is not so"));
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

/// Where a repository goes: a copy leaves a server for another one only when that server has been away for longer than
/// a day, and servers that maintainers list are never left out. `held` is where it was.
pub(crate) fn moves_what_is_lost_only(
    world: &mut World,
    repository: &Repository,
    held: &BTreeSet<ServerUrl>,
    spread: &Spread,
) {
    let name = &repository.coordinate;
    // Where the bot had itself listed it may leave again.
    let by_hand = |url: &ServerUrl| !repository.signed_on.contains(url);
    let is_listed =
        |url: &&ServerUrl| by_hand(url) && repository.announcements.iter().any(|found| found.lists(url));
    let left: Vec<&ServerUrl> = held
        .iter()
        .filter(|url| !spread.places.contains_key(*url) && !spread.barred.contains_key(*url))
        .collect();
    if let Some(url) = left.iter().find(|url| is_listed(url)) {
        let words = format!("{name} is listed on {url}, and is not brought there");
        world.break_promise(|| words);
    }
    let is_named = |url: &ServerUrl| repository.announcements.iter().any(|found| found.lists(url));
    let new = spread.places.keys().filter(|url| !held.contains(*url) && !is_named(url)).count();
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
        let mut signing = disk.signing(&repository.coordinate);
        signing.look_at(&repository);
        repository.signed_on = signing.signed_on().cloned().collect();
        repository.heed(&record);
        let repository = &repository;
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
            let is_listed =
                |url: &ServerUrl| repository.listed_by(url).is_some() && !repository.signed_on.contains(url);
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
