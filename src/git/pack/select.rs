//! Which entries of which packs go into a new pack.

use std::collections::{BTreeSet, HashSet};

use gix_hash::ObjectId;
use gix_pack::data::{Entry, entry::Header};

use super::{PackError, StoredPack};

/// Entries to copy: for each pack their offsets, ascending.
#[derive(Debug, Default)]
pub(in crate::git) struct Selection {
    pub(super) offsets: Vec<Vec<u64>>,
    /// Objects that are in no pack.
    pub(in crate::git) loose: Vec<ObjectId>,
}

impl Selection {
    /// How many objects are selected.
    pub(in crate::git) fn count(&self) -> usize {
        self.offsets.iter().map(Vec::len).sum::<usize>() + self.loose.len()
    }
}

/// Every object of `packs` once, and the `loose` ones that no pack holds.
///
/// An object in several packs is taken from the first. No cycle of deltas can come of that: packs are
/// self-contained, so the base of an entry taken from pack *n* is taken from pack *n* (where deltas make
/// no cycle) or an earlier one. Along a chain of bases the number of the pack never rises.
pub(in crate::git) fn everything(packs: &[StoredPack], loose: Vec<ObjectId>) -> Selection {
    let offsets = packs
        .iter()
        .enumerate()
        .map(|(number, pack)| {
            let earlier = packs.get(..number).unwrap_or_default();
            pack.entries()
                .filter(|(_, id)| earlier.iter().all(|earlier| earlier.find(id).is_none()))
                .map(|(offset, _)| offset)
                .collect()
        })
        .collect();
    let loose = loose.into_iter().filter(|id| packs.iter().all(|pack| pack.find(id).is_none())).collect();
    Selection { offsets, loose }
}

/// The objects `ids`, and with them the bases of deltas that the receiver may lack.
///
/// `receiver_has` may say no for objects the receiver has (they are then sent as well), never yes for
/// one it lacks.
///
/// # Errors
///
/// When a pack cannot be read.
pub(in crate::git) fn some(
    packs: &[StoredPack],
    ids: impl IntoIterator<Item = ObjectId>,
    receiver_has: impl Fn(&ObjectId) -> bool,
) -> Result<Selection, PackError> {
    let mut offsets = vec![BTreeSet::new(); packs.len()];
    let mut loose = Vec::new();
    let mut todo: Vec<ObjectId> = ids.into_iter().collect();
    let mut taken: HashSet<ObjectId> = todo.iter().copied().collect();
    while let Some(id) = todo.pop() {
        let found =
            packs.iter().zip(&mut offsets).find_map(|(pack, to)| pack.find(&id).map(|at| (pack, to, at)));
        let Some((pack, offsets, offset)) = found else {
            loose.push(id);
            continue;
        };
        offsets.insert(offset);
        if let Some(base) = base_of(pack, offset)?
            && !taken.contains(&base)
            && !receiver_has(&base)
        {
            taken.insert(base);
            todo.push(base);
        }
    }
    Ok(Selection { offsets: offsets.into_iter().map(|set| set.into_iter().collect()).collect(), loose })
}

/// The object that the entry at `offset` is a delta of.
fn base_of(pack: &StoredPack, offset: u64) -> Result<Option<ObjectId>, PackError> {
    let mut start = [0; 64];
    let read = std::os::unix::fs::FileExt::read_at(&pack.file, &mut start, offset)?;
    let mut start = start.get(..read).unwrap_or_default();
    let entry = Entry::from_read(&mut start, offset, 20)
        .map_err(|error| PackError::malformed(offset, error.to_string()))?;
    base_id(pack, &entry)
}

/// The object that `entry` of `pack` is a delta of, `None` when it is no delta.
pub(super) fn base_id(pack: &StoredPack, entry: &Entry) -> Result<Option<ObjectId>, PackError> {
    match entry.header {
        Header::RefDelta { base_id } => Ok(Some(base_id)),
        Header::OfsDelta { base_distance } => {
            let base = entry.checked_base_pack_offset(base_distance).unwrap_or_default();
            pack.at(base).map(|(id, _)| Some(id))
        }
        _ => Ok(None),
    }
}
