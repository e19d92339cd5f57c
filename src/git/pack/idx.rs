//! Writing a pack's `.idx` file, version 2 (`gitformat-pack(5)`).

use gix_hash::ObjectId;

use super::{PackError, index::IndexEntry};
use crate::git::checksum::Checksum;

/// Offsets from here on take eight bytes, in a table of their own.
const LARGE: u64 = 1 << 31;

/// Where the sorted object ids begin: after magic, version and fan-out table.
pub(super) const IDS_AT: usize = 8 + 256 * 4;

/// The index for `entries`, which are sorted by id, of the pack whose trailer is `pack`.
pub(super) fn encode(entries: &[IndexEntry], pack: &ObjectId) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::with_capacity(entries.len() * 28 + 1072);
    out.extend_from_slice(b"\xfftOc\0\0\0\x02");
    for byte in 0..=u8::MAX {
        let count = entries.partition_point(|entry| entry.id.first().is_some_and(|first| *first <= byte));
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }
    for entry in entries {
        out.extend_from_slice(&entry.id);
    }
    for entry in entries {
        out.extend_from_slice(&entry.crc.to_be_bytes());
    }
    let mut large = Vec::new();
    for entry in entries {
        let offset = match u32::try_from(entry.offset) {
            Ok(offset) if u64::from(offset) < LARGE => offset,
            _ => {
                large.push(entry.offset);
                (1 << 31) | u32::try_from(large.len() - 1).unwrap_or(u32::MAX)
            }
        };
        out.extend_from_slice(&offset.to_be_bytes());
    }
    for offset in large {
        out.extend_from_slice(&offset.to_be_bytes());
    }
    out.extend_from_slice(pack.as_slice());
    let mut checksum = Checksum::default();
    checksum.update(&out);
    out.extend_from_slice(checksum.finish().as_slice());
    Ok(out)
}
