//! A maintainer's own repository on disk, made with the real `git`.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::tools;

/// A work repository. Same steps, same commits: authors and dates are fixed.
#[derive(Debug)]
pub struct Work {
    dir: TempDir,
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl Work {
    /// A repository on `main` without a commit.
    ///
    /// # Panics
    ///
    /// As every method here: when `git` fails.
    #[must_use]
    pub fn empty() -> Self {
        let work = Self { dir: tempfile::tempdir().unwrap() };
        work.git(&["init", "--quiet", "--initial-branch=main"]);
        work.git(&["config", "gc.auto", "0"]);
        work
    }

    /// A repository with one commit on `main`.
    #[must_use]
    pub fn new() -> Self {
        let work = Self::empty();
        work.commit("README.md", "# hello\n");
        work
    }

    /// A repository with the heads and tags of a bare one, and its files.
    #[must_use]
    pub fn clone_of(bare: &Path) -> Self {
        let work = Self { dir: tempfile::tempdir().unwrap() };
        work.git(&["clone", "--quiet", "--bare", &bare.display().to_string(), ".git"]);
        work.git(&["config", "core.bare", "false"]);
        work.git(&["config", "gc.auto", "0"]);
        work.git(&["reset", "--quiet", "--hard"]);
        work
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A `git` command in this repository.
    #[must_use]
    pub fn command(&self) -> Command {
        tools::git(self.path())
    }

    /// Runs `git` here and returns what it printed, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().expect("git runs");
        assert!(
            output.status.success(),
            "git {args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes `file` and commits it on the current branch; returns the commit.
    pub fn commit(&self, file: &str, content: &str) -> String {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", &format!("Write {file}")]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Makes `name` at the current commit and goes there.
    pub fn branch(&self, name: &str) {
        self.git(&["checkout", "--quiet", "-b", name]);
    }

    /// Goes to an existing branch.
    pub fn switch(&self, name: &str) {
        self.git(&["checkout", "--quiet", name]);
    }

    /// Forgets a branch.
    pub fn delete_branch(&self, name: &str) {
        self.git(&["branch", "--quiet", "-D", name]);
    }

    /// A lightweight tag here.
    pub fn tag(&self, name: &str) {
        self.git(&["tag", name]);
    }

    /// An annotated tag here.
    pub fn annotated_tag(&self, name: &str) {
        self.git(&["tag", "-a", "-m", name, name]);
    }

    /// Takes the current branch `commits` back.
    pub fn rewind(&self, commits: usize) {
        self.git(&["reset", "--quiet", "--hard", &format!("HEAD~{commits}")]);
    }

    /// The commit a name stands for.
    #[must_use]
    pub fn rev(&self, name: &str) -> String {
        self.git(&["rev-parse", name])
    }

    /// Heads and tags with the object each points at.
    #[must_use]
    pub fn refs(&self) -> BTreeMap<String, String> {
        self.git(&["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"])
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    }

    /// `refs/tags/x^{}` with the commit, for each annotated tag.
    #[must_use]
    pub fn peeled(&self) -> BTreeMap<String, String> {
        self.git(&["for-each-ref", "--format=%(refname) %(*objectname)", "refs/tags"])
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(_, id)| !id.is_empty())
            .map(|(name, id)| (format!("{name}^{{}}"), id.to_owned()))
            .collect()
    }

    /// The branch `HEAD` names.
    #[must_use]
    pub fn head(&self) -> String {
        self.git(&["symbolic-ref", "HEAD"])
    }

    /// Makes heads and tags at `url` exactly those here, in one push. Returns git's own words.
    ///
    /// # Errors
    ///
    /// What git printed when the server said no.
    pub async fn push_all(&self, url: &str) -> Result<String, String> {
        let mut push = self.command();
        push.args([
            "push",
            "--prune",
            "--force",
            url,
            "refs/heads/*:refs/heads/*",
            "refs/tags/*:refs/tags/*",
        ]);
        said(push).await
    }

    /// Pushes one refspec.
    ///
    /// # Errors
    ///
    /// What git printed when the server said no.
    pub async fn push(&self, url: &str, refspec: &str) -> Result<String, String> {
        let mut push = self.command();
        push.args(["push", "--force", url, refspec]);
        said(push).await
    }
}

async fn said(command: Command) -> Result<String, String> {
    let output = tools::run(command).await;
    let words =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(words) } else { Err(words) }
}
