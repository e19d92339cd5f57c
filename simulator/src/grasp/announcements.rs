//! Announcements: a repository comes to the server, leaves it, and comes back.

use std::collections::BTreeSet;

use grasp_mirror::model::{announcement::Announcement, coordinate::Coordinate, replace::wins};
use nostr::{
    event::{Event, Kind},
    types::Timestamp,
};

use super::{Grasp, Said};
use crate::git::History;

impl Grasp {
    pub(super) fn take_announcement(&mut self, event: &Event, history: &History, now: Timestamp) -> Said {
        let Some(found) = Announcement::read(event.clone()) else { return Said::no("invalid: no d tag") };
        let newer = |known: &Event| {
            known.kind == event.kind
                && known.pubkey == event.pubkey
                && known.tags.identifier() == event.tags.identifier()
                && !wins(event, known)
        };
        if self.known().any(newer) {
            // "duplicate: superseded by a newer event"
            return Said::Taken;
        }
        if self.denied.contains(&found.coordinate) {
            return Said::no("blocked: this repository is not welcome here");
        }
        let before = self.announced(&found.coordinate).cloned().and_then(Announcement::read);
        if !found.lists(&self.url) {
            let delisted = before.is_some_and(|before| before.lists(&self.url));
            let forgotten = !delisted && self.forget_kept_back(event);
            let listed = self.announcements(&found.coordinate.identifier);
            let introduced = listed.values().any(|other| {
                other.author() != found.author()
                    && (other.roles.listed.contains(&found.author())
                        || other.roles.leads.contains(&found.author()))
            });
            if delisted {
                self.leave(&found.coordinate);
            }
            if delisted || forgotten || !introduced {
                return Said::no(
                    "invalid: Announcement must list service in both 'clone' and 'relays' tags, or match archive whitelist",
                );
            }
            self.serve(event);
            self.come_back(&found.coordinate);
            return Said::Taken;
        }
        if self.left.contains_key(&found.coordinate) {
            self.serve(event);
            self.come_back(&found.coordinate);
            return Said::Taken;
        }
        if before.is_some_and(|before| before.roles == found.roles) {
            self.serve(event);
            // Where it was not listed before, the repository is made, and left empty.
            self.repositories.entry(found.coordinate.clone()).or_default();
            return Said::Taken;
        }
        self.forget_kept_back(event);
        self.keep_back(event, now);
        self.repositories.entry(found.coordinate.clone()).or_default();
        self.reconcile(&found.coordinate.identifier, history);
        Said::Purgatory
    }

    /// Forgets what `event` replaces of what is kept back; whether there was any.
    fn forget_kept_back(&mut self, event: &Event) -> bool {
        let before = self.purgatory.len();
        self.purgatory.retain(|_, (known, _)| {
            known.kind != event.kind
                || known.pubkey != event.pubkey
                || known.tags.identifier() != event.tags.identifier()
        });
        self.purgatory.len() < before
    }

    /// An owner takes the server off the list: it serves nothing of the repository any more.
    fn leave(&mut self, coordinate: &Coordinate) {
        let Some(announcement) = self.announced(coordinate).map(|event| event.id) else { return };
        self.served.remove(&announcement);
        let Some(repository) = self.repositories.remove(coordinate) else { return };
        let served = self.served.clone();
        let (a, mut gone) = (coordinate.to_string(), BTreeSet::from([announcement.to_hex()]));
        loop {
            let before = gone.len();
            for event in self.served.values().filter(|event| !event.kind.is_addressable()) {
                let mut targets = event.tags.iter().filter_map(|tag| tag.content());
                if event.kind != Kind::EventDeletion
                    && targets.any(|target| target == a || gone.contains(target))
                {
                    gone.insert(event.id.to_hex());
                }
            }
            if gone.len() == before {
                break;
            }
        }
        self.served.retain(|id, _| !gone.contains(&id.to_hex()));
        self.forget_states_of_nothing(&coordinate.identifier);
        let kept = served.into_values().filter(|event| !self.serves(&event.id)).collect();
        self.left.insert(coordinate.clone(), (repository, kept));
    }

    /// A repository that was left is there again, with what was served of it.
    fn come_back(&mut self, coordinate: &Coordinate) {
        let Some((repository, events)) = self.left.remove(coordinate) else { return };
        self.repositories.insert(coordinate.clone(), repository);
        for event in events {
            let is_old = self.served.values().any(|known| {
                event.kind == Kind::RepoState
                    && known.kind == event.kind
                    && known.pubkey == event.pubkey
                    && known.tags.identifier() == event.tags.identifier()
                    && wins(known, &event)
            });
            if !is_old && !self.deleted.contains(&event.id) {
                self.serve(&event);
            }
        }
    }

    /// Where there is no repository of that name left, there is no state either.
    pub(super) fn forget_states_of_nothing(&mut self, identifier: &str) {
        if self.repositories.keys().all(|other| other.identifier != identifier) {
            let of_it = |event: &Event| {
                event.kind == Kind::RepoState && event.tags.identifier().as_deref() == Some(identifier)
            };
            self.served.retain(|_, event| !of_it(event));
            self.purgatory.retain(|_, (event, _)| !of_it(event));
        }
    }
}
