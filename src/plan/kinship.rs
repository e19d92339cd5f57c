//! Which repositories are likely to share objects: forks of one history, and several people's copies under one `d`.

use std::collections::BTreeMap;

use super::catalog::Repository;
use crate::model::{coordinate::Coordinate, refs::ObjectId};

/// Relatives that are asked for their objects, each with its local copy: one is enough, and a name that everyone
/// uses has no end of them.
const MAX_KIN: usize = 8;

/// A repository that may hold objects of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    /// Which one.
    pub coordinate: Coordinate,
    /// The folder of its local copy, below its owner's.
    pub folder: String,
    /// The earliest commit that both announce; `None` when they have only their `d` in common.
    pub root: Option<ObjectId>,
}

/// Fills in every repository's relatives, those first that announce the same earliest commit.
///
/// Two that announce different ones have nothing in common, whatever they are called. The first of a family,
/// by coordinate, is everyone's first choice, so that in the end one lends and the others borrow.
pub(super) fn find(repositories: &mut [Repository]) {
    let mut roots: BTreeMap<ObjectId, Vec<usize>> = BTreeMap::new();
    let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, repository) in repositories.iter().enumerate() {
        if let Some(root) = root(repository) {
            roots.entry(root).or_default().push(at);
        }
        names.entry(&repository.coordinate.identifier).or_default().push(at);
    }
    let none = Vec::new();
    let mut found = Vec::with_capacity(repositories.len());
    for (at, one) in repositories.iter().enumerate() {
        let own_root = root(one);
        let rooted = own_root.and_then(|root| roots.get(&root)).unwrap_or(&none);
        let rooted = rooted.iter().map(|other| (*other, own_root));
        let named = names.get(one.coordinate.identifier.as_str()).unwrap_or(&none);
        let named = named.iter().map(|other| (*other, None));
        let kin = rooted
            .chain(named)
            .filter(|(other, _)| *other != at)
            .filter_map(|(other, root)| Some((repositories.get(other)?, root)))
            .filter(|(other, shared)| shared.is_some() || own_root.is_none() || root(other).is_none())
            .take(MAX_KIN)
            .map(|(other, root)| Relative {
                coordinate: other.coordinate.clone(),
                folder: other.folder.clone(),
                root,
            });
        found.push(kin.collect::<Vec<_>>());
    }
    for (repository, kin) in repositories.iter_mut().zip(found) {
        repository.kin = kin;
    }
}

/// The earliest commit as its maintainers announce it, the owner's word first.
fn root(repository: &Repository) -> Option<ObjectId> {
    repository.announcements.iter().find_map(|announcement| announcement.root)
}

#[cfg(test)]
mod tests {
    use nostr::prelude::Keys;

    use super::*;
    use crate::plan::{
        catalog::{Limits, Watched, build},
        testing::event,
    };

    const ROOT: &str = "1111111111111111111111111111111111111111";
    const OTHER: &str = "2222222222222222222222222222222222222222";

    /// Which of the announced `(d, root)` have which relatives, by their places.
    fn kin(announced: &[(&str, &str)]) -> Vec<Vec<(usize, bool)>> {
        let keys: Vec<Keys> = announced.iter().map(|_| Keys::generate()).collect();
        let events: Vec<_> = keys
            .iter()
            .zip(announced)
            .map(|(keys, (d, root))| event(keys, 30617, 1, &[&["d", d], &["r", root, "euc"]]))
            .collect();
        let watched = Watched { authors: keys.iter().map(Keys::public_key).collect(), ..Watched::default() };
        let limits = Limits { max_refs: 10, max_repos_per_author: 10 };
        let catalog = build(&events, &watched, &Keys::generate().public_key(), limits);
        let place = |coordinate: &Coordinate| {
            keys.iter().position(|keys| keys.public_key() == coordinate.owner).unwrap()
        };
        let mut all = vec![Vec::new(); announced.len()];
        for repository in &catalog.repositories {
            let mut kin: Vec<_> = repository
                .kin
                .iter()
                .map(|relative| (place(&relative.coordinate), relative.root.is_some()))
                .collect();
            kin.sort_unstable();
            all[place(&repository.coordinate)] = kin;
        }
        all
    }

    #[test]
    fn forks_are_known_by_their_earliest_commit_whatever_they_are_called() {
        assert_eq!(
            kin(&[("a", ROOT), ("b", ROOT), ("b", OTHER)]),
            [vec![(1, true)], vec![(0, true)], vec![]]
        );
    }

    #[test]
    fn a_name_counts_where_one_of_the_two_says_no_more() {
        let found = kin(&[("a", ROOT), ("a", "?"), ("a", OTHER)]);
        assert_eq!(found, [vec![(1, false)], vec![(0, false), (2, false)], vec![(1, false)]]);
    }

    #[test]
    fn a_name_that_everyone_uses_costs_no_more_than_others() {
        let all = kin(&[("dotfiles", "?"); 30]);
        assert!(all.iter().all(|kin| kin.len() == MAX_KIN));
    }
}
