//! Pushes to servers that only take, so that nothing but the client is measured.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use grasp_mirror_testkit::{Cost, Taken, tools};

use crate::{
    client::{self, Sinks},
    corpus::{Corpus, add_commit},
    cost, say,
    table::{Figure, Rows, Target},
};

/// How many servers a repository is pushed to.
pub const SERVERS: usize = 8;
const EVERYTHING: [&str; 2] = ["refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"];

/// `git push` of all heads and tags to one URL after the other.
pub async fn git_push(folder: &Path, urls: &[String]) -> Result<Cost> {
    let mut sum = Cost::default();
    for url in urls {
        let mut git = tools::git(folder);
        // The sink's certificate has signed itself; for http this says nothing.
        git.env("GIT_SSL_NO_VERIFY", "true").args(["push", "--quiet", url]).args(EVERYTHING);
        sum = cost::add(sum, cost::of(git).await?.0);
    }
    Ok(sum)
}

/// What git and our client cost for the same pushes, and what the servers took and sent.
struct Compared {
    git: Cost,
    git_taken: Taken,
    ours: Cost,
    ours_taken: Taken,
}

/// Both in turn, so that both have the same machine.
async fn compare(folder: &Path, urls: &[String], sinks: &mut Sinks, reps: usize) -> Result<Compared> {
    let (mut git, mut ours) = (Vec::new(), Vec::new());
    let (mut git_taken, mut ours_taken) = (Taken::default(), Taken::default());
    for _ in 0..reps {
        sinks.take()?;
        git.push(git_push(folder, urls).await?);
        git_taken = sinks.take()?;
        ours.push(client::cost(folder, sinks.certificate.as_deref(), urls).await?);
        ours_taken = sinks.take()?;
    }
    Ok(Compared { git: cost::median(git), git_taken, ours: cost::median(ours), ours_taken })
}

/// A repository that no server has.
pub async fn first(corpus: &Corpus, tls: bool, reps: usize, rows: &mut Rows) -> Result<()> {
    let scheme = if tls { "TLS" } else { "http" };
    let title = format!("first push to {SERVERS} servers, {scheme}: {}", corpus.name);
    say(&title);
    rows.title(&title);
    let folder = corpus.copy().await?;
    let files = tempfile::tempdir()?;
    let mut sinks = Sinks::start(SERVERS, &BTreeMap::new(), tls, files.path())?;
    let urls = sinks.empty.clone();
    let found = compare(folder.path(), &urls, &mut sinks, reps).await?;
    let mut one = Vec::new();
    for _ in 0..reps {
        one.push(
            client::cost(folder.path(), sinks.certificate.as_deref(), urls.get(..1).unwrap_or_default())
                .await?,
        );
    }
    let than = format!("git push, {SERVERS} times");
    let limit = if tls { Target::Ratio(1.0 / 8.0, "1/8") } else { Target::Ratio(0.1, "1/10") };
    rows.beside("client CPU", Figure::Time(found.ours.cpu), Figure::Time(found.git.cpu), &than, limit);
    if tls {
        return Ok(());
    }
    let others = u32::try_from(SERVERS - 1)?;
    let further = found.ours.cpu.saturating_sub(cost::median(one).cpu) / others;
    let allowed = Duration::from_secs_f64(corpus.pack_bytes as f64 / 1e6 * 1e-3 + 2e-3);
    rows.beside(
        "each further server (target: 1 ms a MB and 2 ms)",
        Figure::Time(further),
        Figure::Time(found.git.cpu / u32::try_from(SERVERS)?),
        "one git push",
        Target::Most(Figure::Time(allowed)),
    );
    rows.beside(
        "peak memory of the whole client",
        Figure::Memory(found.ours.peak_kib),
        Figure::Memory(found.git.peak_kib),
        "the largest process of one git push",
        Target::None,
    );
    let bytes = |taken: Taken| Figure::Bytes(taken.up_bytes);
    rows.beside("bytes sent", bytes(found.ours_taken), bytes(found.git_taken), &than, Target::None);
    let bytes = |taken: Taken| Figure::Bytes(taken.down_bytes);
    rows.beside("bytes received", bytes(found.ours_taken), bytes(found.git_taken), &than, Target::None);
    let requests = |taken: Taken| Figure::Count(taken.requests as f64);
    rows.beside("requests", requests(found.ours_taken), requests(found.git_taken), &than, Target::None);
    Ok(())
}

/// One commit that the servers lack.
pub async fn update(corpus: &Corpus, reps: usize, rows: &mut Rows) -> Result<()> {
    let title = format!("one commit to {SERVERS} servers, git alone, http: {}", corpus.name);
    say(&title);
    rows.title(&title);
    let folder = corpus.copy().await?;
    add_commit(folder.path()).await?;
    let files = tempfile::tempdir()?;
    let mut sinks = Sinks::start(SERVERS, &corpus.refs, false, files.path())?;
    let urls = sinks.behind.clone();
    let found = compare(folder.path(), &urls, &mut sinks, reps.max(3)).await?;
    let than = format!("git push, {SERVERS} times");
    let limit = Target::Ratio(1.0 / 20.0, "1/20");
    rows.beside("client CPU", Figure::Time(found.ours.cpu), Figure::Time(found.git.cpu), &than, limit);
    let bytes = |taken: Taken| Figure::Bytes(taken.up_bytes);
    rows.beside("bytes sent", bytes(found.ours_taken), bytes(found.git_taken), &than, Target::None);
    Ok(())
}
