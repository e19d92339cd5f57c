//! Looking at servers from outside, through real git and real subscriptions.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use nostr::{event::Event, filter::Filter};
use tempfile::TempDir;

use crate::{Address, tools, wire};

/// For how long whatever has to happen is waited for: far more than it takes on a busy machine, and far less than the hour
/// between two cycles, so that none is taken for the other.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether the server itself serves `event` right now.
pub async fn serves(server: impl Address, event: &Event) -> bool {
    !wire::fetch(server, Filter::new().id(event.id)).await.is_empty()
}

/// Everything `git ls-remote` prints: `HEAD`, heads, tags, peeled tags and `refs/nostr/…`. Empty when the
/// server does not have the repository.
pub async fn ls_remote(url: &str) -> BTreeMap<String, String> {
    let home = tempfile::tempdir().unwrap();
    let mut git = tools::git(home.path());
    git.args(["ls-remote", "--quiet", url]);
    let output = tools::run(git).await;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, name)| (name.to_owned(), id.to_owned()))
        .collect()
}

/// Heads and tags at a clone URL with the object each points at; empty when there is no repository.
pub async fn refs(url: &str) -> BTreeMap<String, String> {
    let mut refs = ls_remote(url).await;
    refs.retain(|name, _| {
        (name.starts_with("refs/heads/") || name.starts_with("refs/tags/")) && !name.ends_with("^{}")
    });
    refs
}

/// A clone made with real git, checked with `git fsck`.
#[derive(Debug)]
pub struct Clone {
    dir: TempDir,
}

impl Clone {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What `git` with these arguments prints here, trimmed.
    pub async fn git(&self, args: &[&str]) -> String {
        let mut git = tools::git(self.path());
        git.args(args);
        tools::must(git).await.trim().to_owned()
    }
}

/// A mirror clone of `url`, whole by `git fsck`.
///
/// # Panics
///
/// When it cannot be cloned or is not whole.
pub async fn clone(url: &str) -> Clone {
    let clone = Clone { dir: tempfile::tempdir().unwrap() };
    clone.git(&["clone", "--quiet", "--mirror", url, "."]).await;
    clone.git(&["fsck", "--full", "--strict"]).await;
    clone
}

/// Asks until the answer is yes.
///
/// # Panics
///
/// When it is still no after [`PATIENCE`]; `what` says what was waited for.
pub async fn wait_until(what: &str, yes: impl AsyncFnMut() -> bool) {
    wait_within(PATIENCE, what, yes).await;
}

/// The same for what may take longer.
///
/// # Panics
///
/// When it is still no after `limit`.
pub async fn wait_within(limit: Duration, what: &str, mut yes: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !yes().await {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
