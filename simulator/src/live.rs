//! What is heard between cycles, by the program's own judgement of what an event concerns ([`grasp_mirror::plan::live`]).
//!
//! Cycles read everything here. So after each it is checked that who only listened since the one before would have heard
//! of every family of which something else is signed, or about which something was said, and that relays are asked for
//! all that concerns us.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::coordinate::Coordinate,
    plan::{
        catalog::{Repository, Watched},
        live::Concerns,
        rest::Known,
    },
};
use nostr::{
    event::{Event, EventId},
    filter::{Filter, MatchEventOptions},
};

use crate::{
    bot::{Bot, bot},
    rest::sources,
    world::World,
};

/// What is listened to since a cycle.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) concerns: Concerns,
    /// The same without the conversations, which ordinary relays cannot be asked for.
    at_relays: (Concerns, Vec<Filter>),
    watched: Watched,
    /// Stored when the cycle looked.
    stored: BTreeSet<EventId>,
    /// What maintainers signed to make each family.
    families: BTreeMap<String, BTreeSet<EventId>>,
    /// What is said around each repository.
    talk: BTreeMap<Coordinate, BTreeSet<EventId>>,
    /// What that may point at beside itself.
    roots: BTreeMap<Coordinate, Vec<Coordinate>>,
}

impl Bot<'_> {
    /// A cycle that looked at `repositories`, made of `events`, is over.
    pub(crate) fn listen(&mut self, repositories: &[Repository], events: &[Event]) {
        let now = Listening::to(repositories, events, &self.kept.repositories, &self.disk.watched);
        if let Some(before) = self.kept.listening.replace(now)
            && let Some(now) = &self.kept.listening
        {
            before.would_have_heard(self.world, now, events);
        }
    }
}

impl Listening {
    fn to(
        repositories: &[Repository],
        events: &[Event],
        known: &BTreeMap<Coordinate, Known>,
        watched: &Watched,
    ) -> Self {
        let thread = |repository: &Repository| -> Vec<EventId> {
            let known = known.get(&repository.coordinate);
            known.map(|known| known.thread.keys().copied().collect()).unwrap_or_default()
        };
        let threads: Vec<Vec<EventId>> = repositories.iter().map(thread).collect();
        let concerns = Concerns::of(watched, repositories.iter().zip(threads.iter().map(Vec::as_slice)));
        let bare = Concerns::of(watched, repositories.iter().map(|repository| (repository, [].as_slice())));
        let filters = bare.filters();
        let mut families: BTreeMap<String, BTreeSet<EventId>> = BTreeMap::new();
        for repository in repositories {
            families.entry(repository.coordinate.identifier.clone()).or_default().extend(sources(repository));
        }
        let named = |repository: &Repository| repository.coordinate.clone();
        Self {
            concerns,
            at_relays: (bare, filters),
            watched: watched.clone(),
            stored: events.iter().map(|event| event.id).collect(),
            families,
            talk: repositories.iter().map(named).zip(threads.into_iter().map(BTreeSet::from_iter)).collect(),
            roots: repositories.iter().map(|one| (named(one), one.coordinates())).collect(),
        }
    }

    /// Is every family that is `now` otherwise named by one of the events that came meanwhile, and does a relay that is
    /// listened to tell of them?
    fn would_have_heard(&self, world: &mut World, now: &Self, events: &[Event]) {
        if self.watched != now.watched {
            return;
        }
        let is_new = |event: &&Event| event.pubkey != bot() && !self.stored.contains(&event.id);
        let mut unheard: Vec<&Event> = events.iter().filter(is_new).collect();
        let mut concerns = self.concerns.clone();
        let mut heard: BTreeSet<String> = BTreeSet::new();
        loop {
            // What comes first may be about what comes last.
            let (told, rest): (Vec<&Event>, Vec<&Event>) =
                unheard.into_iter().partition(|event| !concerns.touched_by(event).is_empty());
            if told.is_empty() {
                unheard = rest;
                break;
            }
            for event in told {
                let families = concerns.touched_by(event);
                concerns.note(event, &families);
                heard.extend(families);
                let (bare, filters) = &self.at_relays;
                let is_asked_for =
                    filters.iter().any(|filter| filter.match_event(event, MatchEventOptions::default()));
                if !bare.touched_by(event).is_empty() && !is_asked_for {
                    let (id, kind) = (event.id, event.kind);
                    world.break_promise(|| {
                        format!("{id} (kind {kind}) concerns us, and no relay is asked for it")
                    });
                }
            }
            unheard = rest;
        }
        let nothing = Default::default();
        for family in self.families.keys().chain(now.families.keys()) {
            let (before, after) =
                (self.families.get(family).unwrap_or(&nothing), now.families.get(family).unwrap_or(&nothing));
            if before != after && !heard.contains(family) {
                world.break_promise(|| {
                    format!("{family} is not as it was, and who listens has not heard of it")
                });
            }
        }
        for (coordinate, talk) in &now.talk {
            let new = events.iter().filter(is_new).filter(|event| talk.contains(&event.id)).collect();
            let said = self.said_about(coordinate, new);
            let unheard = said.iter().find(|event| unheard.iter().any(|one| one.id == event.id));
            let first = said.first().filter(|_| !heard.contains(&coordinate.identifier));
            if let Some(id) = unheard.or(first).map(|event| event.id) {
                world.break_promise(|| {
                    format!("{id} is said about {coordinate}, and who listens has not heard of it")
                });
            }
        }
    }

    /// Those of `new` events that point at what belonged to the repository, and at each other. What answers a pull
    /// request that was lost belongs to it only when that is looked for again, and nobody hears that a time has come.
    fn said_about<'a>(&self, coordinate: &Coordinate, mut new: Vec<&'a Event>) -> Vec<&'a Event> {
        let talk = self.talk.get(coordinate).into_iter().flatten().map(EventId::to_hex);
        let roots = self.roots.get(coordinate).into_iter().flatten().map(ToString::to_string);
        let mut targets: BTreeSet<String> = talk.chain(roots).collect();
        let mut said = Vec::new();
        loop {
            let points_at = |event: &&Event| {
                let tags = event.tags.iter().filter(|tag| matches!(tag.kind(), "a" | "A" | "q" | "e" | "E"));
                tags.filter_map(|tag| tag.content()).any(|target| targets.contains(target))
            };
            let (more, rest): (Vec<&Event>, Vec<&Event>) = new.into_iter().partition(points_at);
            if more.is_empty() {
                return said;
            }
            targets.extend(more.iter().map(|event| event.id.to_hex()));
            said.extend(more);
            new = rest;
        }
    }
}
