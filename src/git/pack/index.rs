//! Indexing: from a pack as it came to a pack that is known to be whole.
//!
//! Why not `git2::Indexer`: its connectivity check refuses every repository with submodules, and it
//! holds the pack mapped (a 60 MB pack is 60 MB of resident memory). Two passes over the file, as
//! `git index-pack` does it: the first finds and checks every entry, the second resolves the deltas.

use std::{collections::HashSet, fs::File, io::Write, path::Path};

use flate2::{Compression, Decompress, write::ZlibEncoder};
use gix_hash::ObjectId;
use gix_pack::data::entry::Header;
use tempfile::TempPath;

use super::{
    Budget, HASH_LEN, HEADER_LEN, HashingWriter, MAX_LISTING, MAX_OBJECTS, PackError, TOO_LARGE,
    entry::{PackReader, PackStream, kind_of},
    finish, idx,
    links::{Kind, Links},
    resolve::{Deltas, Resolver},
    write::full_header,
};

/// An id that no object has been found to have; marks entries whose delta is not yet resolved.
pub(super) const UNKNOWN: [u8; 20] = [0; 20];

/// One entry of the pack being indexed. Kept small: there is one for every object.
#[derive(Debug, Clone)]
pub(super) struct IndexEntry {
    pub(super) offset: u64,
    pub(super) id: [u8; 20],
    pub(super) crc: u32,
}

/// An indexed pack, not yet part of a repository.
#[derive(Debug)]
pub(in crate::git) struct Indexed {
    /// The trailer, which names the pack.
    pub(in crate::git) name: ObjectId,
    /// The bytes of its `.idx` file.
    pub(in crate::git) index: Vec<u8>,
    /// How many objects it holds.
    pub(in crate::git) objects: u32,
    /// The pack with the bases it lacked, when it was thin; it lies beside it.
    pub(in crate::git) completed: Option<TempPath>,
}

impl Indexed {
    /// Whether the pack holds the object `id`.
    pub(in crate::git) fn holds(&self, id: &ObjectId) -> bool {
        let end = idx::IDS_AT + self.objects as usize * 20;
        let ids = self.index.get(idx::IDS_AT..end).unwrap_or_default();
        ids.as_chunks::<20>().0.binary_search(&id_of(*id)).is_ok()
    }
}

/// What is asked of the repository a pack is meant for.
pub(in crate::git) trait Known {
    /// Whether the repository has the object, and so everything that the object refers to.
    fn has(&self, id: &ObjectId) -> bool;
    /// The object itself: number of its type (1 commit, 2 tree, 3 blob, 4 tag) and content.
    fn read(&self, id: &ObjectId) -> Option<(u8, Vec<u8>)>;
}

/// Reads the pack at `path` and makes its index.
///
/// Every entry is inflated and hashed, deltas are applied, the trailer is compared, and every object
/// that any object refers to must be in the pack or in `known`: a repository that takes only packs
/// that pass stays closed under reachability. A thin pack is completed from `known`, in a file of its own:
/// the one at `path` may be on its way to servers, which have the bases.
///
/// Memory: about 60 bytes an object, and the objects of one delta chain up to a budget.
///
/// # Errors
///
/// [`PackError`]. The file at `path` is left as it was in any case.
pub(in crate::git) fn index_pack(path: &Path, known: &dyn Known) -> Result<Indexed, PackError> {
    match index_once(path, known, Budget::new(path.metadata()?.len()))? {
        Outcome::Whole(indexed) => Ok(indexed),
        Outcome::Thin { bases, unresolved } => {
            let found: Vec<_> = bases.into_iter().filter_map(|id| known.read(&id)).collect();
            if found.is_empty() {
                return Err(PackError::NoBase { count: unresolved });
            }
            let whole = complete(path, &found)?;
            match index_once(&whole, known, Budget::new(whole.metadata()?.len()))? {
                Outcome::Whole(indexed) => Ok(Indexed { completed: Some(whole), ..indexed }),
                Outcome::Thin { unresolved, .. } => Err(PackError::NoBase { count: unresolved }),
            }
        }
    }
}

enum Outcome {
    Whole(Indexed),
    Thin { bases: Vec<ObjectId>, unresolved: usize },
}

