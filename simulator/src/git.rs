//! Git as far as mirrors care: commits with a parent, and who holds which of them.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::model::refs::ObjectId;

/// All commits there are, each with its parent.
#[derive(Clone, Debug, Default)]
pub struct History {
    parents: BTreeMap<ObjectId, Option<ObjectId>>,
}

impl History {
    /// A new commit on top of `parent`.
    pub fn commit(&mut self, parent: Option<ObjectId>) -> ObjectId {
        let number = self.parents.len() as u64 + 1;
        let mut bytes = [0xc0; 20];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let id = ObjectId::from_bytes_or_panic(&bytes);
        self.parents.insert(id, parent);
        id
    }

    /// Knows that `id` sits on `parent`.
    pub fn learn(&mut self, id: ObjectId, parent: Option<ObjectId>) {
        self.parents.insert(id, parent);
    }

    /// What `id` sits on.
    #[must_use]
    pub fn parent(&self, id: &ObjectId) -> Option<ObjectId> {
        self.parents.get(id).copied().flatten()
    }

    /// `tips` and all they sit on.
    #[must_use]
    pub fn closure(&self, tips: impl IntoIterator<Item = ObjectId>) -> BTreeSet<ObjectId> {
        let mut all = BTreeSet::new();
        for tip in tips {
            let mut at = Some(tip);
            while let Some(id) = at.filter(|id| all.insert(*id)) {
                at = self.parent(&id);
            }
        }
        all
    }
}
