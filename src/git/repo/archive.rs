//! Old tips, kept at `refs/archive/<unix seconds>/<heads|tags>/…`.

use std::collections::BTreeMap;

use super::{GitError, ObjectId, Repository};
use crate::model::refs::RefName;

/// An old tip that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// When it was replaced or deleted here, Unix seconds.
    pub at: u64,
    /// The branch or tag.
    pub name: RefName,
    /// What it pointed at.
    pub tip: ObjectId,
}

impl Repository {
    /// The old tips that are kept, the newest first.
    ///
    /// # Errors
    ///
    /// When the refs cannot be read.
    pub fn archived(&self) -> Result<Vec<Archived>, GitError> {
        let refs = self.direct_refs(&["refs/archive/*"])?;
        let archived = |(name, tip): (String, ObjectId)| {
            let (at, name) = parse(&name)?;
            Some(Archived { at, name, tip })
        };
        let mut found: Vec<Archived> = refs.into_iter().filter_map(archived).collect();
        found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.name.cmp(&b.name)));
        Ok(found)
    }

    /// Forgets the old tips that were archived before `before` (Unix seconds), and the changes logged before it.
    /// Returns how many tips that were. Their objects stay in the packs.
    ///
    /// # Errors
    ///
    /// When the refs cannot be read or changed.
    pub fn expire_archive(&self, before: u64) -> Result<usize, GitError> {
        let expired: BTreeMap<String, Option<ObjectId>> = self
            .archived()?
            .into_iter()
            .filter(|archived| archived.at < before)
            .map(|archived| (archive_name(archived.at, &archived.name), None))
            .collect();
        self.write_refs(&expired)?;
        self.shorten_log(before).map_err(self.io("shortening the log of changes"))?;
        Ok(expired.len())
    }
}

/// Where a tip of `name` is kept that was replaced at `at`.
pub(super) fn archive_name(at: u64, name: &RefName) -> String {
    let short = name.as_str().strip_prefix("refs/").unwrap_or(name.as_str());
    format!("refs/archive/{at}/{short}")
}

fn parse(name: &str) -> Option<(u64, RefName)> {
    let (at, short) = name.strip_prefix("refs/archive/")?.split_once('/')?;
    Some((at.parse().ok()?, format!("refs/{short}").parse().ok()?))
}