fn index_once(path: &Path, known: &dyn Known, mut budget: Budget) -> Result<Outcome, PackError> {
    let file = File::open(path)?;
    let Scanned { mut entries, deltas, mut links, end, name } = scan(&file, &mut budget)?;
    let reader = PackReader::new(&file);
    let resolver = Resolver::new(reader, end, &mut entries, &deltas, &mut links, &mut budget);
    resolver.run()?;
    if links.len() > MAX_OBJECTS {
        return Err(PackError::TooManyObjects);
    }

    let unresolved = entries.iter().filter(|entry| entry.id == UNKNOWN).count();
    if unresolved > 0 {
        let inside: HashSet<_> = entries.iter().map(|entry| entry.id).collect();
        let bases = deltas
            .bases_by_id()
            .filter(|base| !inside.contains(*base))
            .map(|id| ObjectId::Sha1(*id))
            .collect();
        return Ok(Outcome::Thin { bases, unresolved });
    }
    entries.sort_unstable_by_key(|entry| entry.id);
    let twice = entries.windows(2).find_map(|pair| match pair {
        [a, b] if a.id == b.id => Some(a.id),
        _ => None,
    });
    if let Some(id) = twice {
        return Err(PackError::Duplicate { id: ObjectId::Sha1(id) });
    }
    let missing: Vec<ObjectId> = links
        .iter()
        .filter(|id| entries.binary_search_by_key(id, |entry| &entry.id).is_err())
        .map(|id| ObjectId::Sha1(*id))
        .filter(|id| !known.has(id))
        .collect();
    if let Some(first) = missing.iter().min() {
        return Err(PackError::Incomplete { count: missing.len(), first: *first });
    }
    drop(links);
    let objects = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    Ok(Outcome::Whole(Indexed { name, index: idx::encode(&entries, &name)?, objects, completed: None }))
}

struct Scanned {
    entries: Vec<IndexEntry>,
    deltas: Deltas,
    links: Links,
    /// Where the trailer starts.
    end: u64,
    name: ObjectId,
}

/// The first pass: entries in the order of the file, full objects named, deltas only measured.
fn scan(file: &File, budget: &mut Budget) -> Result<Scanned, PackError> {
    let mut stream = PackStream::new(file.try_clone()?)?;
    let count = stream.count()?;
    if count as usize > MAX_OBJECTS {
        return Err(PackError::TooManyObjects);
    }
    let mut inflater = Decompress::new(true);
    // The declared count comes from outside: at least 3 bytes an object bound what it may reserve.
    let bound = usize::try_from(file.metadata()?.len() / 3).unwrap_or(usize::MAX);
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(bound.min(count as usize));
    let mut deltas = Deltas::default();
    let mut links = Links::default();
    let mut content = Vec::new();
    for position in 0..count {
        let header = stream.entry()?;
        let offset = header.pack_offset();
        let size = header.decompressed_size;
        budget.take(size)?;
        if links.len() > MAX_OBJECTS {
            return Err(PackError::TooManyObjects);
        }
        let id = match (kind_of(&header.header), &header.header) {
            (None, Header::OfsDelta { base_distance }) => {
                let base = header.checked_base_pack_offset(*base_distance);
                let base = base.and_then(|base| entries.binary_search_by_key(&base, |e| e.offset).ok());
                let base = base.and_then(|base| u32::try_from(base).ok());
                let Some(base) = base else {
                    return Err(PackError::malformed(offset, "a delta whose base is no object of the pack"));
                };
                deltas.add_at(base, position);
                stream.inflate(&mut inflater, size, budget, |_| {})?;
                UNKNOWN
            }
            (None, header) => {
                if let Header::RefDelta { base_id } = header {
                    deltas.add_by_id(base_id.as_slice().try_into().unwrap_or(UNKNOWN), position);
                }
                stream.inflate(&mut inflater, size, budget, |_| {})?;
                UNKNOWN
            }
            (Some(kind), _) => {
                if kind != Kind::Blob && size > MAX_LISTING {
                    return Err(PackError::malformed(offset, TOO_LARGE));
                }
                let mut hasher = object_hasher(kind, size);
                content.clear();
                stream.inflate(&mut inflater, size, budget, |bytes| {
                    hasher.update(bytes);
                    if kind != Kind::Blob {
                        content.extend_from_slice(bytes);
                    }
                })?;
                links.add(kind, &content).map_err(|reason| PackError::malformed(offset, reason))?;
                id_of(finish(hasher)?)
            }
        };
        entries.push(IndexEntry { offset, id, crc: stream.entry_crc() });
    }
    let end = stream.offset();
    let computed = stream.finish()?;
    let mut declared = [0; 20];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut declared, end)?;
    if computed != ObjectId::Sha1(declared) {
        return Err(PackError::Checksum { declared: ObjectId::Sha1(declared) });
    }
    deltas.sort();
    Ok(Scanned { entries, deltas, links, end, name: computed })
}

