//! The program by itself: how large it is, and how long until it has answered, beside `git --version`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, tools};

use crate::{
    say,
    table::{Figure, Rows, Target},
};

/// How often each is started; the median counts.
const TIMES: usize = 41;

/// The rows.
pub async fn measure(rows: &mut Rows) -> Result<()> {
    let title = "start: from exec to the end of the answer, median";
    say(title);
    rows.title(title);
    let (relay, server) = tokio::join!(TestRelay::start(), Server::start());
    let owner = Owner::new("measured");
    owner.publish(owner.announcement().at(&server), &server).await;
    let mirror = Mirror::new(tools::bot()).knows(&server).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);

    let git = || {
        let mut git = tools::git(mirror.home());
        git.arg("--version");
        git
    };
    let version = || {
        let mut version = Command::new(tools::bot());
        version.arg("--version");
        version
    };
    let [git, version, status] =
        [median(&git).await, median(&version).await, median(&|| mirror.command(&["status"])).await];
    let than = "git --version";
    rows.beside("--version", Figure::Time(version), Figure::Time(git), than, Target::None);
    rows.beside(
        "status, of a data folder that is there",
        Figure::Time(status),
        Figure::Time(git),
        than,
        Target::None,
    );
    let size = std::fs::metadata(tools::bot())?.len();
    rows.alone("size of the program", Figure::Bytes(size), Target::None);
    Ok(())
}

async fn median(command: &impl Fn() -> Command) -> Duration {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let command = command();
        let start = Instant::now();
        tools::must(command).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times.get(TIMES / 2).copied().unwrap_or_default()
}
