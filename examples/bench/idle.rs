//! Nothing to do: many repositories on three real servers, all in sync, and the daemon that looks after them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use grasp_mirror_testkit::{Daemon, Mirror, Server, TestRelay, cpu, own_memory, rss, tools};

use crate::{
    Bench, cost,
    mirror::{cycles, wait_cycles, work_of},
    say,
    stage::{SERVERS, Stage},
    table::{Figure, Rows, Target},
};

/// So many mirrors are listed by git; the rest is reckoned.
const SAMPLE: usize = 120;
/// How long the daemon is watched doing nothing.
const WATCHED: Duration = Duration::from_secs(30);
/// Between cycles while they are measured.
const INTERVAL_SECS: i64 = 2;
/// For the first cycles, on a busy machine.
const COLD_WITHIN: Duration = Duration::from_secs(1_200);

/// The rows.
pub async fn measure(bench: &Bench, rows: &mut Rows) -> Result<()> {
    let repos = bench.args.repos;
    say(&format!("Publishing {repos} repositories on {SERVERS} servers"));
    let stage = Stage::set(repos).await?;
    let repos = stage.repos();
    let mirrors = repos * SERVERS;
    let relay = TestRelay::start().await;
    let mut mirror = Mirror::new(tools::bot()).uses(&relay).set("bot.cycle_interval_secs", INTERVAL_SECS);
    for server in &stage.servers {
        mirror = mirror.knows(server);
    }
    for author in &stage.authors {
        mirror = mirror.watches(author);
    }
    say("The first cycle takes local copies");
    let start = Instant::now();
    let mut daemon = mirror.daemon().await;
    let whole = format!("in_sync={mirrors} mirrors={mirrors} unfinished=false");
    loop {
        let done = cycles(&daemon);
        if wait_cycles(&mut daemon, done + 1).await?.contains(&whole) {
            break;
        }
        ensure!(start.elapsed() < COLD_WITHIN, "not all {mirrors} mirrors are in sync:\n{}", daemon.log());
    }
    say(&format!("It took {:.1} s", start.elapsed().as_secs_f64()));

    let title = format!("an idle cycle: {repos} repositories on {SERVERS} servers, all in sync");
    say(&title);
    rows.title(&title);
    let all: Vec<&Server> = stage.servers.iter().collect();
    let done = cycles(&daemon);
    wait_cycles(&mut daemon, done + 2).await?;
    let from = cycles(&daemon);
    stage.servers.iter().for_each(|server| server.proxy().reset());
    let (before, servers_before) = (cpu(daemon.pid()), work_of(&all));
    let wanted = if bench.args.quick { 1 } else { 5 };
    let line = wait_cycles(&mut daemon, from + wanted).await?;
    let (spent, servers_spent) = (cpu(daemon.pid()) - before, work_of(&all) - servers_before);
    let seen: Vec<_> = stage.servers.iter().map(|server| server.proxy().seen()).collect();
    ensure!(line.contains(&whole), "not all {mirrors} mirrors are in sync any more: {line}");
    let ran = u32::try_from(wanted)?;
    let wall = median_wall(&daemon, wanted).context("no elapsed_ms in the daemon's log")?;

    let urls = stage.urls();
    let sample = urls.len().min(SAMPLE);
    let step = urls.len() / sample;
    let folder = tempfile::tempdir()?;
    let (mut git, mut git_wall, servers_before) = (cost::median(Vec::new()), Duration::ZERO, work_of(&all));
    for url in urls.iter().step_by(step).take(sample) {
        let mut list = tools::git(folder.path());
        list.args(["ls-remote", "--quiet", url]);
        let (one, took) = cost::of(list).await?;
        git = cost::add(git, one);
        git_wall += took;
    }
    let servers_git = work_of(&all) - servers_before;
    let scale = mirrors as f64 / sample as f64;
    let than = "git ls-remote of each mirror";
    if sample < mirrors {
        rows.note(format!("git ls-remote was run for {sample} of {mirrors} mirrors, times {scale:.1}"));
    }
    let each_cycle = |time: Duration| Figure::Time(time / ran);
    let scaled = |time: Duration| Figure::Time(time.mul_f64(scale));
    rows.beside("client CPU", each_cycle(spent), scaled(git.cpu), than, Target::Ratio(1.0 / 500.0, "1/500"));
    let limit = Target::Ratio(1.0 / 100.0, "1/100");
    rows.beside(
        "the servers' CPU, in steps of 10 ms",
        each_cycle(servers_spent),
        scaled(servers_git),
        than,
        limit,
    );
    let limit = Target::Most(Figure::Time(Duration::from_millis(50)));
    rows.beside(
        "wall time (target: for 2,000 repositories)",
        Figure::Time(wall),
        scaled(git_wall),
        than,
        limit,
    );
    let average = |total: u64| total / (SERVERS * wanted) as u64;
    let bytes = average(seen.iter().map(|seen| seen.up_bytes + seen.down_bytes).sum());
    rows.alone("bytes to and from each server", Figure::Bytes(bytes), Target::Most(Figure::Bytes(4096)));
    let messages: u64 =
        seen.iter().map(|seen| seen.requests.values().sum::<u64>() + seen.messages.len() as u64).sum();
    let messages = messages as f64 / (SERVERS * wanted) as f64;
    rows.beside(
        "requests and Nostr messages to each server",
        Figure::Count(messages),
        Figure::Count(repos as f64),
        "requests of git ls-remote, at least",
        Target::None,
    );
    let nothing = |part: &str| seen.iter().map(|seen| seen.count("GET", part)).sum::<u64>() as f64;
    rows.alone(
        "of these, refs listed over HTTP, all cycles",
        Figure::Count(nothing("info/refs")),
        Target::None,
    );

    rest(bench, mirror, &mut daemon, repos, rows).await?;
    daemon.stop().await;
    Ok(())
}

/// How long the last `count` cycles took, the median.
fn median_wall(daemon: &Daemon, count: usize) -> Option<Duration> {
    let log = daemon.log();
    let took = log.lines().rev().filter_map(|line| line.split("elapsed_ms=").nth(1));
    let mut took: Vec<u64> =
        took.take(count).filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied().map(Duration::from_millis)
}

/// Between two cycles.
async fn rest(
    bench: &Bench,
    mirror: Mirror,
    daemon: &mut Daemon,
    repos: usize,
    rows: &mut Rows,
) -> Result<()> {
    let title = format!("the daemon between cycles, watching {repos} repositories");
    say(&title);
    rows.title(&title);
    mirror.set("bot.cycle_interval_secs", 86_400).write_config();
    daemon.reload();
    daemon.wait_log("configuration was read again").await;
    daemon.wait_idle().await;
    let watched = if bench.args.quick { WATCHED / 6 } else { WATCHED };
    let before = cpu(daemon.pid());
    tokio::time::sleep(watched).await;
    let part = (cpu(daemon.pid()) - before).div_duration_f64(watched);
    rows.alone(
        &format!("CPU over {} s", watched.as_secs()),
        Figure::Core(part),
        Target::Most(Figure::Core(0.005)),
    );
    let kib = rss(daemon.pid()).context("the daemon is gone")?;
    let limit = Target::Most(Figure::Memory(80_000_000 >> 10));
    rows.alone("memory (target: for 2,000 repositories)", Figure::Memory(kib), limit);
    let own = own_memory(daemon.pid()).context("the daemon is gone")?;
    rows.alone("of this its own: without the mapped database and program", Figure::Memory(own), Target::None);
    Ok(())
}
