//! What nostr-sdk alone takes to say an event to relays and to hear it from them: of following a commit, what no
//! program that is built on it can save.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{StreamExt, future::try_join_all};
use grasp_mirror_testkit::{Server, cpu, tools};
use nostr::prelude::{Event, EventId, Filter, RelayMessage, RelayUrl};
use nostr_sdk::relay::{Relay, RelayNotification};
use tokio::{runtime, task::spawn_blocking, time::timeout};

use crate::say;

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two events, so that each comes as a commit does: to a program that has been doing nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Says events to relays that take them at once.
#[derive(Debug, clap::Args)]
pub struct Talk {
    /// One event in JSON a line, all of one author's
    events: PathBuf,
    relays: Vec<RelayUrl>,
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
    let connected = try_join_all(relays.into_iter().map(async |url| {
        let relay = Relay::builder(url).build();
        relay.try_connect().timeout(PATIENCE).await?;
        relay.subscribe(Filter::new().author(author).limit(0)).await?;
        anyhow::Ok(relay)
    }));
    let relays = connected.await?;
    for event in &events {
        tokio::time::sleep(PAUSE).await;
        let before = cpu(process::id());
        try_join_all(relays.iter().map(|relay| say_and_hear(relay, event))).await?;
        println!("{}", (cpu(process::id()) - before).as_micros());
    }
    Ok(())
}

async fn say_and_hear(relay: &Relay, event: &Event) -> Result<()> {
    let mut notices = relay.notifications();
    let is_it = |message: &RelayMessage<'_>, id: EventId| matches!(message, RelayMessage::Event { event, .. } if event.id == id);
    let heard = async {
        while let Some(notice) = notices.next().await {
            if matches!(notice, RelayNotification::Message { message } if is_it(&message, event.id)) {
                return Ok(());
            }
        }
        anyhow::bail!("{} is gone", relay.url())
    };
    let said = async { anyhow::Ok(relay.send_event(event).ok_timeout(PATIENCE).await.map(drop)?) };
    timeout(PATIENCE, async { tokio::try_join!(said, heard) }).await??;
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
