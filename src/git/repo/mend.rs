//! What a killed run or a power cut left in a repository: taken away, so that whoever sets its refs next sets them right.

use std::{
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
        self.mend_head()?;
        for path in leftovers {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        Ok(())
    }

    /// Removes locks, which nobody can hold but who was killed, and writes `HEAD` again when it was made but not written.
    fn mend_head(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_lock(&path) {
                tracing::warn!(file = %path.display(), "an earlier run left it: removed");
                fs::remove_file(path)?;
            }
        }
        let head = self.path.join("HEAD");
        if !is_ref(&fs::read(&head)?) {
            tracing::warn!(file = %head.display(), "an earlier run left it damaged: written again");
            self.replace(&head, HEAD)?;
        }
        Ok(())
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
