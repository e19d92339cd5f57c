//! The repositories: real source text out of cargo's registry as histories of many commits, or any that is given.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use grasp_mirror_testkit::{Noise, sources, tools};
use tempfile::TempDir;

/// Larger files are no source text.
const FILE_LIMIT: u64 = 1 << 20;
const MIB: u64 = 1 << 20;
/// How much noise is in one file.
const BLOB: u64 = 512 << 10;

/// How a generated repository is made.
#[derive(Debug, Hash)]
struct Shape {
    name: &'static str,
    /// At most so much text, before compression.
    text_bytes: u64,
    /// What is missing in the pack after that is noise, which does not compress.
    pack_bytes: u64,
    commits: u64,
    /// A tag each so many commits.
    tag_every: u64,
    /// A branch with a commit of its own each so many commits.
    branch_every: u64,
}

/// A bare repository in one pack.
pub struct Corpus {
    /// What it is called in the table.
    pub name: String,
    path: PathBuf,
    /// Heads and tags.
    pub refs: BTreeMap<String, String>,
    /// Length of its pack.
    pub pack_bytes: u64,
}

impl Corpus {
    /// A few megabytes, a hundred refs.
    pub async fn small(cache: &Path) -> Result<Self> {
        let shape = Shape {
            name: "small",
            text_bytes: 16 * MIB,
            pack_bytes: 0,
            commits: 48,
            tag_every: 1,
            branch_every: 1,
        };
        Self::generated(&shape, cache).await
    }

    /// At least sixty megabytes, a few refs.
    pub async fn large(cache: &Path, quick: bool) -> Result<Self> {
        let (text_bytes, pack_bytes) = if quick { (32 * MIB, 12 * MIB) } else { (256 * MIB, 62 * MIB) };
        let shape =
            Shape { name: "large", text_bytes, pack_bytes, commits: 24, tag_every: 6, branch_every: 8 };
        Self::generated(&shape, cache).await
    }

    /// Heads and tags of the repository at `path`, in one pack.
    pub async fn given(path: &Path, cache: &Path) -> Result<Self> {
        let from = fs::canonicalize(path).with_context(|| format!("no repository at {}", path.display()))?;
        let name = from.file_name().map_or("given".into(), |name| name.to_string_lossy().into_owned());
        let (folder, made) = (cache.join("given.git"), cache.join("given.new"));
        for old in [&folder, &made] {
            fs::remove_dir_all(old).ok();
        }
        fs::create_dir_all(cache)?;
        let mut git = tools::git(cache);
        git.args(["clone", "--quiet", "--bare", "--no-local"]).arg(&from).arg(&made);
        tools::must(git).await;
        fs::rename(made, &folder)?;
        Self::at(name, folder).await
    }

    /// From the cache, or made now.
    async fn generated(shape: &Shape, cache: &Path) -> Result<Self> {
        let texts = texts(shape.text_bytes);
        ensure!(!texts.is_empty(), "no sources in cargo's registry folder; give a repository with --repo");
        let mut hasher = DefaultHasher::new();
        (shape, &texts).hash(&mut hasher);
        let folder = cache.join(format!("{}-{:016x}.git", shape.name, hasher.finish()));
        if !folder.is_dir() {
            fs::create_dir_all(cache)?;
            let made = tempfile::Builder::new().prefix("new-").tempdir_in(cache)?;
            git(made.path(), &["init", "--quiet", "--bare", "--initial-branch=main"]).await;
            import(made.path(), |out| write_history(out, shape, &texts))?;
            git(made.path(), &["repack", "-a", "-d", "-f", "-q"]).await;
            let missing = shape.pack_bytes.saturating_sub(pack_bytes(made.path())?);
            if missing > 0 {
                import(made.path(), |out| write_noise(out, missing))?;
                git(made.path(), &["repack", "-a", "-d", "-q"]).await;
            }
            fs::rename(made.keep(), &folder)?;
        }
        Self::at(shape.name.to_owned(), folder).await
    }

    async fn at(name: String, path: PathBuf) -> Result<Self> {
        let list = ["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"];
        let refs: BTreeMap<String, String> = git(&path, &list)
            .await
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect();
        let pack_bytes = pack_bytes(&path)?;
        let mebibytes = pack_bytes as f64 / MIB as f64;
        let name = format!("{name} ({mebibytes:.1} MiB, {} refs)", refs.len());
        Ok(Self { name, path, refs, pack_bytes })
    }

    /// The folder; not to be written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy that may be changed.
    pub async fn copy(&self) -> Result<TempDir> {
        let copy = tempfile::tempdir_in(self.path.parent().context("no cache")?)?;
        let mut clone = tools::git(copy.path());
        clone.args(["clone", "--quiet", "--bare"]).arg(&self.path).arg(".");
        tools::must(clone).await;
        Ok(copy)
    }
}

