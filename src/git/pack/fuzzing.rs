//! Packs made to be difficult, for `fuzz/` and for tests.

#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use std::{io::Write, path::Path};

use flate2::{Compression, write::ZlibEncoder};
use gix_hash::ObjectId;
use gix_pack::data::entry::Header;

use super::{HashingWriter, Known, finish, index, index::object_hasher, links::Kind};

/// A repository that has the blob [`BASE`] and every object whose id begins with an odd byte.
struct Odd;

/// The one object that can be read from [`Odd`].
const BASE: &[u8] = b"a base that is elsewhere";

impl Known for Odd {
    fn has(&self, id: &ObjectId) -> bool {
        id.as_slice().first().is_some_and(|byte| byte % 2 == 1)
    }

    fn read(&self, id: &ObjectId) -> Option<(u8, Vec<u8>)> {
        (*id == blob_id(BASE)).then(|| (3, BASE.to_vec()))
    }
}

pub(super) fn blob_id(content: &[u8]) -> ObjectId {
    let mut hasher = object_hasher(Kind::Blob, content.len() as u64);
    hasher.update(content);
    finish(hasher).unwrap()
}

/// One entry of a pack under construction.
pub(super) fn entry(out: &mut Vec<u8>, header: Header, declared: u64, content: &[u8]) {
    header.write_to(declared, &mut *out).unwrap();
    let mut encoder = ZlibEncoder::new(out, Compression::none());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap();
}

/// A pack of `count` declared objects around `body`, with the checksum it needs.
pub(super) fn pack(count: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    HashingWriter::new(&mut bytes).and_pack(count, |out| Ok(out.write_all(body)?)).unwrap();
    bytes
}

/// Indexes the pack that `bytes` describe: its first byte says whether as they are, or as a recipe for entries.
pub fn index_pack(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let pack = if mode % 2 == 0 { pack(u32::from(mode / 2 % 8), rest) } else { cook(rest) };
    // In memory where there is such a place.
    let folder = Path::new("/dev/shm");
    let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("grasp-mirror-fuzz-{}.pack", std::process::id()));
    std::fs::write(&path, &pack).unwrap();
    if let Ok(indexed) = index::index_pack(&path, &Odd) {
        let whole = indexed.completed.as_deref().unwrap_or(&path);
        let again = index::index_pack(whole, &Odd).unwrap();
        assert_eq!((again.objects, again.completed.is_none()), (indexed.objects, true));
        assert_eq!(again.index, indexed.index);
    }
}

/// Entries from a recipe: a byte for the type, one for the base, one for the length, then so many bytes of content.
fn cook(mut recipe: &[u8]) -> Vec<u8> {
    let (mut body, mut offsets, mut ids, mut count) = (Vec::new(), Vec::new(), vec![blob_id(BASE)], 0);
    while let Some(([what, base, len], rest)) = recipe.split_first_chunk::<3>() {
        let (content, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        recipe = rest;
        let offset = 12 + body.len() as u64;
        let chosen = |count: usize| usize::from(*base) % count.max(1);
        let header = match what % 7 {
            0 => Header::Commit,
            1 => Header::Tree,
            2 | 3 => Header::Blob,
            4 => Header::Tag,
            5 => {
                let base: u64 = offsets.get(chosen(offsets.len())).copied().unwrap_or_default();
                Header::OfsDelta { base_distance: offset - base }
            }
            _ => Header::RefDelta { base_id: ids.get(chosen(ids.len())).copied().unwrap_or(blob_id(BASE)) },
        };
        if let Header::Blob = header {
            ids.push(blob_id(content));
        }
        // Now and then it lies about its size.
        let lie = u64::from(*what >= 0xf8);
        entry(&mut body, header, content.len() as u64 + lie, content);
        offsets.push(offset);
        count += 1;
    }
    pack(count, &body)
}
