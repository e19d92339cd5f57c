//! Packs as files: reading their entries, indexing them, and copying entries into new packs.
//!
//! Nothing in here compresses an object that is already compressed, maps a whole pack into memory, or
//! holds more than a few objects at once. Format: git's `gitformat-pack(5)`.

mod delta;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod idx;
mod index;
mod links;
mod resolve;
mod select;
mod stored;
mod write;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempPath;

#[cfg(test)]
pub(in crate::git) use self::select::MAX_PACKS;
pub(in crate::git) use self::{
    index::{Known, index_pack},
    select::{Selection, everything, only_here, some, to_join},
    stored::StoredPack,
    write::{join_packs, write_pack},
};
use crate::{git::checksum::Checksum, model::refs::ObjectId};

/// Length of a pack's header in bytes: `PACK`, version, count.
pub(super) const HEADER_LEN: u64 = 12;
/// Length of a SHA-1, and so of a pack's trailer, in bytes.
pub(super) const HASH_LEN: u64 = 20;
/// No single object that has to be held in memory (a delta, its base, its result) may be larger, in bytes.
///
/// Git stores larger files undeltified by default from 512 MiB on (`core.bigFileThreshold`), and blobs
/// that are not deltas are streamed through here whatever their size.
pub(super) const MAX_OBJECT_IN_MEMORY: u64 = 256 << 20;

/// No commit, tree or tag may be larger, in bytes: what it lists is held in memory besides. A tree of this size has
/// more than a million entries.
pub(super) const MAX_LISTING: u64 = 64 << 20;

/// What is said about larger ones.
const TOO_LARGE: &str = "an object too large to be held in memory";

/// No pack may hold more objects, and its objects may not refer to more: each takes memory while the pack
/// is indexed. Linux has about as many.
pub(super) const MAX_OBJECTS: usize = 12_000_000;

/// No pack may come to more than this when unpacked, in bytes. The history of Linux comes to about half of it.
const MAX_UNPACKED: u64 = 256 << 30;

/// No pack may take longer to be indexed. One of two gigabytes takes minutes.
const MAX_INDEXING: Duration = Duration::from_secs(3_600);

/// How many bytes the objects of a pack of `len` bytes may come to when unpacked.
///
/// Long histories of one large file really come to hundreds of times their pack; beyond that a pack is
/// made to keep a processor busy.
fn unpack_budget(len: u64) -> u64 {
    len.saturating_mul(500).saturating_add(8 << 30).min(MAX_UNPACKED)
}

/// Why a pack could not be read, indexed or written. The caller adds the repository.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file itself could not be read or written.
    #[error("reading or writing a pack: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what `gitformat-pack(5)` allows.
    #[error("the pack is damaged at byte {offset}: {reason}")]
    Malformed {
        /// Where in the pack, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The SHA-1 over the pack is not the one at its end.
    #[error("the pack does not match its own checksum {declared}")]
    Checksum {
        /// The trailer as it came.
        declared: ObjectId,
    },
    /// Objects that the pack refers to are neither in it nor in the repository.
    #[error(
        "the pack is incomplete: {count} objects are missing, {first} among them; fetch it from another clone URL"
    )]
    Incomplete {
        /// How many objects are missing.
        count: usize,
        /// One of them.
        first: ObjectId,
    },
    /// Deltas whose base is neither in the pack nor in the repository.
    #[error("{count} deltas of the pack have no base; fetch it without thin-pack or from another clone URL")]
    NoBase {
        /// How many deltas could not be resolved.
        count: usize,
    },
    /// A source sent something else than it was asked for.
    #[error("the pack does not hold {id}, for which it was fetched; it is not taken")]
    Unasked {
        /// What was asked for.
        id: ObjectId,
    },
    /// More objects than are taken.
    #[error("the pack has more than {MAX_OBJECTS} objects or refers to more; it is not taken")]
    TooManyObjects,
    /// Unpacked it would be absurdly larger than it is.
    #[error("the pack unpacks to more than {limit} bytes; it is not taken")]
    Bomb {
        /// The limit for a pack of its size.
        limit: u64,
    },
    /// Indexing it takes too long.
    #[error("the pack is not indexed after {} s on this machine; it is not taken", limit.as_secs())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// One object is stored twice, which servers that check strictly refuse.
    #[error("the pack holds {id} twice")]
    Duplicate {
        /// The object.
        id: ObjectId,
    },
    /// An index and its pack do not fit each other.
    #[error("{path}: {reason}; remove it and fetch the repository again")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// Counts down what a pack unpacks to, and the time.
