//! What nostr-sdk alone takes to say an event to relays and to hear it from them: of following a commit, what no
//! program that is built on it can save.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::future::join_all;
use grasp_mirror_testkit::{Line, Server, cpu, tools};
use nostr::{event::Event, filter::Filter};
use tokio::{runtime, task::spawn_blocking};

use crate::say;

/// Between two events, so that each comes as a commit does: to a program that has been doing nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Says events to relays that take them at once.
#[derive(Debug, clap::Args)]
pub struct Talk {
    /// One event in JSON a line, all of one author's
    events: PathBuf,
    relays: Vec<String>,
}

/// Prints for each event the CPU time in microseconds.
pub async fn talk(talk: Talk) -> Result<()> {
    // On one thread, as the daemon talks to relays.
    let alone = move || runtime::Builder::new_current_thread().enable_all().build()?.block_on(say_all(talk));
    spawn_blocking(alone).await?
}

async fn say_all(Talk { events, relays }: Talk) -> Result<()> {
    let events = fs::read_to_string(&events)?;
    let events: Vec<Event> = events.lines().map(Event::from_json).collect::<Result<_, _>>()?;
    let author = events.first().context("no events")?.pubkey;
    let lines = relays.iter().map(async |relay| {
        let mut line = Line::open(relay).await;
        line.listen(Filter::new().author(author)).await;
        line
    });
    let mut lines = join_all(lines).await;
    for event in &events {
        tokio::time::sleep(PAUSE).await;
        let before = cpu(process::id());
        let heard = lines.iter_mut().map(async |line| {
            line.send(event).await.expect_accepted();
            line.hear(event.id).await;
        });
        join_all(heard).await;
        println!("{}", (cpu(process::id()) - before).as_micros());
    }
    Ok(())
}

/// What it takes for each of `events`, at these servers: the one in the middle.
pub async fn measure(events: &[Event], servers: &[Server]) -> Result<Duration> {
    say("The same events, by nostr-sdk alone");
    let folder = tempfile::tempdir()?;
    let lines: Vec<String> = events.iter().map(Event::as_json).collect();
    let file = folder.path().join("events");
    fs::write(&file, lines.join("\n"))?;
    let mut command = Command::new(env::current_exe()?);
    command.arg("talk").arg(&file).args(servers.iter().map(Server::url));
    let printed = tools::must(command).await;
    let mut spent: Vec<u64> = printed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    spent.sort_unstable();
    Ok(Duration::from_micros(*spent.get(spent.len() / 2).context("no figures")?))
}
