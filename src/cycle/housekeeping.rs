//! After a cycle has reported, and before the next one: the local copies are put in order, one after the other, at low
//! priority.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use nostr::prelude::Timestamp;

use super::{Trigger, world::World};
use crate::{
    git::{GitError, Repository},
    model::refs::ObjectId,
    plan::catalog,
    transfer::{blocking, low_priority},
};

/// The local copies that packs have come to in a cycle, perhaps.
#[derive(Debug)]
pub struct House {
    copies: Vec<Copy>,
    /// Those to which packs have come since then are looked at; `None` for all.
    since: Option<SystemTime>,
    disk_floor_bytes: u64,
}

/// A local copy, and what it may borrow from.
#[derive(Debug)]
pub(super) struct Copy {
    folder: PathBuf,
    lenders: Vec<Lender>,
}

/// The local copy of a relative.
#[derive(Debug)]
struct Lender {
    folder: PathBuf,
    /// It must hold one of these.
    commits: Vec<ObjectId>,
}

/// Says stop when nobody waits for it any more.
struct Leave(Arc<AtomicBool>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl World {
    /// Has the local copy of `repository` borrow what a relative holds already, so that it is neither fetched nor
    /// stored again.
    pub(super) async fn borrow(&self, repository: &catalog::Repository, local: &Repository) {
        if repository.kin.is_empty() {
            return;
        }
        let (copy, local) = (self.copy(repository), local.clone());
        // A repository that cannot borrow is fetched as a whole.
        let Ok(()) = blocking(move || {
            find_lender(&local, &copy);
            Ok::<_, Infallible>(())
        })
        .await;
    }

    /// Which of `copies` are to be put in order. The daemon's first cycle has all looked at: an earlier run may have been
    /// stopped in the middle.
    pub(super) fn house_of(&self, copies: Vec<Copy>, trigger: Trigger, started: Timestamp) -> House {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(started.as_secs());
        let since = (trigger != Trigger::Start).then_some(since);
        House { copies, since, disk_floor_bytes: self.config.limits.disk_floor_bytes }
    }

    /// What is to be put in order after the cycle that was run, once.
    pub fn house(&mut self) -> Option<House> {
        self.house.take()
    }

    /// The local copy of `repository`.
    pub(super) fn copy(&self, repository: &catalog::Repository) -> Copy {
        let tips = || repository.state.iter().flat_map(|state| state.refs.values().copied()).collect();
        let lenders = repository.kin.iter().map(|relative| Lender {
            folder: self.folder(&relative.coordinate, &relative.folder),
            commits: relative.root.map_or_else(tips, |root| vec![root]),
        });
        let folder = self.folder(&repository.coordinate, &repository.folder);
        Copy { folder, lenders: lenders.collect() }
    }
}

impl House {
    /// Joins packs and drops what is stored twice. Leaves off at its next step when it is dropped.
    pub async fn keep(self) {
        let go_on = Arc::new(AtomicBool::new(true));
        let _leave = Leave(Arc::clone(&go_on));
        let Ok(()) = low_priority("housekeeping", move || {
            let go_on = || go_on.load(Ordering::Relaxed);
            let is_due = |copy: &&Copy| self.since.is_none_or(|since| has_changed(&copy.folder, since));
            for copy in self.copies.iter().filter(is_due) {
                if !go_on() {
                    break;
                }
                if let Err(error) = put_in_order(copy, self.disk_floor_bytes, &go_on) {
                    tracing::warn!(%error, "a local copy was not put in order");
                }
            }
            Ok::<_, Infallible>(())
        })
        .await;
    }
}

/// Whether packs have come (or gone) since then: one look at a folder, for there may be thousands.
fn has_changed(folder: &Path, since: SystemTime) -> bool {
    let packs = folder.join("objects").join("pack").metadata().and_then(|packs| packs.modified());
    packs.is_ok_and(|at| at >= since)
}

fn put_in_order(copy: &Copy, disk_floor_bytes: u64, go_on: &dyn Fn() -> bool) -> Result<(), GitError> {
    let Some(local) = Repository::open(&copy.folder)? else { return Ok(()) };
    find_lender(&local, copy);
    if let Some(done) = local.consolidate(disk_floor_bytes, go_on)? {
        let (packs, before_bytes, after_bytes) = (done.joined, done.before_bytes, done.after_bytes);
        tracing::info!(repository = %local.path().display(), packs, before_bytes, after_bytes, "joined packs");
    }
    Ok(())
}

/// Has `local` borrow from the first relative that it can borrow from.
fn find_lender(local: &Repository, copy: &Copy) {
    if copy.lenders.is_empty() || local.borrows().unwrap_or(true) {
        return;
    }
    for lender in &copy.lenders {
        let borrowed = Repository::open(&lender.folder).and_then(|base| match base {
            Some(base) => local.borrow_from(&base, &lender.commits),
            None => Ok(false),
        });
        match borrowed {
            Ok(true) => {
                let (repository, base) = (local.path().display(), lender.folder.display());
                tracing::info!(%repository, %base, "borrows objects");
                return;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "objects are not shared"),
        }
    }
}
