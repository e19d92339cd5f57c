//! Refs of a repository: set as a state wants them, with old tips kept.

use std::collections::BTreeMap;

use super::{GitError, ObjectId, Refs, Repository, archive::archive_name, oid};
use crate::model::refs::RefName;

/// What [`Repository::set_refs`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefChanges {
    /// Branches and tags that are new.
    pub created: usize,
    /// Those that point elsewhere now.
    pub updated: usize,
    /// Of those, the ones whose old tip is not part of the new one: their history was rewritten.
    pub rewritten: usize,
    /// Those that are gone.
    pub deleted: usize,
    /// Full names of the refs that keep old tips.
    pub archived: Vec<String>,
    /// Whether `HEAD` names another branch now.
    pub head_moved: bool,
}

impl RefChanges {
    /// Whether nothing had to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Repository {
    /// The repository's branches and tags.
    ///
    /// # Errors
    ///
    /// When the refs cannot be read.
    pub fn refs(&self) -> Result<Refs, GitError> {
        let refs = self.direct_refs(&["refs/heads/*", "refs/tags/*"])?;
        Ok(refs.into_iter().filter_map(|(name, tip)| Some((name.parse().ok()?, tip))).collect())
    }

    /// Makes the branches and tags exactly `refs`, and `HEAD` point at `head` if given.
    ///
    /// An old tip that would be lost (deleted, or not an ancestor of the new one) is kept at
    /// `refs/archive/<now>/heads/…` or `…/tags/…`; `now` is Unix seconds, and a second in which
    /// something was archived already is passed over. All refs change at once, or none; then `HEAD` does.
    ///
    /// # Errors
    ///
    /// As [`Repository::check_tips`], with nothing changed; or when the refs cannot be written.
    pub fn set_refs(&self, refs: &Refs, head: Option<&RefName>, now: u64) -> Result<RefChanges, GitError> {
        self.check_tips(refs)?;
        let raw = self.raw()?;
        let old = self.refs()?;
        let mut changes = RefChanges::default();
        let current = raw.find_reference("HEAD").map_err(self.git("reading HEAD"))?;
        let current = current.symbolic_target().ok().flatten().map(str::to_owned).unwrap_or_default();
        let head = head.map(RefName::as_str).filter(|head| *head != current);
        let head_moves = head.map(|head| (current.as_str(), head));
        self.log_changes((&old, refs), head_moves, now).map_err(self.io("logging changes of refs"))?;

        let mut new = BTreeMap::new();
        let lost = old.iter().filter(|(name, tip)| loses(&raw, name, **tip, refs.get(*name).copied()));
        let lost: Vec<_> = lost.collect();
        changes.rewritten = lost.iter().filter(|(name, _)| refs.contains_key(*name)).count();
        if !lost.is_empty() {
            let stamp = self.free_stamp(&raw, now)?;
            new.extend(lost.into_iter().map(|(name, tip)| (archive_name(stamp, name), Some(*tip))));
            changes.archived = new.keys().cloned().collect();
        }
        for name in old.keys().filter(|name| !refs.contains_key(*name)) {
            changes.deleted += 1;
            new.insert(name.to_string(), None);
        }
        for (name, tip) in refs.iter().filter(|(name, tip)| old.get(*name) != Some(tip)) {
            let is_known = old.contains_key(name);
            *(if is_known { &mut changes.updated } else { &mut changes.created }) += 1;
            new.insert(name.to_string(), Some(*tip));
        }
        self.write_refs(&new)?;

        if let Some(head) = head {
            let content = format!("ref: {head}\n");
            self.replace(&self.path.join("HEAD"), content.as_bytes()).map_err(self.io("setting HEAD"))?;
            changes.head_moved = true;
        }
        Ok(changes)
    }

    /// Keeps the commits of pull requests at `refs/nostr/<event id>`, so that they count as in use. Ids are in hex.
    ///
    /// # Errors
    ///
    /// When an id is not 64 hex digits or a commit is not there, with nothing changed; or when the refs cannot be written.
    pub fn set_pull_requests(&self, tips: &BTreeMap<String, ObjectId>) -> Result<(), GitError> {
        if let Some(id) =
            tips.keys().find(|id| id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(GitError::NotAnEventId { repository: self.path.clone(), id: id.clone() });
        }
        let name = |id: &String| format!("refs/nostr/{}", id.to_ascii_lowercase());
        let absent = self.missing(tips.values().copied())?;
        if let Some((id, tip)) = tips.iter().find(|(_, tip)| absent.contains(tip)) {
            return Err(self.missing_tip(&name(id), tip));
        }
        self.write_refs(&tips.iter().map(|(id, tip)| (name(id), Some(*tip))).collect())
    }

    /// The first second from `now` on in which nothing has been archived.
    fn free_stamp(&self, raw: &git2::Repository, now: u64) -> Result<u64, GitError> {
        let mut stamp = now;
        loop {
            let mut there = raw
                .references_glob(&format!("refs/archive/{stamp}/*"))
                .map_err(self.git("reading the archived refs"))?;
            if there.next().is_none() {
                return Ok(stamp);
            }
            stamp = stamp.saturating_add(1);
        }
    }
}

/// Whether moving `name` from `old` to `new` (`None`: deleting it) would leave `old` unreachable.
fn loses(raw: &git2::Repository, name: &RefName, old: ObjectId, new: Option<ObjectId>) -> bool {
    match new {
        None => true,
        Some(new) if new == old => false,
        // Only commits have descendants; a tag that moves always loses its old object.
        Some(new) => !name.is_branch() || !raw.graph_descendant_of(oid(&new), oid(&old)).unwrap_or(false),
    }
}
