//! The file `packed-refs`, in which all refs of a repository lie (git-pack-refs(1)): it is replaced as a whole, so all
//! of them change at once, also when the power goes, and thousands of refs are one small file.
//!
//! Another git that works in the folder may leave a ref in a file of its own, which counts more: the next change takes it
//! in.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use backon::{BlockingRetryable, ConstantBuilder};
use tempfile::TempPath;

use super::{GitError, ObjectId, Repository, object_id};

/// No ref is known by what it leads to: whoever wants to know that of a tag reads the tag.
const HEADER: &str = "# pack-refs with: sorted \n";

/// For how long another git may hold the lock, as git itself would wait (`core.packedRefsTimeout`).
const LOCKED: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(20)).with_max_times(50);

impl Repository {
    /// Sets refs, or with `None` deletes them: all of `changes`, or nothing. What was there is not looked at.
    ///
    /// # Errors
    ///
    /// [`GitError::InTheWay`] for refs that cannot be there together; or when the file cannot be written.
    pub(super) fn write_refs(&self, changes: &BTreeMap<String, Option<ObjectId>>) -> Result<(), GitError> {
        if changes.is_empty() {
            return Ok(());
        }
        let doing = "writing packed-refs";
        let path = self.path.join("packed-refs");
        let (mut file, lock) = lock(&path).map_err(self.io("locking packed-refs"))?;
        let before = self.direct_refs(&["refs/*"])?;
        let mut refs = before.clone();
        for (name, tip) in changes {
            match tip {
                Some(tip) => refs.insert(name.clone(), *tip),
                None => refs.remove(name),
            };
        }
        if refs == before {
            return Ok(());
        }
        if let Some((name, other)) = in_the_way(&refs) {
            let (repository, name, other) = (self.path.clone(), name.to_owned(), other.to_owned());
            return Err(GitError::InTheWay { repository, name, other });
        }
        let lines = refs.iter().map(|(name, tip)| format!("{tip} {name}\n"));
        let content: String = std::iter::once(HEADER.to_owned()).chain(lines).collect();
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(self.io(doing))?;
        lock.persist(&path).map_err(|error| self.io(doing)(error.error))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(self.io(doing))?;
        self.remove_loose(&before, "refs").map_err(self.io("removing refs that are packed"))
    }

    /// Removes the files of single refs that are `packed` by now, in the folder of this name.
    fn remove_loose(&self, packed: &BTreeMap<String, ObjectId>, folder: &str) -> io::Result<()> {
        let path = self.path.join(folder);
        let mut removed = false;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // Not of ours: we take no other names.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{folder}/{name}");
            if entry.file_type()?.is_dir() {
                self.remove_loose(packed, &name)?;
                continue;
            }
            let content = fs::read(entry.path())?;
            // One that has been moved meanwhile is left to the next change.
            if let Ok(tip) = ObjectId::from_hex(content.trim_ascii())
                && packed.get(&name) == Some(&tip)
            {
                fs::remove_file(entry.path())?;
                removed = true;
            }
        }
        // Else a power cut would bring them back, in the place of what is packed.
        if removed { File::open(&path)?.sync_all() } else { Ok(()) }
    }

    /// The refs that match one of `patterns` and name an object.
    pub(super) fn direct_refs(&self, patterns: &[&str]) -> Result<BTreeMap<String, ObjectId>, GitError> {
        let failed = self.git("reading the refs");
        let raw = self.raw()?;
        let mut refs = BTreeMap::new();
        for pattern in patterns {
            for reference in raw.references_glob(pattern).map_err(&failed)? {
                let reference = reference.map_err(&failed)?;
                if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                    refs.insert(name.to_owned(), object_id(target));
                }
            }
        }
        Ok(refs)
    }
}

/// Takes the lock that git takes, which becomes the file.
fn lock(path: &Path) -> io::Result<(File, TempPath)> {
    let lock = path.with_extension("lock");
    let taken = (|| File::create_new(&lock)).retry(LOCKED);
    let taken = taken.when(|error| error.kind() == io::ErrorKind::AlreadyExists).call();
    let file = taken.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", lock.display())))?;
    Ok((file, TempPath::try_from_path(lock)?))
}

/// A ref below whose name there is another one: git can have either.
fn in_the_way(refs: &BTreeMap<String, ObjectId>) -> Option<(&str, &str)> {
    refs.keys().find_map(|name| {
        let mut above = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
        above.find(|above| refs.contains_key(*above)).map(|above| (name.as_str(), above))
    })
}
