//! Few packs, and each object once: packs that have come one by one are joined, and what a base holds as well
//! goes. Entries are copied; nothing is inflated or compressed.
//!
//! Killed at any moment, the repository is whole: the new pack is flushed to disk with its index before an old
//! one goes, and of an old one the index goes before the pack, as [`Repository::open_or_create`] expects it.

use std::{
    fs,
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::SystemTime,
};

use super::{GitError, Repository};
use crate::{
    disk::free_bytes,
    git::pack::{Selection, StoredPack, join_packs, only_here, to_join},
};

/// What [`Repository::consolidate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consolidated {
    /// How many packs are gone.
    pub joined: usize,
    /// What they took, in bytes.
    pub before_bytes: u64,
    /// What is left of them, in one pack; 0 when a base holds all of it.
    pub after_bytes: u64,
}

/// Held by who reads packs by their names or through libgit2, which opens files late; packs go only when nobody
/// does. One lock for all repositories: who borrows reads the packs of another.
static PACKS: RwLock<()> = RwLock::new(());

/// Keeps all packs where they are while the guard lives.
pub(super) fn hold_packs() -> RwLockReadGuard<'static, ()> {
    PACKS.read().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// Joins packs when there are too many of them, and drops what the base holds after the repository has
    /// begun to borrow. `None` when there was nothing to do, no room, or no leave.
    ///
    /// Nothing is begun unless `disk_floor_bytes` stay free beside the new pack, which is at most as large as
    /// those it replaces. `go_on` is asked before each step; a no leaves the rest for the next time.
    ///
    /// To be called when no mirror of the repository, or of one that borrows from it, is being walked: an open
    /// pack stays readable, but a push that is to open one which has gone fails, and is tried again.
    ///
    /// # Errors
    ///
    /// When a pack cannot be read or written, or is damaged; nothing is lost then.
    pub fn consolidate(
        &self,
        disk_floor_bytes: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Consolidated>, GitError> {
        let doing = "joining packs";
        let (join, keep) = self.choose().map_err(self.io(doing))?;
        if join.is_empty() || !go_on() {
            return Ok(None);
        }
        let before_bytes: u64 = join.iter().map(|pack| pack.len).sum();
        let open = |packs: Vec<PackFile>| {
            let opened = packs.into_iter().map(|pack| StoredPack::open(&pack.path.with_extension("idx")));
            opened.collect::<Result<Vec<_>, _>>().map_err(self.pack())
        };
        let (join, mut elsewhere) = (open(join)?, open(keep)?);
        elsewhere.extend(self.borrowed_packs()?);
        let selection = only_here(&join, &elsewhere).map_err(self.pack())?;
        if let [only] = join.as_slice()
            && selection.count() == only.count() as usize
        {
            // Nothing would change; not to be looked at again.
            let touched = fs::File::open(&only.path).and_then(|file| file.set_modified(SystemTime::now()));
            touched.map_err(self.io(doing))?;
            return Ok(None);
        }
        let needed = before_bytes.saturating_add(index_len(selection.count()));
        if !self.has_room(needed, disk_floor_bytes) {
            tracing::info!(repository = %self.path.display(), before_bytes, "no room to join its packs");
            return Ok(None);
        }
        let (new, after_bytes) = if selection.count() == 0 {
            (None, 0)
        } else {
            let Some((new, len)) = self.write_joined(&join, &selection, go_on)? else { return Ok(None) };
            (Some(new), len)
        };
        let old: Vec<PathBuf> = join.iter().map(|pack| pack.path.clone()).collect();
        drop((join, elsewhere));
        let gone = self.remove_packs(old.iter().filter(|path| Some(*path) != new.as_ref()), go_on);
        let joined = gone.map_err(self.io(doing))?;
        Ok((joined > 0).then_some(Consolidated { joined, before_bytes, after_bytes }))
    }

    /// The repository's own packs: those to join, the largest first, and those to leave alone.
    fn choose(&self) -> io::Result<(Vec<PackFile>, Vec<PackFile>)> {
        let mut packs = packs_in(&self.path.join("objects"))?;
        packs.sort_by(|a, b| b.len.cmp(&a.len).then_with(|| a.path.cmp(&b.path)));
        // What git is told to keep stays.
        let (mut keep, mut packs): (Vec<_>, Vec<_>) =
            packs.into_iter().partition(|pack| pack.path.with_extension("keep").exists());
        // What came after the repository began to borrow was asked for with the base in mind.
        if let Some(since) = self.borrows_since()?
            && packs.iter().any(|pack| pack.modified < since)
        {
            return Ok((packs, keep));
        }
        let sizes: Vec<u64> = packs.iter().rev().map(|pack| pack.len).collect();
        let join = packs.split_off(packs.len() - to_join(&sizes));
        keep.extend(packs);
        Ok((join, keep))
    }

    /// Whether so many bytes fit beside what is to stay free. A disk that cannot be asked is not taken for a full
    /// one.
    fn has_room(&self, bytes: u64, disk_floor_bytes: u64) -> bool {
        free_bytes(&self.path).is_none_or(|free| free.saturating_sub(bytes) >= disk_floor_bytes)
    }

    /// Where the new pack lies, and its length in bytes.
    fn write_joined(
        &self,
        join: &[StoredPack],
        selection: &Selection,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<(PathBuf, u64)>, GitError> {
        let doing = "joining packs";
        let folder = self.make_incoming_dir().map_err(self.io(doing))?;
        let file = tempfile::Builder::new().prefix("joined-").tempfile_in(folder).map_err(self.io(doing))?;
        let out = BufWriter::with_capacity(128 << 10, file.as_file());
        let (indexed, len) = join_packs(join, selection, out).map_err(self.pack())?;
        let stored = self.path.join("objects").join("pack").join(format!("pack-{}.pack", indexed.name));
        let index = stored.with_extension("idx");
        if !go_on() {
            return Ok(None);
        }
        if !index.exists() {
            self.install(file.path(), &indexed.index, &stored, &index).map_err(self.io(doing))?;
        }
        Ok(Some((stored, len)))
    }

    /// Removes packs whose objects are elsewhere, as long as nobody holds packs. Returns how many.
    fn remove_packs<'a>(
        &self,
        packs: impl Iterator<Item = &'a PathBuf>,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<usize> {
        let mut gone = 0;
        for pack in packs {
            if !go_on() {
                break;
            }
            let Ok(_nobody) = PACKS.try_write() else { break };
            // Made by somebody else's `git maintenance`, and of no use when it names packs that are gone.
            remove(&self.path.join("objects").join("pack").join("multi-pack-index"))?;
            remove(&pack.with_extension("idx"))?;
            if !go_on() {
                break;
            }
            for extension in ["pack", "rev", "bitmap", "mtimes"] {
                remove(&pack.with_extension(extension))?;
            }
            gone += 1;
        }
        if gone > 0 {
            fs::File::open(self.path.join("objects").join("pack"))?.sync_all()?;
        }
        Ok(gone)
    }

    /// The packs that lie in the repository itself.
    pub(super) fn own_packs(&self) -> Result<Vec<StoredPack>, GitError> {
        self.open_packs(&self.path.join("objects"))
    }

    /// The packs below an objects folder, opened.
    pub(super) fn open_packs(&self, objects: &Path) -> Result<Vec<StoredPack>, GitError> {
        let packs = packs_in(objects).map_err(self.io("listing packs"))?;
        let opened = packs.iter().map(|pack| StoredPack::open(&pack.path.with_extension("idx")));
        opened.collect::<Result<_, _>>().map_err(self.pack())
    }
}

/// The most bytes that an index of so many objects takes.
fn index_len(objects: usize) -> u64 {
    (objects as u64).saturating_mul(36).saturating_add(1100)
}

/// A pack that has an index.
struct PackFile {
    path: PathBuf,
    len: u64,
    modified: SystemTime,
}

fn packs_in(objects: &Path) -> io::Result<Vec<PackFile>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(objects.join("pack"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            let path = path.with_extension("pack");
            let file = path.metadata()?;
            packs.push(PackFile { len: file.len(), modified: file.modified()?, path });
        }
    }
    Ok(packs)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
