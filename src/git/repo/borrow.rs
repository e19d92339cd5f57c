//! Objects that forks of one repository share are stored once: all but one borrow from that one, by git's own
//! means (`objects/info/alternates`, see `gitrepository-layout(5)`).
//!
//! There are no chains: who borrows does not lend, and who lends does not borrow. Who lends is marked by git's
//! own means as well, `extensions.preciousObjects`: `git gc` then takes nothing away that others need. Nothing
//! here ever does: housekeeping drops only what a base holds.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{GitError, ObjectId, Refs, Repository, object_id, oid};
use crate::git::pack::StoredPack;

/// Branches whose history a source is told of.
const BRANCHES: usize = 8;

/// The setting that marks who lends.
const LENDS: &str = "extensions.preciousObjects";

impl Repository {
    /// Borrows from now on what `base` holds, if that holds one of `commits`. Returns whether it does so now.
    ///
    /// No when either of the two has another part already: nobody borrows from who borrows.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be read or written.
    pub fn borrow_from(&self, base: &Self, commits: &[ObjectId]) -> Result<bool, GitError> {
        // One at a time: two repositories must not begin to borrow from each other.
        static LINKING: Mutex<()> = Mutex::new(());
        let _guard = LINKING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.borrows()? || self.lends()? || base.borrows()? || base.path == self.path {
            return Ok(false);
        }
        let lacks = base.missing(commits.iter().copied())?;
        if lacks.len() == commits.len() {
            return Ok(false);
        }
        base.mark_as_lender()?;
        self.write_alternates(base).map_err(self.io("beginning to borrow objects"))?;
        Ok(true)
    }

    /// Whether objects of another repository belong to this one.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub fn borrows(&self) -> Result<bool, GitError> {
        Ok(self.base_objects()?.is_some())
    }

    /// What the base's branches and tags point at. Empty for who borrows nothing.
    pub(super) fn borrowed_refs(&self) -> Result<Refs, GitError> {
        let base = self.base_objects()?.and_then(|objects| objects.parent().map(Path::to_owned));
        base.map_or(Ok(Refs::new()), |path| Self { path }.refs())
    }

    /// Commits and tags of the base: objects that are here although no ref of this repository says so. Empty for who
    /// borrows nothing.
    ///
    /// Behind the tip of each branch come commits at ever longer distances from it: whoever is told this may know an
    /// old state of the branch only.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    pub fn borrowed_haves(&self) -> Result<Vec<ObjectId>, GitError> {
        let refs = self.borrowed_refs()?;
        let raw = self.raw()?;
        let failed = self.git("reading what its base lends");
        let (branches, tags): (Vec<_>, Vec<_>) = refs.iter().partition(|(name, _)| name.is_branch());
        let mut haves: Vec<ObjectId> = branches.iter().map(|(_, tip)| **tip).collect();
        for (_, tip) in branches.iter().take(BRANCHES) {
            let mut walk = raw.revwalk().map_err(&failed)?;
            walk.simplify_first_parent().map_err(&failed)?;
            walk.push(oid(tip)).map_err(&failed)?;
            for (distance, commit) in walk.enumerate() {
                let commit = commit.map_err(&failed)?;
                if distance.is_power_of_two() {
                    haves.push(object_id(commit));
                }
            }
        }
        haves.extend(tags.iter().map(|(_, tag)| **tag));
        Ok(haves)
    }

    /// # Errors
    ///
    /// [`GitError::BaseGone`]: without its base a repository is not whole, and must not be taken for it.
    pub(super) fn check_base(&self) -> Result<(), GitError> {
        match self.base_objects()? {
            Some(base) if !base.is_dir() => Err(GitError::BaseGone { repository: self.path.clone(), base }),
            _ => Ok(()),
        }
    }

    pub(super) fn borrowed_packs(&self) -> Result<Vec<StoredPack>, GitError> {
        self.base_objects()?.map_or(Ok(Vec::new()), |objects| self.open_packs(&objects))
    }

    /// When the repository began to borrow.
    pub(super) fn borrows_since(&self) -> io::Result<Option<SystemTime>> {
        match self.alternates().metadata() {
            Ok(file) => file.modified().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `wants` are less than half of what there is, in commits: a part of a base that is not worth being
    /// sent as a whole. Without a base all of it belongs to the repository.
    pub(super) fn is_small_part(&self, raw: &git2::Repository, wants: &[ObjectId]) -> Result<bool, GitError> {
        if !self.borrows()? {
            return Ok(false);
        }
        let failed = self.git("counting commits");
        let wanted = count(raw, wants.iter()).map_err(&failed)?;
        let base = self.borrowed_refs()?;
        let all = count(raw, wants.iter().chain(base.values())).map_err(&failed)?;
        Ok(wanted.saturating_mul(2) < all)
    }

    /// Whether others borrow from here.
    fn lends(&self) -> Result<bool, GitError> {
        let failed = self.git("reading whether others borrow");
        let config = self.raw()?.config().map_err(&failed)?;
        match config.get_bool(LENDS) {
            Ok(lends) => Ok(lends),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// On disk before anybody borrows.
    fn mark_as_lender(&self) -> Result<(), GitError> {
        if self.lends()? {
            return Ok(());
        }
        let mut config = self.raw()?.config().map_err(self.git("marking what others borrow"))?;
        config.set_bool(LENDS, true).map_err(self.git("marking what others borrow"))?;
        let flushed = fs::File::open(self.path.join("config")).and_then(|file| file.sync_all());
        flushed.map_err(self.io("marking what others borrow"))
    }

    fn alternates(&self) -> PathBuf {
        self.path.join("objects").join("info").join("alternates")
    }

    /// The objects folder that is borrowed from.
    fn base_objects(&self) -> Result<Option<PathBuf>, GitError> {
        let text = match fs::read_to_string(self.alternates()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("reading what is borrowed")(error)),
        };
        let line = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(line.map(|line| self.path.join("objects").join(line)))
    }

    /// Relative, as git and libgit2 both read it (from the objects folder): the data folder may be moved.
    fn write_alternates(&self, base: &Self) -> io::Result<()> {
        let objects = self.path.join("objects").canonicalize()?;
        let lender = base.path.join("objects").canonicalize()?;
        let path = relative(&objects, &lender);
        let alternates = self.alternates();
        let folder = objects.join("info");
        fs::create_dir_all(&folder)?;
        self.replace(&alternates, format!("{}\n", path.display()).as_bytes())?;
        fs::File::open(folder)?.sync_all()
    }
}

/// The way from the folder `from` to `to`, both absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// How many commits `tips` reach.
fn count<'a>(raw: &git2::Repository, tips: impl Iterator<Item = &'a ObjectId>) -> Result<usize, git2::Error> {
    let mut walk = raw.revwalk()?;
    for tip in tips {
        // Tags of trees and blobs reach no commit.
        if let Ok(commit) = raw.find_object(oid(tip), None)?.peel_to_commit() {
            walk.push(commit.id())?;
        }
    }
    Ok(walk.count())
}
