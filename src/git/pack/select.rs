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

/// Every object of `packs` once that `elsewhere` does not hold, and with them the bases of their deltas: a pack
/// on disk must be self-contained.
///
/// An object in several packs is taken from the first, as in [`everything`].
///
/// # Errors
///
/// When a pack cannot be read.
pub(in crate::git) fn only_here(
    packs: &[StoredPack],
    elsewhere: &[StoredPack],
) -> Result<Selection, PackError> {
    let selected = everything(packs, Vec::new());
    if elsewhere.is_empty() {
        return Ok(selected);
    }
    // Bits beside the sorted offsets: there is one for every object.
    let mut keep: Vec<Vec<bool>> = Vec::with_capacity(packs.len());
    let mut todo: Vec<(usize, usize)> = Vec::new();
    for (number, (pack, offsets)) in packs.iter().zip(&selected.offsets).enumerate() {
        let mut bits = Vec::with_capacity(offsets.len());
        for (at, offset) in offsets.iter().enumerate() {
            let id = pack.at(*offset)?.id;
            let only_here = elsewhere.iter().all(|pack| pack.find(&id).is_none());
            bits.push(only_here);
            todo.extend(only_here.then_some((number, at)));
        }
        keep.push(bits);
    }
    while let Some((number, at)) = todo.pop() {
        let offset = selected.offsets.get(number).and_then(|offsets| offsets.get(at));
        let (Some(pack), Some(offset)) = (packs.get(number), offset) else { continue };
        let Some(base) = base_of(pack, *offset)? else { continue };
        let Some(place) = place_of(packs, &selected, &base) else { continue };
        if let Some(bit) = keep.get_mut(place.0).and_then(|bits| bits.get_mut(place.1))
            && !std::mem::replace(bit, true)
        {
            todo.push(place);
        }
    }
    let kept = selected.offsets.into_iter().zip(keep).map(|(offsets, keep)| {
        offsets.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(offset, _)| offset).collect()
    });
    Ok(Selection { offsets: kept.collect(), loose: Vec::new() })
}

/// Number of the pack, and position among its selected offsets, from which the object `id` is taken.
fn place_of(packs: &[StoredPack], selected: &Selection, id: &ObjectId) -> Option<(usize, usize)> {
    let mut numbered = packs.iter().zip(&selected.offsets).enumerate();
    numbered.find_map(|(number, (pack, offsets))| {
        offsets.binary_search(&pack.find(id)?).ok().map(|at| (number, at))
    })
}

/// How many packs a repository may have before some are joined. Every look-up asks one after the other, and each
/// costs an open file and an index in memory; git itself tolerates 50 (`gc.autoPackLimit`).
pub(in crate::git) const MAX_PACKS: usize = 20;

/// How many of the smallest of `sizes`, which ascend, to join into one pack; none unless there are more than
/// [`MAX_PACKS`].
///
/// As `git repack --geometric=2`: each pack left alone is at least twice as large as all that are joined, so
/// that a large pack is not copied again for every few small ones. At most half of [`MAX_PACKS`] stay, so that
/// there is something to join only every so often.
pub(in crate::git) fn to_join(sizes: &[u64]) -> usize {
    if sizes.len() <= MAX_PACKS {
        return 0;
    }
    let mut sum = 0_u64;
    for (count, size) in sizes.iter().enumerate() {
        let left = sizes.len() - count;
        if count > 1 && left < MAX_PACKS / 2 && sum.saturating_mul(2) <= *size {
            return count;
        }
        sum = sum.saturating_add(*size);
    }
    sizes.len()
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
            pack.at(base).map(|entry| Some(entry.id))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_large_pack_is_left_alone_when_small_ones_are_joined() {
        assert_eq!(to_join(&[1; MAX_PACKS]), 0);
        assert_eq!(to_join(&[1; MAX_PACKS + 1]), MAX_PACKS + 1);
        let mut sizes = [1; MAX_PACKS + 1];
        sizes[MAX_PACKS] = 40;
        assert_eq!(to_join(&sizes), MAX_PACKS);
        sizes[MAX_PACKS] = 39;
        assert_eq!(to_join(&sizes), MAX_PACKS + 1);
    }

    proptest! {
        #[test]
        fn few_packs_are_left_and_all_of_them_large(
            mut sizes in prop::collection::vec(prop_oneof![0_u64..1000, any::<u64>()], 0..80)
        ) {
            sizes.sort_unstable();
            let count = to_join(&sizes);
            let (joined, left) = sizes.split_at(count);
            if sizes.len() <= MAX_PACKS {
                prop_assert_eq!(count, 0);
            } else {
                prop_assert!(count > 1 && left.len() < MAX_PACKS / 2);
                let sum: u128 = joined.iter().map(|size| u128::from(*size)).sum();
                prop_assert!(left.iter().all(|size| sum * 2 <= u128::from(*size)));
            }
        }

        /// Whatever the sizes that come, one after the other: what is copied stays within a few times of what came.
        #[test]
        fn housekeeping_costs_in_proportion_to_what_is_new(
            new in prop::collection::vec(prop_oneof![1_u64..1000, 1_u64..1_000_000], 1..400)
        ) {
            let (mut packs, mut copied, mut came) = (Vec::new(), 0_u64, 0_u64);
            for size in new {
                packs.push(size);
                came += size;
                packs.sort_unstable();
                let joined: u64 = packs.drain(..to_join(&packs)).sum();
                if joined > 0 {
                    copied += joined;
                    packs.push(joined);
                    packs.sort_unstable();
                }
            }
            prop_assert!(copied <= 6 * came, "{copied} copied for {came}");
        }
    }
}
