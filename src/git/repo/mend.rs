//! What a killed run or a power cut left in a repository: taken away, so that whoever sets its refs next sets them right.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::Repository;
use crate::model::refs::ObjectId;

/// What `HEAD` names until a state says otherwise.
const HEAD: &[u8] = b"ref: refs/heads/main\n";

impl Repository {
    /// Another run's folder tells that leftovers may lie about; this run's own may be in use.
    pub(super) fn clean(&self) -> io::Result<()> {
        // One at a time: nobody may start an ingest (which moves a pack, then its index) while another
        // caller still looks for packs without index.
        static CLEANING: Mutex<()> = Mutex::new(());
        let _guard = CLEANING.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.make_incoming_dir()?;
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(self.path.join("incoming"))? {
            leftovers.push(entry?.path());
        }
        leftovers.retain(|path| *path != own);
        if leftovers.is_empty() {
            return Ok(());
        }
        for entry in fs::read_dir(self.path.join("objects").join("pack"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "pack") && !path.with_extension("idx").exists() {
                fs::remove_file(&path)?;
            }
        }
        self.mend_refs()?;
        for path in leftovers {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        Ok(())
    }

    /// Removes locks, which nobody can hold but who was killed, and refs whose file was made but not written.
    fn mend_refs(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_lock(&path) {
                remove(&path)?;
            }
        }
        let mut folders = vec![self.path.join("refs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                if kind.is_dir() {
                    folders.push(path);
                } else if is_lock(&path) || !is_ref(&fs::read(&path)?) {
                    remove(&path)?;
                }
            }
        }
        let head = self.path.join("HEAD");
        if !is_ref(&fs::read(&head)?) {
            tracing::warn!(file = %head.display(), "an earlier run left it damaged: written again");
            self.replace(&head, HEAD)?;
        }
        Ok(())
    }

    /// Flushes refs to disk with the folders they lie in: after a power cut they are there, or not even their names.
    pub(super) fn flush<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.path.join(name);
            fs::File::open(&path)?.sync_all()?;
            let inside = |folder: &&Path| *folder != self.path;
            folders.extend(path.ancestors().skip(1).take_while(inside).map(Path::to_owned));
        }
        folders.iter().rev().try_for_each(|folder| fs::File::open(folder)?.sync_all())
    }
}

/// No ref can be called so (git-check-ref-format(1)).
fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock")
}

/// The name of an object or of another ref, and a newline (gitrepository-layout(5)).
fn is_ref(content: &[u8]) -> bool {
    let Some(content) = content.strip_suffix(b"\n") else { return false };
    content.starts_with(b"ref: refs/") || ObjectId::from_hex(content).is_ok()
}

fn remove(path: &Path) -> io::Result<()> {
    tracing::warn!(file = %path.display(), "an earlier run left it: removed");
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_writes_is_a_ref_and_half_of_it_is_none() {
        for whole in [format!("{}\n", "1f".repeat(20)), "ref: refs/heads/main\n".to_owned()] {
            assert!(is_ref(whole.as_bytes()));
            let cuts = (0..whole.len()).map(|length| whole.as_bytes().get(..length).unwrap_or_default());
            assert!(cuts.into_iter().all(|cut| !is_ref(cut)));
            assert!(!is_ref(&vec![0; whole.len()]));
        }
    }
}
