//! Pushes: who may, what they bring, and what they set free.

use std::collections::BTreeSet;

use grasp_mirror::model::{coordinate::Coordinate, refs::ObjectId, state::State};
use nostr::{
    event::{Event, EventId, Kind},
    types::Timestamp,
};

use super::{Change, Grasp, Repository, exactly};
use crate::git::History;

impl Grasp {
    /// A push of `changes` with `sent` objects to `path`, taken whole or not at all.
    ///
    /// # Errors
    ///
    /// The server's words.
    pub fn push(
        &mut self,
        path: &Coordinate,
        changes: &[Change],
        sent: &BTreeSet<ObjectId>,
        history: &History,
        now: Timestamp,
    ) -> Result<(), String> {
        self.expire(now);
        let Some(repository) = self.repositories.get(path) else {
            return Err("it does not exist there".to_owned());
        };
        let head = repository.head.clone().filter(|head| changes.contains(&(head.clone(), None)));
        let mut after = repository.clone();
        for (name, new) in changes {
            match new {
                Some(id) => {
                    after.refs.insert(name.clone(), *id);
                }
                None if after.refs.remove(name).is_none() => return Err(format!("{name} is not there")),
                None => {}
            }
        }
        let held = self.objects.get(&path.identifier).cloned().unwrap_or_default();
        let all: BTreeSet<ObjectId> = held.union(sent).copied().collect();
        let needed = history.closure(changes.iter().filter_map(|(_, new)| *new));
        if !needed.is_subset(&all) {
            return Err("unpack failed: objects are missing".to_owned());
        }
        if changes.iter().any(|(name, _)| !name.starts_with("refs/nostr/")) {
            self.authorize(path, &after)?;
        }
        if let Some(head) = head.and_then(|head| Some((head.clone(), *repository.refs.get(&head)?))) {
            // Git does everything else that was asked for.
            after.refs.extend([head]);
            self.objects.insert(path.identifier.clone(), all);
            self.repositories.insert(path.clone(), after);
            return Err("deletion of the current branch prohibited".to_owned());
        }
        if after.head.as_ref().is_none_or(|head| !after.refs.contains_key(head)) {
            after.head = after.refs.keys().find(|name| name.starts_with("refs/heads/")).cloned();
        }
        self.objects.insert(path.identifier.clone(), all);
        self.repositories.insert(path.clone(), after);
        self.release_pull_requests(changes);
        self.reconcile(&path.identifier, history);
        Ok(())
    }

    /// A push has to make heads and tags exactly a state that waits for it.
    fn authorize(&self, path: &Coordinate, after: &Repository) -> Result<(), String> {
        let pending: Vec<State> = self
            .purgatory
            .values()
            .filter(|(event, _)| event.kind == Kind::RepoState)
            .filter_map(|(event, _)| State::read(event.clone()).ok())
            .filter(|state| state.coordinate.identifier == path.identifier)
            .filter(|state| {
                self.governed_by(&state.event.pubkey, &path.identifier)
                    .iter()
                    .any(|announcement| announcement.coordinate == *path)
            })
            .collect();
        if pending.is_empty() {
            return Err("authorisation failed: No state events in purgatory".to_owned());
        }
        let refs = after.mirrored();
        if pending.iter().any(|state| exactly(&state.refs) == refs) {
            return Ok(());
        }
        Err(format!(
            "authorisation failed: {} state event in purgatory from authorized publisher but doesn't match push",
            pending.len()
        ))
    }

    fn release_pull_requests(&mut self, changes: &[Change]) {
        for (name, new) in changes {
            let (Some(id), Some(tip)) = (name.strip_prefix("refs/nostr/"), new) else { continue };
            let Ok(id) = EventId::from_hex(id) else { continue };
            let named = |event: &Event| {
                event
                    .tags
                    .iter()
                    .any(|tag| tag.kind() == "c" && tag.content() == Some(tip.to_string().as_str()))
            };
            if let Some((event, _)) = self.purgatory.get(&id).filter(|(event, _)| named(event)).cloned() {
                self.serve(&event);
            }
        }
    }
}
