//! What a push asks for.

use std::collections::BTreeMap;

use crate::model::refs::{ObjectId, Refs};

/// One ref to change on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// Its full name.
    pub name: String,
    /// Where the server says it points; null for a ref to create.
    pub old: ObjectId,
    /// Where it is to point; null for a ref to delete.
    pub new: ObjectId,
}

impl RefUpdate {
    /// Whether the ref is to be deleted.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.new.is_null()
    }
}

/// Everything that turns the heads and tags a server has into exactly `wanted`: deletes first, then
/// creates and updates, by name. Refs that are right already are not named (each costs the server time),
/// and neither is anything outside `refs/heads/` and `refs/tags/`.
///
/// GRASP-01 demands the exact state in one push; deleting a ref the server lacks fails the push, so
/// `advertised` must be what it says now.
#[must_use]
pub fn commands_to(advertised: &BTreeMap<String, ObjectId>, wanted: &Refs) -> Vec<RefUpdate> {
    let null = ObjectId::null(gix_hash::Kind::Sha1);
    let ours = |name: &str| {
        (name.starts_with("refs/heads/") || name.starts_with("refs/tags/")) && !name.ends_with("^{}")
    };
    let extra = advertised.iter().filter(|(name, _)| ours(name) && !wanted.contains_key(name.as_str()));
    let deletes = extra.map(|(name, old)| RefUpdate { name: name.clone(), old: *old, new: null });
    let changes = wanted.iter().filter_map(|(name, new)| {
        let old = advertised.get(name.as_str()).copied().unwrap_or(null);
        (old != *new).then(|| RefUpdate { name: name.to_string(), old, new: *new })
    });
    deletes.chain(changes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = ObjectId> {
        (1_u8..4).prop_map(|byte| ObjectId::Sha1([byte; 20]))
    }

    fn names() -> impl Strategy<Value = String> {
        "refs/(heads|tags|nostr|archive)/[a-c]{1,2}"
    }

    proptest! {
        #[test]
        fn the_commands_make_heads_and_tags_exactly_what_is_wanted(
            advertised in prop::collection::btree_map(names(), id(), 0..8),
            wanted in prop::collection::btree_map(names(), id(), 0..8),
        ) {
            let wanted: Refs =
                wanted.into_iter().filter_map(|(name, id)| Some((name.parse().ok()?, id))).collect();
            let commands = commands_to(&advertised, &wanted);
            let mut server = advertised.clone();
            for command in &commands {
                prop_assert!(command.name.starts_with("refs/heads/") || command.name.starts_with("refs/tags/"));
                prop_assert_ne!(command.old, command.new);
                let had = server.remove(&command.name);
                prop_assert_eq!(had.unwrap_or(ObjectId::null(gix_hash::Kind::Sha1)), command.old);
                if !command.is_delete() {
                    server.insert(command.name.clone(), command.new);
                }
            }
            let (mirrored, others): (BTreeMap<_, _>, BTreeMap<_, _>) = server
                .into_iter()
                .partition(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"));
            let expected: BTreeMap<String, ObjectId> =
                wanted.iter().map(|(name, id)| (name.to_string(), *id)).collect();
            prop_assert_eq!(mirrored, expected);
            prop_assert!(others.iter().all(|(name, id)| advertised.get(name) == Some(id)));
            prop_assert!(commands_to(&advertised, &wanted).len() <= advertised.len() + wanted.len());
        }
    }
}
