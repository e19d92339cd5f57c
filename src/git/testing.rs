//! Repositories made with real git, for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::model::refs::{ObjectId, Refs};

/// A repository with a work tree that git itself writes to.
pub(crate) struct Source {
    pub(super) dir: TempDir,
    seed: u64,
}

/// Runs git and returns what it prints; panics with its complaint when it fails.
pub(crate) fn git(dir: &Path, args: &[&str], stdin: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "c"),
            ("GIT_COMMITTER_EMAIL", "c@example.com"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut input = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

pub(crate) fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(git(dir, args, b"")).unwrap().trim().to_owned()
}

pub(crate) fn bare() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q", "--bare"], b"");
    dir
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "-b", "main"], b"");
        Self { dir, seed: seed.wrapping_mul(2_654_435_769).wrapping_add(12_345) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        text(self.path(), args)
    }

    pub(crate) fn id(&self, rev: &str) -> ObjectId {
        self.git(&["rev-parse", rev]).parse().unwrap()
    }

    /// A commit that changes some of a few files, adds one, moves one now and then.
    pub(crate) fn commit(&mut self) -> ObjectId {
        for _ in 0..=self.random(3) {
            let (dir, file) = (self.random(3), self.random(4));
            let file = self.path().join(format!("dir{dir}/sub/file{file}"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let mut content = fs::read_to_string(&file).unwrap_or_default();
            for _ in 0..(20 + self.random(60)) {
                content.push_str(&format!("line {}\n", self.random(1 << 40)));
            }
            fs::write(&file, content).unwrap();
        }
        if self.random(4) == 0 {
            let to = format!("moved{}", self.random(3));
            let to = self.path().join(to);
            let _ = fs::rename(self.path().join("dir0"), to);
        }
        self.git(&["add", "-A"]);
        let message = format!("c{}", self.random(1 << 40));
        self.git(&["commit", "-q", "--allow-empty", "-m", &message]);
        self.id("HEAD")
    }

    /// Several commits, now and then a side branch merged back, an annotated tag.
    pub(crate) fn grow(&mut self, commits: u64) {
        for number in 0..commits {
            self.commit();
            if self.random(5) == 0 {
                let side = format!("side{}", self.random(1 << 40));
                self.git(&["checkout", "-q", "-b", &side]);
                self.commit();
                self.git(&["checkout", "-q", "main"]);
                self.commit();
                self.git(&["merge", "-q", "-s", "ours", "--no-edit", &side]);
            }
            if self.random(4) == 0 {
                self.git(&["tag", "-a", "-m", "t", &format!("v{}-{number}", self.seed)]);
            }
        }
    }

    pub(crate) fn refs(&self) -> Refs {
        refs_of(self.path())
    }

    /// A pack of what `wants` need beyond `haves`, as a server would send it.
    pub(crate) fn pack(&self, wants: &[ObjectId], haves: &[ObjectId], args: &[&str], to: &Path) -> PathBuf {
        let mut revs: String = wants.iter().map(|id| format!("{id}\n")).collect();
        revs.extend(haves.iter().map(|id| format!("^{id}\n")));
        let mut all = vec!["pack-objects", "--revs", "--stdout", "-q"];
        all.extend(args);
        let bytes = git(self.path(), &all, revs.as_bytes());
        fs::create_dir_all(to).unwrap();
        let (mut file, path) = tempfile::NamedTempFile::new_in(to).unwrap().keep().unwrap();
        file.write_all(&bytes).unwrap();
        path
    }
}

pub(crate) fn refs_of(dir: &Path) -> Refs {
    text(dir, &["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"])
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, id)| (name.parse().unwrap(), id.parse().unwrap()))
        .collect()
}

pub(crate) fn tips(refs: &Refs) -> Vec<ObjectId> {
    refs.values().copied().collect()
}

/// Sets `refs` in the bare repository `dir` and has git check everything they reach.
pub(crate) fn check(dir: &Path, refs: &Refs) {
    for (name, id) in refs {
        git(dir, &["update-ref", name.as_str(), &id.to_string()], b"");
    }
    git(dir, &["fsck", "--full", "--strict", "--no-dangling", "--connectivity-only"], b"");
    git(dir, &["fsck", "--full", "--no-dangling"], b"");
}
