//! What is kept of rewound and deleted refs, for how long, and where.

use std::path::{Path, PathBuf};

use grasp_mirror_commands::archive::Kept;
use nostr::prelude::Timestamp;

use super::{CycleError, world::World};
use crate::{
    config::Config,
    git::{GitError, Repository as LocalCopy},
    model::coordinate::{Coordinate, folder_name, npub},
    transfer::blocking,
};

/// The record of when the archives were last gone through.
const RECORD: &str = "archives";

/// How often that is done.
const EVERY_SECS: u64 = 24 * 3_600;

/// The folder of a repository's local copy; `None` for a name that makes none.
#[must_use]
pub fn local_copy(config: &Config, coordinate: &Coordinate) -> Option<PathBuf> {
    let folder = folder_name(&coordinate.identifier).ok()?;
    Some(config.bot.data_dir.join("git").join(npub(&coordinate.owner)).join(format!("{folder}.git")))
}

/// For how long old tips of a repository are kept, in seconds.
fn kept_for_secs(config: &Config, coordinate: &Coordinate) -> u64 {
    let days = config.policy.exception(coordinate).archive_days.unwrap_or(config.mirror.archive_days);
    u64::from(days) * 86_400
}

/// What is kept of a repository's old tips, the newest first.
///
/// # Errors
///
/// When the local copy cannot be read.
pub async fn old_tips(config: &Config, coordinate: &Coordinate) -> Result<Vec<Kept>, GitError> {
    let Some(folder) = local_copy(config, coordinate) else { return Ok(Vec::new()) };
    let archived = blocking(move || match LocalCopy::open(&folder)? {
        Some(copy) => copy.archived(),
        None => Ok(Vec::new()),
    });
    let for_secs = kept_for_secs(config, coordinate);
    let kept = archived.await?.into_iter().map(|archived| Kept {
        at: archived.at,
        name: archived.name.to_string(),
        tip: archived.tip.to_string(),
        until: archived.at.saturating_add(for_secs),
    });
    Ok(kept.collect())
}

impl World {
    /// Forgets old tips whose time is over, once a day. Their objects stay in the packs, with no ref that keeps them.
    pub(super) async fn expire_archives(
        &self,
        repositories: impl Iterator<Item = &Coordinate>,
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let last: Option<u64> = self.records.read(RECORD).await?;
        if last.is_some_and(|last| last.abs_diff(now.as_secs()) < EVERY_SECS) {
            return Ok(());
        }
        for coordinate in repositories {
            let Some(folder) = local_copy(&self.config, coordinate) else { continue };
            let before = now.as_secs().saturating_sub(kept_for_secs(&self.config, coordinate));
            match blocking(move || expire(&folder, before)).await {
                Ok(0) => {}
                Ok(refs) => {
                    tracing::info!(repository = %coordinate, refs, "old tips are not kept any longer");
                }
                Err(error) => {
                    tracing::warn!(repository = %coordinate, %error, "old tips could not be gone through");
                }
            }
        }
        Ok(self.records.write(RECORD, &now.as_secs()).await?)
    }
}

fn expire(folder: &Path, before: u64) -> Result<usize, GitError> {
    LocalCopy::open(folder)?.map_or(Ok(0), |copy| copy.expire_archive(before))
}
