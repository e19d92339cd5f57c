//! A pack of a repository, opened for copying entries out of it.

use std::{
    cell::OnceCell,
    fs::File,
    path::{Path, PathBuf},
};

use gix_hash::ObjectId;

use super::{HASH_LEN, PackError};

/// A pack with its index. The index is mapped (28 bytes an object), the pack is not.
pub(in crate::git) struct StoredPack {
    pub(in crate::git) path: PathBuf,
    pub(super) file: File,
    index: gix_pack::index::File<gix_pack::MMap>,
    /// Where the trailer starts.
    end: u64,
    /// (offset in the pack, position in the index), by offset; made when first needed.
    by_offset: OnceCell<Vec<(u64, u32)>>,
}

/// An entry of a pack.
pub(super) struct StoredEntry {
    /// The object it holds.
    pub(super) id: ObjectId,
    /// Where it ends, in bytes.
    pub(super) end: u64,
    /// CRC-32 over its bytes; old indexes have none.
    pub(super) crc: Option<u32>,
}

impl StoredPack {
    /// Opens the pack whose index is `index`.
    ///
    /// # Errors
    ///
    /// When either file cannot be opened or the index is damaged.
    pub(in crate::git) fn open(index: &Path) -> Result<Self, PackError> {
        let path = index.with_extension("pack");
        let file = File::open(&path)?;
        let end = file.metadata()?.len().saturating_sub(HASH_LEN);
        let index = gix_pack::index::File::at(index, gix_hash::Kind::Sha1)
            .map_err(|error| PackError::Index { path: index.to_owned(), reason: error.to_string() })?;
        Ok(Self { path, file, index, end, by_offset: OnceCell::new() })
    }

    /// How many objects the pack holds.
    pub(in crate::git) fn count(&self) -> u32 {
        self.index.num_objects()
    }

    /// Where the object's entry starts, in bytes, if it is in this pack.
    pub(super) fn find(&self, id: &ObjectId) -> Option<u64> {
        self.index.lookup(id).map(|position| self.index.pack_offset_at_index(position))
    }

    /// Every entry by its offset, with the object it holds.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, ObjectId)> {
        self.by_offset().iter().map(|(offset, at)| (*offset, self.index.oid_at_index(*at).to_owned()))
    }

    /// The entry that starts at `offset`.
    pub(super) fn at(&self, offset: u64) -> Result<StoredEntry, PackError> {
        let all = self.by_offset();
        let found = all.binary_search_by_key(&offset, |(offset, _)| *offset);
        let Some((at, (_, position))) = found.ok().and_then(|at| Some((at, all.get(at)?))) else {
            let reason = format!("no object starts at byte {offset}");
            return Err(PackError::Index { path: self.path.clone(), reason });
        };
        let end = all.get(at + 1).map_or(self.end, |(next, _)| *next);
        let id = self.index.oid_at_index(*position).to_owned();
        Ok(StoredEntry { id, end, crc: self.index.crc32_at_index(*position) })
    }

    fn by_offset(&self) -> &[(u64, u32)] {
        self.by_offset.get_or_init(|| {
            let mut all: Vec<_> = (0..self.index.num_objects())
                .map(|position| (self.index.pack_offset_at_index(position), position))
                .collect();
            all.sort_unstable();
            all
        })
    }
}
