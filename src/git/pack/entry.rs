//! Reading pack entries from a file, one after the other or at a known place.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
};

use flate2::{Decompress, FlushDecompress, Status};
use gix_pack::data::{Entry, entry::Header};

use super::{Budget, HASH_LEN, MAX_OBJECT_IN_MEMORY, PackError, TOO_LARGE, links::Kind};
use crate::{git::checksum::Checksum, model::refs::ObjectId};

/// How much is read from a file at once, in bytes.
const BUFFER: usize = 128 << 10;

/// The type of a full object; `None` for a delta.
pub(super) fn kind_of(header: &Header) -> Option<Kind> {
    match header {
        Header::Commit => Some(Kind::Commit),
        Header::Tree => Some(Kind::Tree),
        Header::Blob => Some(Kind::Blob),
        Header::Tag => Some(Kind::Tag),
        Header::RefDelta { .. } | Header::OfsDelta { .. } => None,
    }
}

/// A pack read from front to end, hashed on the way.
pub(super) struct PackStream {
    file: BufReader<io::Take<File>>,
    offset: u64,
    checksum: Checksum,
    entry_crc: crc32fast::Hasher,
}

impl PackStream {
    /// Reads `file` from its start up to its trailer.
    pub(super) fn new(file: File) -> Result<Self, PackError> {
        let len = file.metadata()?.len();
        let body = len
            .checked_sub(HASH_LEN)
            .ok_or_else(|| PackError::malformed(len, "shorter than a pack's trailer"))?;
        Ok(Self {
            file: BufReader::with_capacity(BUFFER, file.take(body)),
            offset: 0,
            checksum: Checksum::default(),
            entry_crc: crc32fast::Hasher::new(),
        })
    }

    /// The pack's header: how many entries follow.
    pub(super) fn count(&mut self) -> Result<u32, PackError> {
        let mut header = [0; gix_pack::data::header::SIZE];
        self.read_exact(&mut header).map_err(|_| PackError::malformed(0, "shorter than a pack's header"))?;
        let (_, count) = gix_pack::data::header::decode(&header)
            .map_err(|error| PackError::malformed(0, error.to_string()))?;
        Ok(count)
    }

    /// Where the next entry starts, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The header of the next entry, and with it the start of a new CRC-32.
    pub(super) fn entry(&mut self) -> Result<Entry, PackError> {
        let start = self.offset;
        self.entry_crc = crc32fast::Hasher::new();
        Entry::from_read(self, start, 20).map_err(|error| PackError::malformed(start, error.to_string()))
    }

    /// CRC-32 over the bytes of the entry read last.
    pub(super) fn entry_crc(&self) -> u32 {
        self.entry_crc.clone().finalize()
    }

    /// Inflates the content of an entry that must have `size` bytes, in pieces.
    pub(super) fn inflate(
        &mut self,
        inflater: &mut Decompress,
        size: u64,
        budget: &Budget,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), PackError> {
        let start = self.offset;
        let bad = |reason: &str| PackError::malformed(start, reason);
        let mut out = [0; 16 << 10];
        inflater.reset(true);
        loop {
            budget.check_time()?;
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let input = self.file.fill_buf()?;
            let at_end = input.is_empty();
            let status = inflater
                .decompress(input, &mut out, FlushDecompress::None)
                .map_err(|error| bad(&format!("zlib: {error}")))?;
            let consumed = usize::try_from(inflater.total_in() - before_in).unwrap_or(usize::MAX);
            let made = usize::try_from(inflater.total_out() - before_out).unwrap_or(usize::MAX);
            self.skip(consumed);
            sink(out.get(..made).unwrap_or_default());
            if inflater.total_out() > size {
                return Err(bad("an object longer than it declares"));
            }
            if status == Status::StreamEnd {
                break;
            }
            if at_end && made == 0 {
                return Err(bad("the pack ends inside an object"));
            }
        }
        if inflater.total_out() == size { Ok(()) } else { Err(bad("an object shorter than it declares")) }
    }

    /// The checksum of everything read; an error when something is left before the trailer.
    pub(super) fn finish(mut self) -> Result<ObjectId, PackError> {
        if self.file.fill_buf()?.is_empty() {
            Ok(self.checksum.finish())
        } else {
            Err(PackError::malformed(self.offset, "more bytes than the declared objects need"))
        }
    }

    fn skip(&mut self, count: usize) {
        let seen = self.file.buffer().get(..count).unwrap_or_default();
        self.checksum.update(seen);
        self.entry_crc.update(seen);
        self.offset += seen.len() as u64;
        self.file.consume(count);
    }
}

impl Read for PackStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.file.fill_buf()?;
        let count = available.len().min(out.len());
        if let (Some(out), Some(seen)) = (out.get_mut(..count), available.get(..count)) {
            out.copy_from_slice(seen);
        }
        self.skip(count);
        Ok(count)
    }
}

/// Entries of a pack read at known places, without a mapping of the file.
pub(super) struct PackReader<'a> {
    file: &'a File,
    inflater: Decompress,
    compressed: Vec<u8>,
}

impl<'a> PackReader<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, inflater: Decompress::new(true), compressed: Vec::new() }
    }

    /// The entry in the bytes `start..end`: its header and its inflated content (for a delta, the delta).
    pub(super) fn read(&mut self, start: u64, end: u64) -> Result<(Header, Vec<u8>), PackError> {
        let bad = |reason: String| PackError::malformed(start, reason);
        let len = end.saturating_sub(start);
        if len > MAX_OBJECT_IN_MEMORY {
            return Err(bad(TOO_LARGE.to_owned()));
        }
        self.compressed.resize(usize::try_from(len).unwrap_or(0), 0);
        self.file.read_exact_at(&mut self.compressed, start)?;
        let mut rest = self.compressed.as_slice();
        let entry = Entry::from_read(&mut rest, start, 20).map_err(|error| bad(error.to_string()))?;
        if entry.decompressed_size > MAX_OBJECT_IN_MEMORY {
            return Err(bad(TOO_LARGE.to_owned()));
        }
        let size = usize::try_from(entry.decompressed_size).unwrap_or(0);
        let mut content = Vec::with_capacity(size);
        self.inflater.reset(true);
        self.inflater
            .decompress_vec(rest, &mut content, FlushDecompress::Finish)
            .map_err(|error| bad(format!("zlib: {error}")))?;
        if content.len() != size {
            return Err(bad("an object of another size than it declares".to_owned()));
        }
        // A one-off large entry must not keep its buffer for the rest of the pack.
        if self.compressed.capacity() > 4 << 20 {
            self.compressed = Vec::new();
        }
        Ok((entry.header, content))
    }
}