/// A hasher that has taken in an object's header.
pub(super) fn object_hasher(kind: Kind, size: u64) -> gix_hash::Hasher {
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(format!("{} {size}\0", kind.name()).as_bytes());
    hasher
}

pub(super) fn id_of(id: ObjectId) -> [u8; 20] {
    id.as_slice().try_into().unwrap_or(UNKNOWN)
}

/// The thin pack at `path` with `bases` appended, as a new file beside it.
///
/// Existing entries keep their place, so relative offsets stay right.
fn complete(path: &Path, bases: &[(u8, Vec<u8>)]) -> Result<TempPath, PackError> {
    let thin = File::open(path)?;
    let body = thin.metadata()?.len() - HEADER_LEN - HASH_LEN;
    let count = PackStream::new(thin.try_clone()?)?.count()?;
    let added = u32::try_from(bases.len()).unwrap_or(u32::MAX);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut whole = tempfile::Builder::new().prefix("whole-").tempfile_in(folder)?;
    let mut thin = std::io::BufReader::new(thin);
    std::io::Seek::seek(&mut thin, std::io::SeekFrom::Start(HEADER_LEN))?;
    let mut thin = std::io::Read::take(thin, body);
    HashingWriter::new(std::io::BufWriter::new(whole.as_file_mut())).and_pack(
        count.saturating_add(added),
        |out| {
            std::io::copy(&mut thin, out)?;
            for (kind, content) in bases {
                write_full(out, full_header(*kind), content)?;
            }
            Ok(())
        },
    )?;
    Ok(whole.into_temp_path())
}

