//! From a state that one server has seen to the last server that serves it, without a cycle in between.

use std::time::{Duration, Instant};

use anyhow::Result;
use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

use crate::{
    say,
    table::{Figure, Rows, Target},
};

/// Servers that the owner never pushes to.
const SERVERS: usize = 4;
/// How often it is measured; the median counts.
const TIMES: usize = 9;
/// What is allowed on top of the servers' own time.
const ALLOWED: Duration = Duration::from_millis(150);

/// A small change, followed by the daemon.
pub async fn measure(rows: &mut Rows) -> Result<()> {
    let title = format!("live: one commit, to {SERVERS} more real servers");
    say(&title);
    rows.title(&title);
    let (relay, source) = tokio::join!(TestRelay::start(), Server::start());
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(Server::start().await);
    }
    let owner = Owner::new("measured");
    owner.publish(owner.announcement().at(&source), &source).await;
    let mut mirror = Mirror::new(tools::bot()).knows(&source).uses(&relay).watches(&owner);
    for server in &servers {
        mirror = mirror.knows(server);
    }
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.wait_idle().await;
    let (mut own, mut followed) = (Vec::new(), Vec::new());
    for number in 0..TIMES {
        owner.work.commit("README.md", &format!("# change {number}\n"));
        let start = Instant::now();
        let state = owner.update(&source).await;
        own.push(start.elapsed());
        let start = Instant::now();
        for server in &servers {
            look::wait_until("the state is served", async || look::serves(server, &state).await).await;
        }
        followed.push(start.elapsed());
    }
    let [own, followed] = [own, followed].map(|mut times| {
        times.sort_unstable();
        times.get(TIMES / 2).copied().unwrap_or_default()
    });
    rows.beside(
        "wall, first server to last, median",
        Figure::Time(followed),
        Figure::Time(own),
        "the owner's own push to one server",
        Target::Most(Figure::Time(own + ALLOWED)),
    );
    Ok(())
}
