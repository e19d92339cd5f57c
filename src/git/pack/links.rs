//! What an object refers to, for the check that nothing is missing.
//!
//! libgit2's indexer has such a check as well, but it expects the commits of submodules to be in the
//! pack, and so refuses every repository that has a submodule.

use std::collections::HashSet;

use gix_hash::ObjectId;

use super::MAX_OBJECTS;

/// The type of a stored object; the numbers are those of pack entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Commit = 1,
    Tree = 2,
    Blob = 3,
    Tag = 4,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// Every object that the seen objects refer to.
#[derive(Debug, Default)]
pub(super) struct Links(HashSet<[u8; 20]>);

impl Links {
    /// Adds what an object of `kind` with content `data` refers to; the reason when it cannot be read.
    pub(super) fn add(&mut self, kind: Kind, data: &[u8]) -> Result<(), &'static str> {
        match kind {
            Kind::Blob => Ok(()),
            Kind::Tree => self.add_tree(data),
            Kind::Tag => {
                let (target, _) = header_id(data, b"object ").ok_or("a tag without its object line")?;
                self.0.insert(target);
                Ok(())
            }
            Kind::Commit => {
                let (tree, mut rest) = header_id(data, b"tree ").ok_or("a commit without its tree line")?;
                self.0.insert(tree);
                while let Some((parent, after)) = header_id(rest, b"parent ") {
                    self.0.insert(parent);
                    rest = after;
                }
                // A malformed parent line must not hide a parent from the check.
                if rest.starts_with(b"parent") {
                    Err("a commit with a malformed parent line")
                } else {
                    Ok(())
                }
            }
        }
    }

    fn add_tree(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "a tree with a malformed entry";
        // With more the pack is refused, so that the rest does not matter.
        while !data.is_empty() && self.len() <= MAX_OBJECTS {
            let name_end = data.iter().position(|byte| *byte == 0).ok_or(BAD)?;
            let (entry, rest) = data.split_at_checked(name_end + 1).ok_or(BAD)?;
            let (id, rest) = rest.split_first_chunk::<20>().ok_or(BAD)?;
            // Mode 160000: a submodule's commit, which lives in another repository.
            if !entry.starts_with(b"160000 ") {
                self.0.insert(*id);
            }
            data = rest;
        }
        Ok(())
    }

    /// How many different objects are referred to.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8; 20]> {
        self.0.iter()
    }
}

/// Reads `<prefix><40 hex digits>\n`; the id and what follows.
fn header_id<'a>(data: &'a [u8], prefix: &[u8]) -> Option<([u8; 20], &'a [u8])> {
    let (hex, rest) = data.strip_prefix(prefix)?.split_at_checked(40)?;
    let rest = rest.strip_prefix(b"\n")?;
    let id = ObjectId::from_hex(hex).ok()?;
    Some((id.as_slice().try_into().ok()?, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn links(kind: Kind, data: &[u8]) -> Result<Vec<[u8; 20]>, &'static str> {
        let mut links = Links::default();
        links.add(kind, data)?;
        let mut all: Vec<_> = links.iter().copied().collect();
        all.sort_unstable();
        Ok(all)
    }

    #[test]
    fn a_commit_refers_to_its_tree_and_parents() {
        let commit = format!("tree {A}\nparent {B}\nauthor x <x> 1 +0000\n\nparent {A}\n");
        assert_eq!(links(Kind::Commit, commit.as_bytes()), Ok(vec![[0xaa; 20], [0xbb; 20]]));
        assert!(links(Kind::Commit, b"tree zz\n").is_err());
        assert!(links(Kind::Commit, format!("tree {A}\nparent {A}").as_bytes()).is_err());
    }

    #[test]
    fn a_submodule_is_not_expected_here() {
        let mut tree = b"100644 file\0".to_vec();
        tree.extend([0xaa; 20]);
        tree.extend(b"160000 module\0");
        tree.extend([0xbb; 20]);
        assert_eq!(links(Kind::Tree, &tree), Ok(vec![[0xaa; 20]]));
        tree.pop();
        assert!(links(Kind::Tree, &tree).is_err());
    }
}
