//! Which objects a server lacks that has some of our commits.

use std::collections::HashSet;

use git2::{ObjectType, Oid, Sort, Tree};

/// Ids of git2 are 20 bytes and copy.
type Ids = HashSet<Oid>;

/// Objects to send, and some that the receiver is known to have (candidates for bases of deltas).
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) objects: Ids,
    pub(super) known: Ids,
}

/// What `wants` need beyond everything that `haves` (objects of this repository) reach.
///
/// Trees are compared with those of the parents, path by path, so the cost grows with what changed, not
/// with the size of the repository. An object that moved to another path counts as missing: a few too
/// many are harmless, one too few is not.
pub(super) fn missing(raw: &git2::Repository, wants: &[Oid], haves: &[Oid]) -> Result<Missing, git2::Error> {
    let mut found = Missing { objects: Ids::new(), known: haves.iter().copied().collect() };
    let mut walk = raw.revwalk()?;
    // Parents first: what a commit adds is judged against parents that have been dealt with.
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    for have in haves {
        let mut object = raw.find_object(*have, None)?;
        while let Some(tag) = object.as_tag() {
            found.known.insert(tag.id());
            object = tag.target()?;
        }
        found.known.insert(object.id());
        if object.kind() == Some(ObjectType::Commit) {
            walk.hide(object.id())?;
        }
    }
    let mut loose_ends = Vec::new();
    for want in wants {
        let mut object = raw.find_object(*want, None)?;
        while let Some(tag) = object.as_tag() {
            if !found.known.contains(&tag.id()) {
                found.objects.insert(tag.id());
            }
            object = tag.target()?;
        }
        match object.kind() {
            Some(ObjectType::Commit) => walk.push(object.id())?,
            _ if found.known.contains(&object.id()) => {}
            Some(ObjectType::Tree) => loose_ends.push(object.id()),
            _ => {
                found.objects.insert(object.id());
            }
        }
    }
    for id in walk {
        let commit = raw.find_commit(id?)?;
        found.objects.insert(commit.id());
        let mut parents = Vec::with_capacity(commit.parent_count());
        for parent in commit.parents() {
            let id = parent.tree_id();
            if !found.objects.contains(&id) {
                found.known.insert(id);
            }
            parents.push(id);
        }
        if !parents.contains(&commit.tree_id()) {
            found.add_tree(raw, commit.tree_id(), parents)?;
        }
    }
    for tree in loose_ends {
        found.add_tree(raw, tree, Vec::new())?;
    }
    Ok(found)
}

impl Missing {
    /// Adds the tree `id` and what is in it, except what lies at the same path in one of `bases`.
    ///
    /// A list of what is to do instead of recursion: folders may be nested deeper than a stack is.
    fn add_tree(&mut self, raw: &git2::Repository, id: Oid, bases: Vec<Oid>) -> Result<(), git2::Error> {
        let mut todo = vec![(id, bases)];
        while let Some((id, bases)) = todo.pop() {
            if !self.objects.insert(id) {
                continue;
            }
            let tree = raw.find_tree(id)?;
            let bases: Vec<Tree<'_>> = bases.into_iter().filter_map(|id| raw.find_tree(id).ok()).collect();
            for entry in &tree {
                let kind = entry.kind();
                // A submodule's commit lives elsewhere.
                if kind == Some(ObjectType::Commit) || self.objects.contains(&entry.id()) {
                    continue;
                }
                let mut same = false;
                let mut below = Vec::new();
                for old in bases.iter().filter_map(|base| base.get_name_bytes(entry.name_bytes())) {
                    if old.id() == entry.id() {
                        same = true;
                        break;
                    }
                    if old.kind() != Some(ObjectType::Commit) && !self.objects.contains(&old.id()) {
                        self.known.insert(old.id());
                    }
                    if old.kind() == Some(ObjectType::Tree) {
                        below.push(old.id());
                    }
                }
                if same {
                    continue;
                }
                if kind == Some(ObjectType::Tree) {
                    todo.push((entry.id(), below));
                } else {
                    self.objects.insert(entry.id());
                }
            }
        }
        Ok(())
    }
}
