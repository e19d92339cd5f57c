//! What must never happen, and what must be so in the end. Nothing in here asks the code that is judged: who may
//! sign, for example, is worked out once more, in another way.

mod end;
mod signing;

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        announcement::Announcement, coordinate::Coordinate, refs::Refs, server::ServerUrl, state::State,
    },
    plan::{
        catalog::Repository,
        converge::Wanted,
        hold::{Held, Stands},
        spread::{LOST_AFTER_SECS, Spread},
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    key::PublicKey,
};

pub(crate) use self::{
    end::{has_converged, knows_what_there_is, lists_are_everywhere, records_of_wanted},
    signing::{note_listings, only_adds_servers},
};
use crate::{
    bot::bot,
    disk::Disk,
    inbox::Order,
    own::person,
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
