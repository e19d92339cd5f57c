//! Writing a pack by copying entries as they are stored: no object is inflated or compressed.

use std::io::{self, BufReader, Read, Seek, Write};

use gix_hash::ObjectId;
use gix_pack::data::{Entry, entry::Header};

use super::{
    HashingWriter, PackError, Selection, StoredPack, idx,
    index::{IndexEntry, Indexed, id_of, write_full},
    select::base_id,
};

/// Writes the pack of the `selection` of entries of `packs` to `out`; its trailer and length in bytes.
///
/// A delta whose base is written before it becomes an OFS_DELTA to the base's new place; any other
/// becomes a REF_DELTA, whose base comes later in this pack or is the receiver's already.
/// `loose` reads an object that no pack holds: the number of its type and its content.
///
/// # Errors
///
/// When a pack cannot be read, a loose object is gone, or `out` cannot be written.
pub(in crate::git) fn write_pack(
    packs: &[StoredPack],
    selection: &Selection,
    loose: impl Fn(&ObjectId) -> Option<(u8, Vec<u8>)>,
    out: impl Write,
) -> Result<(ObjectId, u64), PackError> {
    let count = u32::try_from(selection.count())
        .map_err(|_| PackError::malformed(0, "more objects than one pack can hold"))?;
    HashingWriter::new(out).and_pack(count, |out| {
        let mut written: Vec<Vec<(u64, u64)>> = Vec::with_capacity(packs.len());
        for (pack, offsets) in packs.iter().zip(&selection.offsets) {
            written.push(Vec::with_capacity(offsets.len()));
            copy_entries(packs, pack, offsets, &mut written, &mut |_| {}, out)?;
        }
        for id in &selection.loose {
            let (kind, content) = loose(id).ok_or(PackError::Incomplete { count: 1, first: *id })?;
            write_full(out, full_header(kind), &content)?;
        }
        Ok(())
    })
}

/// Writes the pack of the `selection` of entries of `packs`, no loose objects, to `out`, and makes its index of
/// what is known already: no object is inflated. Returns with it the pack's length in bytes.
///
/// # Errors
///
/// When a pack cannot be read, an entry is not what its index says, or `out` cannot be written.
pub(in crate::git) fn join_packs(
    packs: &[StoredPack],
    selection: &Selection,
    out: impl Write,
) -> Result<(Indexed, u64), PackError> {
    let objects = u32::try_from(selection.count())
        .map_err(|_| PackError::malformed(0, "more objects than one pack can hold"))?;
    let mut entries = Vec::with_capacity(selection.count());
    let (name, len) = HashingWriter::new(out).and_pack(objects, |out| {
        let mut written: Vec<Vec<(u64, u64)>> = Vec::with_capacity(packs.len());
        for (pack, offsets) in packs.iter().zip(&selection.offsets) {
            written.push(Vec::with_capacity(offsets.len()));
            copy_entries(packs, pack, offsets, &mut written, &mut |entry| entries.push(entry), out)?;
        }
        Ok(())
    })?;
    entries.sort_unstable_by_key(|entry| entry.id);
    Ok((Indexed { name, index: idx::encode(&entries, &name)?, objects, completed: None }, len))
}

/// The entry header for an object stored in full.
pub(super) fn full_header(kind: u8) -> Header {
    match kind {
        1 => Header::Commit,
        2 => Header::Tree,
        4 => Header::Tag,
        _ => Header::Blob,
    }
}

/// Copies the entries of one pack. `written` holds, for this pack (the last) and those before it, the
/// (old, new) offsets of what has been written; `tell` hears of each entry.
///
/// Each is compared with the CRC-32 in its index: a new pack would put its own checksum over the damage.
fn copy_entries<W: Write>(
    packs: &[StoredPack],
    pack: &StoredPack,
    offsets: &[u64],
    written: &mut [Vec<(u64, u64)>],
    tell: &mut dyn FnMut(IndexEntry),
    out: &mut HashingWriter<W>,
) -> Result<(), PackError> {
    let mut reader = BufReader::with_capacity(128 << 10, &pack.file);
    let mut at = reader.seek(io::SeekFrom::Start(0))?;
    for &offset in offsets {
        let stored = pack.at(offset)?;
        // Relative, so that what is buffered is used; offsets ascend.
        reader.seek_relative(i64::try_from(offset.saturating_sub(at)).unwrap_or(i64::MAX))?;
        let mut reader = Summed { inner: &mut reader, crc: crc32fast::Hasher::new() };
        let entry = Entry::from_read(&mut reader, offset, 20)
            .map_err(|error| PackError::malformed(offset, error.to_string()))?;
        let place = out.written;
        let header = match base_id(pack, &entry)? {
            None => entry.header,
            Some(base) => match new_place(packs, written, &base) {
                Some(base) => Header::OfsDelta { base_distance: place.saturating_sub(base) },
                None => Header::RefDelta { base_id: base },
            },
        };
        out.crc = crc32fast::Hasher::new();
        header.write_to(entry.decompressed_size, out)?;
        let body = stored.end.saturating_sub(entry.data_offset);
        let copied = io::copy(&mut reader.by_ref().take(body), out)?;
        if copied != body {
            return Err(PackError::malformed(offset, "the pack ends inside an object"));
        }
        if stored.crc.is_some_and(|crc| crc != reader.crc.finalize()) {
            return Err(PackError::malformed(
                offset,
                "an object whose bytes have changed since it was indexed",
            ));
        }
        tell(IndexEntry { offset: place, id: id_of(stored.id), crc: out.crc.clone().finalize() });
        at = stored.end;
        if let Some(written) = written.last_mut() {
            written.push((offset, place));
        }
    }
    Ok(())
}

/// Reads with a CRC-32 over what was read.
struct Summed<'a, R> {
    inner: &'a mut R,
    crc: crc32fast::Hasher,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.crc.update(out.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Where in the new pack the object has been written, if it has.
fn new_place(packs: &[StoredPack], written: &[Vec<(u64, u64)>], id: &ObjectId) -> Option<u64> {
    packs.iter().zip(written).find_map(|(pack, written)| {
        let offset = pack.find(id)?;
        let at = written.binary_search_by_key(&offset, |(old, _)| *old).ok()?;
        written.get(at).map(|(_, new)| *new)
    })
}
