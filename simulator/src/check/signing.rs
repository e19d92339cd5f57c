//! What is signed with an owner's key, and what follows for what may be.

use std::collections::BTreeSet;

use grasp_mirror::model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl};
use nostr::{
    event::{Event, Kind},
    key::PublicKey,
};

use super::confirmed;
use crate::{bot::bot, disk::Disk, world::World};

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
