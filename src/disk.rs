//! How much room there is.

use std::path::Path;

/// Bytes that are free for us on the disk of `folder`; `None` when it cannot be asked.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
