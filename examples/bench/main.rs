//! What mirroring costs, each figure beside the real git's for the same work in the same run, and beside the target.
//!
//! `./scripts/bench` builds and runs it; `--help` lists the rows. Everything measured is a process of its own: git and
//! our client are started through this program (`cost`, `client`), against servers that only take (`sink`), or it is
//! the real daemon among real servers.

mod client;
mod corpus;
mod cost;
mod idle;
mod live;
mod mirror;
mod push;
mod sdk;
mod stage;
mod start;
mod table;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use grasp_mirror_testkit::stopped;

use crate::{corpus::Corpus, table::Rows};

/// As in the program.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The groups of rows, in the order in which they run.
const GROUPS: [&str; 8] = ["push", "tls", "update", "mirror", "mirror-large", "live", "idle", "start"];

/// Those that need no repository of their own making.
const WITHOUT_CORPUS: [&str; 3] = ["live", "idle", "start"];

/// Measures what mirroring costs and prints one table. Takes about ten minutes on two cores.
#[derive(Debug, Parser)]
#[command(bin_name = "scripts/bench")]
struct Args {
    /// Measure with this git repository instead of the large one made from cargo's sources
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// How many repositories the daemon watches in the idle rows
    #[arg(long, value_name = "N", default_value_t = 200)]
    repos: usize,
    /// How many servers the large repository is mirrored to in mirror-large
    #[arg(long, value_name = "N", default_value_t = 8)]
    servers: usize,
    /// Smaller repositories and fewer repetitions: to see whether it works
    #[arg(long)]
    quick: bool,
    /// Only these groups of rows: push, tls, update, mirror, mirror-large, live, idle, start
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program runs itself as.
#[derive(Debug, Subcommand)]
enum Part {
    /// Runs a command and prints what it cost
    #[command(hide = true)]
    Cost {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Pushes a repository with our client, and prints what that cost
    #[command(hide = true)]
    Client(client::Push),
    /// Says events to relays with nostr-sdk alone, and prints what that cost
    #[command(hide = true)]
    Talk(sdk::Talk),
    /// Serves until its input ends
    #[command(hide = true)]
    Sink(client::Serve),
}

/// How everything is measured.
struct Bench {
    args: Args,
    /// What is made once and kept, below `target/`.
    cache: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Both ways out of here drop the servers and their folders.
    let done = tokio::select! {
        done = run(args) => done,
        () = stopped() => Err(anyhow::anyhow!("stopped; servers and temporary folders are gone")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: Args) -> Result<()> {
    match args.part.take() {
        Some(Part::Cost { command }) => cost::print(&command),
        Some(Part::Client(push)) => client::push(&push).await,
        Some(Part::Talk(talk)) => sdk::talk(talk).await,
        Some(Part::Sink(serve)) => client::serve(serve).await,
        None => {
            for name in &args.rows {
                ensure!(GROUPS.contains(&name.as_str()), "no rows are called {name}; there are: {GROUPS:?}");
            }
            let example = env::current_exe()?;
            let target = example.ancestors().nth(3).context("not built by cargo")?;
            measure(&Bench { cache: target.join("bench"), args }).await
        }
    }
}

/// Says on standard error what goes on.
fn say(what: &str) {
    eprintln!("==> {what}");
}

async fn measure(bench: &Bench) -> Result<()> {
    let mut rows = Rows::default();
    let wanted = |name: &str| bench.args.rows.is_empty() || bench.args.rows.iter().any(|row| row == name);
    if GROUPS.iter().any(|group| !WITHOUT_CORPUS.contains(group) && wanted(group)) {
        say("Making the repositories");
        let small = Corpus::small(&bench.cache).await?;
        let large = match &bench.args.repo {
            Some(path) => Corpus::given(path, &bench.cache).await?,
            None => Corpus::large(&bench.cache, bench.args.quick).await?,
        };
        for corpus in [&large, &small] {
            if wanted("push") {
                push::first(corpus, false, bench.reps(), &mut rows).await?;
            }
            if wanted("tls") {
                push::first(corpus, true, bench.reps(), &mut rows).await?;
            }
            if wanted("update") {
                push::update(corpus, bench.reps(), &mut rows).await?;
            }
        }
        if wanted("mirror") {
            let servers = if bench.args.quick { 2 } else { push::SERVERS };
            mirror::measure(&small, servers, &mut rows).await?;
        }
        if wanted("mirror-large") {
            mirror::measure(&large, bench.args.servers, &mut rows).await?;
        }
    }
    if wanted("live") {
        live::measure(&mut rows).await?;
    }
    if wanted("idle") {
        idle::measure(bench, &mut rows).await?;
    }
    if wanted("start") {
        start::measure(&mut rows).await?;
    }
    println!("\n{rows}");
    Ok(())
}

impl Bench {
    /// How often what takes seconds is measured; the median counts.
    fn reps(&self) -> usize {
        if self.args.quick { 1 } else { 3 }
    }
}