#[derive(Debug)]
struct Budget {
    limit: u64,
    left: u64,
    begun: Instant,
    time: Duration,
}

impl Budget {
    fn new(pack_len: u64) -> Self {
        Self::of(unpack_budget(pack_len), MAX_INDEXING)
    }

    fn of(limit: u64, time: Duration) -> Self {
        Self { limit, left: limit, begun: Instant::now(), time }
    }

    fn take(&mut self, bytes: u64) -> Result<(), PackError> {
        self.left = self.left.checked_sub(bytes).ok_or(PackError::Bomb { limit: self.limit })?;
        self.check_time()
    }

    fn check_time(&self) -> Result<(), PackError> {
        if self.begun.elapsed() < self.time { Ok(()) } else { Err(PackError::TooSlow { limit: self.time }) }
    }
}

impl PackError {
    fn malformed(offset: u64, reason: impl Into<String>) -> Self {
        Self::Malformed { offset, reason: reason.into() }
    }
}

/// A pack to stream to servers. Clones share one file, so several servers can read it at once.
#[derive(Debug, Clone)]
pub enum Pack {
    /// No objects: 32 bytes, for pushes that only move refs onto objects the server has.
    Empty,
    /// A pack as it lies in the repository (or as a fetch brought it).
    Stored {
        /// The file; it stays where it is.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// A pack made for one purpose; its file goes when the last clone goes.
    Built {
        /// The file.
        path: Arc<TempPath>,
        /// Its length in bytes.
        len: u64,
    },
}

impl Pack {
    /// A pack file to be streamed as it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be looked at.
    pub fn stored(path: &Path) -> io::Result<Self> {
        Ok(Self::Stored { path: path.to_owned(), len: path.metadata()?.len() })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => HEADER_LEN + HASH_LEN,
            Self::Stored { len, .. } | Self::Built { len, .. } => *len,
        }
    }

    /// Whether the pack holds no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The file to read, `None` for the empty pack (its bytes are [`empty_pack`]).
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Empty => None,
            Self::Stored { path, .. } => Some(path),
            Self::Built { path, .. } => Some(path),
        }
    }

    /// Opens the pack for blocking reads from its start.
    ///
    /// # Errors
    ///
    /// When the file is gone or cannot be read.
    pub fn reader(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(match self.path() {
            None => Box::new(io::Cursor::new(empty_pack())),
            Some(path) => Box::new(File::open(path)?),
        })
    }
}

/// The pack of zero objects: header and SHA-1 trailer, 32 bytes.
#[must_use]
pub fn empty_pack() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    // Writing to a vector cannot fail.
    let _ = HashingWriter::new(&mut bytes).and_pack(0, |_| Ok(()));
    bytes
}

/// Writes bytes on while hashing them, for a pack's trailer.
struct HashingWriter<W> {
    inner: W,
    checksum: Checksum,
    /// CRC-32 over the entry being written; whoever begins one begins it anew.
    crc: crc32fast::Hasher,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner, checksum: Checksum::default(), crc: crc32fast::Hasher::new(), written: 0 }
    }

    /// Writes a whole pack: the header, what `entries` writes, the trailer. Returns the trailer and length.
    fn and_pack(
        mut self,
        count: u32,
        entries: impl FnOnce(&mut Self) -> Result<(), PackError>,
    ) -> Result<(ObjectId, u64), PackError> {
        self.write_all(&gix_pack::data::header::encode(gix_pack::data::Version::V2, count))?;
        entries(&mut self)?;
        let trailer = self.checksum.finish();
        self.inner.write_all(trailer.as_slice())?;
        self.inner.flush()?;
        Ok((trailer, self.written + HASH_LEN))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.checksum.update(bytes);
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The name of an object; an error only for input made to collide (git refuses such input as well).
fn finish(hasher: gix_hash::Hasher) -> io::Result<ObjectId> {
    hasher.try_finalize().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
