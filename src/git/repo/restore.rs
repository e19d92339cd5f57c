//! An ordinary repository with a work tree, made from what is kept here.

use std::{fs, io, path::Path};

use super::{GitError, Repository};
use crate::{
    git::pack::Pack,
    model::refs::{ObjectId, RefName, Refs},
};

impl Repository {
    /// Makes an ordinary repository in the folder `into` that has `refs`, and checks out `head`, or another branch
    /// when that is not among them.
    ///
    /// # Errors
    ///
    /// [`GitError::NotEmpty`] when there is something in the folder already; [`GitError::MissingTip`] when an object is
    /// not here.
    pub fn restore(&self, refs: &Refs, head: Option<&RefName>, into: &Path) -> Result<(), GitError> {
        let doing = "making the restored repository";
        fs::create_dir_all(into).map_err(self.io(doing))?;
        if fs::read_dir(into).map_err(self.io(doing))?.next().is_some() {
            return Err(GitError::NotEmpty { folder: into.to_owned() });
        }
        self.check_tips(refs)?;
        let failed = self.git(doing);
        let mut options = git2::RepositoryInitOptions::new();
        options.no_reinit(true).external_template(false).initial_head("refs/heads/main");
        let made = git2::Repository::init_opts(into, &options).map_err(&failed)?;
        let target = Self { path: made.path().to_owned() };

        let wants: Vec<ObjectId> = refs.values().copied().collect();
        let pack = if wants.is_empty() { Pack::Empty } else { self.pack_for(&wants, &[])? };
        if let Some(path) = pack.path() {
            target.ingest(path)?;
            match fs::remove_dir_all(target.path.join("incoming")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(doing)(error)),
                _ => {}
            }
        }
        target.write_refs(&refs.iter().map(|(name, tip)| (name.to_string(), Some(*tip))).collect())?;
        // A new handle: the first one knows neither pack nor refs.
        let made = git2::Repository::open(into).map_err(&failed)?;
        let branch = head.filter(|head| refs.contains_key(*head));
        let Some(branch) = branch.or_else(|| refs.keys().find(|name| name.is_branch())) else {
            return Ok(());
        };
        made.set_head(branch.as_str()).map_err(&failed)?;
        let mut checkout = git2::build::CheckoutBuilder::new();
        made.checkout_head(Some(checkout.force())).map_err(&failed)
    }
}