/// Writes an object as an entry of its own, compressed.
pub(super) fn write_full(out: &mut impl Write, kind: Header, content: &[u8]) -> Result<(), PackError> {
    kind.write_to(content.len() as u64, out)?;
    let mut encoder = ZlibEncoder::new(out, Compression::default());
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::fuzzing::{blob_id, entry, index_pack as index_recipe, pack},
        *,
    };
    use std::time::Duration;

    use crate::git::testing::{Source, tips};

    const MINUTE: Duration = Duration::from_secs(60);

    struct Nothing;

    impl Known for Nothing {
        fn has(&self, _: &ObjectId) -> bool {
            false
        }

        fn read(&self, _: &ObjectId) -> Option<(u8, Vec<u8>)> {
            None
        }
    }

    #[test]
    fn a_pack_that_unpacks_to_too_much_is_refused() {
        let mut source = Source::new(31);
        source.grow(3);
        let dir = tempfile::tempdir().unwrap();
        let pack = source.pack(&tips(&source.refs()), &[], &[], dir.path());
        let unpacked: u64 = source
            .git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectsize)"])
            .lines()
            .map(|size| size.parse::<u64>().unwrap())
            .sum();
        let index = |limit| index_once(&pack, &Nothing, Budget::of(limit, MINUTE));
        assert!(matches!(index(2 * unpacked), Ok(Outcome::Whole(_))));
        assert!(matches!(index(unpacked / 2), Err(PackError::Bomb { .. })));
        let late = index_once(&pack, &Nothing, Budget::of(2 * unpacked, Duration::ZERO)).err().unwrap();
        insta::assert_snapshot!(late, @"the pack is not indexed after 0 s on this machine; it is not taken");
    }

    #[test]
    fn no_pack_may_unpack_to_more_than_a_processor_has_time_for() {
        let limit = |len| Budget::new(len).limit;
        assert_eq!(limit(1 << 20), (8 << 30) + (500 << 20), "a small one may be a long history");
        assert_eq!((limit(2 << 30), limit(u64::MAX)), (256 << 30, 256 << 30));
    }

    #[test]
    fn one_object_that_inflates_for_ever_is_given_up_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let (mut body, zeros) = (Vec::new(), vec![0; 1 << 20]);
        entry(&mut body, Header::Blob, 1 << 20, &zeros);
        std::fs::write(&path, pack(1, &body)).unwrap();
        let mut stream = PackStream::new(File::open(&path).unwrap()).unwrap();
        stream.count().unwrap();
        let size = stream.entry().unwrap().decompressed_size;
        let (late, mut seen) = (Budget::of(u64::MAX, Duration::ZERO), 0);
        let end = stream.inflate(&mut Decompress::new(true), size, &late, |bytes| seen += bytes.len());
        assert!(matches!(end, Err(PackError::TooSlow { .. })) && seen < zeros.len(), "{seen}");
    }

    #[test]
    fn a_pack_that_declares_more_objects_than_it_could_hold_reserves_nothing_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        for count in [u32::MAX, 11_000_000] {
            let mut pack = b"PACK\0\0\0\x02".to_vec();
            pack.extend(count.to_be_bytes());
            pack.extend([0; 20]);
            std::fs::write(&path, &pack).unwrap();
            assert!(index_pack(&path, &Nothing).is_err());
        }
    }

    /// A pack under construction, whose objects are blobs.
    #[derive(Default)]
    struct Made {
        body: Vec<u8>,
        count: u32,
    }

    impl Made {
        fn add(&mut self, header: Header, content: &[u8]) -> u64 {
            let offset = HEADER_LEN + self.body.len() as u64;
            entry(&mut self.body, header, content.len() as u64, content);
            self.count += 1;
            offset
        }

        /// Adds a delta against the entry at `base`, whose object has `base_len` bytes, for an object of `len`.
        fn add_delta(&mut self, base: u64, base_len: usize, len: usize, instructions: &[u8]) -> u64 {
            let base_distance = HEADER_LEN + self.body.len() as u64 - base;
            let delta = [&size(base_len)[..], &size(len), instructions].concat();
            self.add(Header::OfsDelta { base_distance }, &delta)
        }

        fn index(&self, budget: u64) -> Result<Outcome, PackError> {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pack");
            std::fs::write(&path, pack(self.count, &self.body)).unwrap();
            index_once(&path, &Nothing, Budget::of(budget, MINUTE))
        }
    }

    fn size(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    /// The instruction that inserts `number`, four bytes.
    fn insert(number: u32) -> Vec<u8> {
        [&[4][..], &number.to_be_bytes()].concat()
    }

    #[test]
    fn a_chain_of_fifty_thousand_deltas_is_followed() {
        let mut made = Made::default();
        let mut last = made.add(Header::Blob, &[0; 4]);
        for number in 1..=50_000 {
            last = made.add_delta(last, 4, 4, &insert(number));
        }
        assert!(matches!(made.index(1 << 30), Ok(Outcome::Whole(Indexed { objects: 50_001, .. }))));
        for number in 50_001..=100_100 {
            last = made.add_delta(last, 4, 4, &insert(number));
        }
        assert!(matches!(made.index(1 << 30), Err(PackError::Malformed { .. })));
    }

    #[test]
    fn making_objects_again_and_again_is_not_free() {
        // A chain of small objects, each with another delta that waits until its end; there, something so large that
        // nothing before it is kept.
        let mut made = Made::default();
        let mut last = made.add(Header::Blob, &[0; 4]);
        for number in 1..3000 {
            made.add_delta(last, 4, 4, &insert(number + 1_000_000));
            last = made.add_delta(last, 4, 4, &insert(number));
        }
        let inserts = [&[64][..], &[7; 64]].concat().repeat(1 << 10);
        let medium = made.add_delta(last, 4, 1 << 16, &inserts);
        let large = made.add_delta(medium, 1 << 16, 300 << 16, &[0x80; 300]);
        made.add_delta(large, 300 << 16, 4, &insert(2_000_000));
        let unpacked = 20 * (300 << 16);
        assert!(matches!(made.index(unpacked), Err(PackError::Bomb { .. })));
    }

    #[test]
    fn copies_of_one_base_do_not_multiply_its_deltas() {
        let mut made = Made::default();
        for _ in 0..20_000 {
            made.add(Header::Blob, b"base");
        }
        for number in 0..20_000 {
            let delta = [&[4, 4][..], &insert(number)].concat();
            made.add(Header::RefDelta { base_id: blob_id(b"base") }, &delta);
        }
        assert!(matches!(made.index(1 << 30), Err(PackError::Duplicate { .. })));
    }

    #[test]
    fn a_tree_that_lists_without_end_is_refused() {
        // Well compressed: 64 MiB come to some 100 KB.
        let mut tree = Vec::new();
        while tree.len() as u64 <= MAX_LISTING {
            tree.extend(b"100644 x\0aaaaaaaaaaaaaaaaaaaa");
        }
        let mut body = Vec::new();
        write_full(&mut body, Header::Tree, &tree).unwrap();
        assert!(body.len() < 1 << 20);
        let made = Made { body, count: 1 };
        assert!(matches!(made.index(1 << 30), Err(PackError::Malformed { .. })));
    }

    #[test]
    fn inputs_of_the_fuzzer_are_indexed() {
        // A blob, a delta of it by place, and one of an object that is elsewhere by id.
        index_recipe(b"\x01\x02\x00\x04abcd\x05\x00\x07\x04\x04\x04efgh\x06\x00\x07\x18\x04\x04ijkl");
        index_recipe(b"\x02\x30");
    }
}