/// One more commit on the branch `HEAD` names in the bare repository at `folder`: a new file.
pub async fn add_commit(folder: &Path) -> Result<()> {
    let branch = git(folder, &["symbolic-ref", "HEAD"]).await;
    let branch = branch.trim();
    import(folder, |out| {
        let parent = format!("{branch}^0");
        write_commit(out, branch, 1_000, "Say something new", None, Some(&parent))?;
        write_file(out, "NEWS.md", b"# Something new\n\nIt says so here.\n")
    })
}

async fn git(folder: &Path, args: &[&str]) -> String {
    let mut git = tools::git(folder);
    git.args(args);
    tools::must(git).await
}

/// Length of the only pack.
fn pack_bytes(folder: &Path) -> Result<u64> {
    let packs = fs::read_dir(folder.join("objects/pack"))?.flatten();
    let packs = packs.filter(|entry| entry.path().extension().is_some_and(|it| it == "pack"));
    Ok(packs.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum())
}

/// Text files, with their paths in the repository and their lengths, in a fixed order.
fn texts(limit: u64) -> Vec<(PathBuf, String, u64)> {
    let mut left = limit;
    let mut found = Vec::new();
    for path in sources() {
        let Some(length) = path.metadata().ok().map(|file| file.len()).filter(|len| *len <= FILE_LIMIT)
        else {
            continue;
        };
        let text = path.to_string_lossy();
        // Below `registry/src/<index>/`.
        let Some(name) = text.split("/registry/src/").nth(1).and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let name = name.1.to_owned();
        let Some(rest) = left.checked_sub(length) else { break };
        left = rest;
        found.push((path, name, length));
    }
    found
}

/// Lets `git fast-import` take what `write` writes.
fn import(folder: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut git = tools::git(folder);
    // A pack, however small: that is what a fetch brings.
    git.args(["-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"]);
    let mut child = git.stdin(Stdio::piped()).spawn()?;
    let mut out = BufWriter::with_capacity(1 << 20, child.stdin.take().context("no input")?);
    write(&mut out)?;
    out.flush()?;
    drop(out);
    let status = child.wait()?;
    ensure!(status.success(), "git fast-import ended with {status}");
    Ok(())
}

/// The trunk adds the texts in portions and, each time, changes some of what is there.
fn write_history(out: &mut dyn Write, shape: &Shape, texts: &[(PathBuf, String, u64)]) -> Result<()> {
    let portion = texts.len().div_ceil(usize::try_from(shape.commits)?).max(1);
    let mut before: &[(PathBuf, String, u64)] = &[];
    for (number, files) in (1..).zip(texts.chunks(portion)) {
        let parent = (number > 1).then(|| format!(":{}", number - 1));
        let message = format!("Add part {number}");
        write_commit(out, "refs/heads/main", number, &message, Some(number), parent.as_deref())?;
        for (path, name, _) in files {
            write_file(out, name, &fs::read(path)?)?;
        }
        for (path, name, _) in before.iter().step_by(16) {
            let mut changed = fs::read(path)?;
            writeln!(changed, "// Read again with part {number}.")?;
            write_file(out, name, &changed)?;
        }
        before = files;
        if number % shape.tag_every == 0 {
            writeln!(out, "reset refs/tags/v0.{number}\nfrom :{number}\n")?;
        }
        if number % shape.branch_every == 0 {
            let branch = format!("refs/heads/topic-{number}");
            write_commit(out, &branch, number, "Try something", None, Some(&format!(":{number}")))?;
            write_file(out, "topic.md", format!("# Topic {number}\n").as_bytes())?;
        }
    }
    Ok(())
}

fn write_noise(out: &mut dyn Write, bytes: u64) -> Result<()> {
    let mut noise = Noise::default();
    let trunk = "refs/heads/main";
    write_commit(out, trunk, 900, "Add what does not compress", None, Some("refs/heads/main^0"))?;
    for number in 0..bytes.div_ceil(BLOB) {
        write_file(out, &format!("noise/{number}.bin"), &noise.bytes(usize::try_from(BLOB)?))?;
    }
    Ok(())
}

/// The head of a commit. Format: `git-fast-import(1)`.
fn write_commit(
    out: &mut dyn Write,
    branch: &str,
    number: u64,
    message: &str,
    mark: Option<u64>,
    parent: Option<&str>,
) -> Result<()> {
    writeln!(out, "commit {branch}")?;
    if let Some(mark) = mark {
        writeln!(out, "mark :{mark}")?;
    }
    writeln!(out, "committer Ada <ada@example.org> {} +0000", 1_700_000_000 + number)?;
    writeln!(out, "data {}\n{message}", message.len())?;
    if let Some(parent) = parent {
        writeln!(out, "from {parent}")?;
    }
    Ok(())
}

fn write_file(out: &mut dyn Write, name: &str, content: &[u8]) -> Result<()> {
    writeln!(out, "M 100644 inline {name}\ndata {}", content.len())?;
    out.write_all(content)?;
    writeln!(out)?;
    Ok(())
}
