//! Where git data comes from, as `src/transfer/fetch.rs` brings it.

use std::collections::BTreeSet;

use grasp_mirror::{
    model::{coordinate::Coordinate, refs::ObjectId},
    plan::{
        conversation::{self, PullRequest},
        record::Ending,
        retry::Failure,
    },
};
use nostr::event::{Event, EventId};

use super::{Bot, Subject};
use crate::{
    disk::Disk,
    world::{Crash, Home},
};

/// A conversation as far as it can be sent.
pub(super) struct Talk {
    pub(super) events: Vec<EventId>,
    /// The pull requests in it, whose commits are here.
    pub(super) requests: Vec<PullRequest>,
}

impl Bot<'_> {
    /// Brings here what the state names.
    pub(super) fn bring(&mut self, subject: &mut Subject) -> Result<Result<(), Ending>, Crash> {
        let Some(state) = subject.state.clone() else {
            return Ok(Err(Ending::Failed("nobody has signed a state".to_owned())));
        };
        let needed = self.world.history.closure(state.refs.values().copied());
        self.fetch(subject, &needed)?;
        let coordinate = &subject.repository.coordinate;
        let held = self.disk.copies.get(coordinate).map(|copy| &copy.objects);
        if needed.is_empty() || held.is_some_and(|held| needed.is_subset(held)) {
            return Ok(Ok(()));
        }
        Ok(Err(Ending::Hindered(Failure::SourceGone, "no clone URL serves what was signed".to_owned())))
    }

    fn fetch(&mut self, subject: &Subject, needed: &BTreeSet<ObjectId>) -> Result<(), Crash> {
        let coordinate = subject.repository.coordinate.clone();
        let missing = |disk: &Disk| {
            let held = disk.copies.get(&coordinate).map(|copy| &copy.objects);
            held.is_none_or(|held| !needed.is_subset(held))
        };
        if !missing(self.disk) {
            return Ok(());
        }
        let home = self.world.projects.iter().position(|project| project.coordinate() == coordinate);
        let mut sources: Vec<Option<(usize, Coordinate)>> = vec![None];
        for (url, seen) in &subject.seen {
            let Some(wanted) = subject.wanted.get(url) else { continue };
            if wanted.state.as_ref().is_some_and(|state| seen.served.contains(state)) {
                sources.push(Some((self.world.host(url), wanted.place.path.clone())));
            }
        }
        for source in sources {
            self.world.step()?;
            let brought = match source {
                Some((at, path)) => self.world.clone_from(at, &path),
                None => match home.map(|home| self.world.homes[home]) {
                    Some(Home::Good) => needed.clone(),
                    _ => BTreeSet::new(),
                },
            };
            // A pack comes in whole or not at all.
            if needed.is_subset(&brought) {
                self.world.step()?;
                self.disk.copies.entry(coordinate.clone()).or_default().objects.extend(needed);
                break;
            }
        }
        Ok(())
    }

    pub(super) fn prepare_conversation(&mut self, subject: &mut Subject, local: bool) -> Result<Talk, Crash> {
        let now = self.world.time();
        let mut here = Vec::new();
        if local {
            for request in subject.requests.clone() {
                let needed = self.world.history.closure([request.tip]);
                self.fetch(subject, &needed)?;
                let copy = self.disk.copies.get(&subject.repository.coordinate);
                if copy.is_some_and(|copy| needed.is_subset(&copy.objects)) {
                    here.push(request);
                }
            }
        }
        let missing: Vec<EventId> = subject
            .requests
            .iter()
            .map(|request| request.id)
            .filter(|id| here.iter().all(|r| r.id != *id))
            .collect();
        let mut talk = subject.conversation.clone();
        if !missing.is_empty() {
            let loaded: Vec<Event> = talk.iter().filter_map(|id| subject.events.get(id)).cloned().collect();
            let without = missing.iter().copied().collect();
            let roots = subject.repository.coordinates();
            talk = conversation::gather(&roots, &loaded, &without, now, usize::MAX).events;
        }
        if local {
            subject.record.lose(&missing, now);
        }
        Ok(Talk { events: talk, requests: here })
    }
}
