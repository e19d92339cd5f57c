//! The real daemon among real servers: a repository's first mirror, then small changes to it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use grasp_mirror_testkit::{
    Announcement, Cost, Daemon, Line, Mirror, Owner, Person, Protocol, Server, TestRelay, Work, cpu, look,
    peak_rss, tools,
};
use nostr::{event::Event, filter::Filter};

use crate::{
    corpus::Corpus,
    cost,
    push::git_push,
    say, sdk,
    table::{Figure, Rows, Target},
};

/// On a busy machine.
const DONE_WITHIN: Duration = Duration::from_secs(600);
/// Packs up to this size have the sharper limit for wall time.
const LARGE_PACK: u64 = 50_000_000;
/// Commits that are followed one after the other.
const COMMITS: usize = 3;
const CYCLE_DONE: &str = "cycle done";

/// Mirrors `corpus` from one server to `count` others.
pub async fn measure(corpus: &Corpus, count: usize, rows: &mut Rows) -> Result<()> {
    let title = format!("fetch, and push to {count} real servers: {}", corpus.name);
    say(&title);
    rows.title(&title);
    let relay = TestRelay::start().await;
    let source = Server::start().await;
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::builder().behind_proxy().start().await);
    }
    let mut owner = Owner::new("measured").at_home_on(&relay);
    owner.work = Work::clone_of(corpus.path());
    let state = owner.publish(owner.announcement().at(&source), &source).await.state;

    let mut mirror =
        Mirror::new(tools::bot()).knows(&source).uses(&relay).set("bot.cycle_interval_secs", 3600);
    for server in &servers {
        mirror = mirror.knows(server);
    }
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    let mut daemon = mirror.daemon().await;
    daemon.wait_log(CYCLE_DONE).await;
    daemon.wait_idle().await;
    let rss = daemon.rss_kib();
    let all: Vec<&Server> = servers.iter().chain([&source]).collect();
    let (before, servers_before, start) = (cpu(daemon.pid()), work_of(&all), Instant::now());
    ada.ask(Protocol::Nip17, &format!("watch {}", owner.npub())).await;
    wait_served(&servers, &state).await;
    let (wall, in_sync) = (start.elapsed(), cpu(daemon.pid()) - before);
    let servers_cpu = work_of(&all) - servers_before;
    let peak = peak_rss(daemon.pid()).context("the daemon is gone")?.saturating_sub(rss);
    wait_cycles(&mut daemon, 2).await?;
    daemon.wait_idle().await;
    let (whole, whole_peak) = (cpu(daemon.pid()) - before, peak_rss(daemon.pid()).unwrap_or_default());

    let folder = tempfile::tempdir()?;
    let mut clone = tools::git(folder.path());
    clone.args(["clone", "--quiet", "--bare", &owner.url_at(&source), "cloned.git"]);
    let (clone, _) = cost::of(clone).await?;
    let by_hand = ByHand::start(count).await;
    let pushes = by_hand.push(&owner.work).await?;
    let than = format!("git clone --bare and git push, {count} times");
    let limit = Target::Ratio(0.1, "1/10");
    rows.beside(
        "client CPU until all are in sync",
        Figure::Time(in_sync),
        Figure::Time(clone.cpu + pushes.cpu),
        &than,
        limit,
    );
    rows.beside(
        "client CPU until the local copy is indexed, too",
        Figure::Time(whole),
        Figure::Time(clone.cpu),
        "git clone --bare",
        Target::Ratio(1.3, "1.3"),
    );
    rows.beside(
        "peak memory over the idle daemon's, until all are in sync",
        Figure::Memory(peak),
        Figure::Memory(clone.peak_kib.max(pushes.peak_kib)),
        "the largest process of git",
        Target::Most(Figure::Memory(16 << 10)),
    );
    rows.alone(
        "… until the local copy is indexed, too",
        Figure::Memory(whole_peak.saturating_sub(rss)),
        Target::None,
    );
    let cores = u32::try_from(thread::available_parallelism()?.get())?;
    let limit =
        if corpus.pack_bytes > LARGE_PACK { Target::Ratio(1.2, "1.2") } else { Target::Ratio(1.1, "1.1") };
    rows.beside(
        "wall time from the command to all in sync",
        Figure::Time(wall),
        Figure::Time(servers_cpu / cores),
        &format!("the servers' CPU on {cores} cores"),
        limit,
    );
    let sent: u64 = servers.iter().map(|server| server.proxy().seen().up_bytes).sum();
    rows.alone("bytes sent to them", Figure::Bytes(sent), Target::None);
    let git = changes(&daemon, &owner, &source, &servers, &by_hand, corpus, rows).await?;
    daemon.stop().await;
    let states: Vec<Event> = (0..COMMITS).map(|_| owner.state()).collect();
    rows.beside(
        "one commit: its state said to all and heard from all, by nostr-sdk alone",
        Figure::Time(sdk::measure(&states, &servers).await?),
        Figure::Time(git),
        &format!("git push, {count} times"),
        Target::None,
    );
    Ok(())
}

/// One commit, and then a branch on a commit that is there, as the daemon follows them. Returns what the commit costs git.
async fn changes(
    daemon: &Daemon,
    owner: &Owner,
    source: &Server,
    servers: &[Server],
    by_hand: &ByHand,
    corpus: &Corpus,
    rows: &mut Rows,
) -> Result<Duration> {
    let count = servers.len();
    let title = format!("a small change to {count} real servers, as it is followed: {}", corpus.name);
    say(&title);
    rows.title(&title);
    // The first one opens connections that the next ones use.
    let (mut followed, mut pushed) = (Vec::new(), Vec::new());
    for news in 1..=COMMITS {
        owner.work.commit("NEWS.md", &format!("# Something new, {news}\n"));
        followed.push(follow(daemon, owner, source, servers).await?);
        pushed.push(by_hand.push(&owner.work).await?);
    }
    followed.sort_unstable();
    let (spent, pushes) = followed.get(COMMITS / 2).copied().unwrap_or_default();
    let git = cost::median(pushed).cpu;
    let than = format!("git push, {count} times");
    let limit = Target::Ratio(1.0 / 20.0, "1/20");
    rows.beside("one commit: client CPU", Figure::Time(spent), Figure::Time(git), &than, limit);
    rows.alone("one commit: pushes", Figure::Count(pushes as f64), Target::Most(Figure::Count(count as f64)));

    owner.work.git(&["branch", "bench-again", "HEAD~1"]);
    let (spent, pushes) = follow(daemon, owner, source, servers).await?;
    let by_git = by_hand.push(&owner.work).await?;
    rows.beside(
        "a branch on a known commit: client CPU",
        Figure::Time(spent),
        Figure::Time(by_git.cpu),
        &than,
        limit,
    );
    rows.alone(
        "a branch on a known commit: pushes",
        Figure::Count(pushes as f64),
        Target::Most(Figure::Count(0.0)),
    );
    Ok(git)
}

/// A maintainer who does by hand what the daemon does, with `git push` to as many real servers. They work while git waits
/// for them, as they do while the daemon does: beside busy processors a client takes more CPU time for the same work.
struct ByHand {
    /// Each with a repository that is listed nowhere else: servers fetch from each other what they are to have.
    homes: Vec<(Person, Server)>,
}

impl ByHand {
    const NAME: &str = "measured";

    async fn start(count: usize) -> Self {
        let mut homes = Vec::new();
        for _ in 0..count {
            let (person, server) = (Person::new(), Server::start().await);
            let listed = Announcement::new(person.public_key(), Self::NAME).at(&server);
            server.send(&person.sign_announcement(listed)).await.expect_accepted();
            homes.push((person, server));
        }
        Self { homes }
    }

    /// Brings all servers to what is in `work`, one after the other.
    async fn push(&self, work: &Work) -> Result<Cost> {
        let mut urls = Vec::new();
        for (person, server) in &self.homes {
            server.send(&person.sign_state(Self::NAME, work)).await.expect_accepted();
            urls.push(server.repo_url(&person.public_key(), Self::NAME));
        }
        git_push(work.path(), &urls).await
    }
}

/// Publishes what the owner has now, and lets the daemon follow: its CPU until it is idle again, and its pushes.
async fn follow(
    daemon: &Daemon,
    owner: &Owner,
    source: &Server,
    servers: &[Server],
) -> Result<(Duration, u64)> {
    servers.iter().for_each(|server| server.proxy().reset());
    let before = cpu(daemon.pid());
    let state = owner.update(source).await;
    wait_served(servers, &state).await;
    daemon.wait_idle().await;
    let spent = cpu(daemon.pid()) - before;
    let pushes = servers.iter().map(|server| server.proxy().seen().count("POST", "git-receive-pack")).sum();
    for server in servers {
        ensure!(look::serves(server, &state).await, "{} does not serve the new state", server.url());
    }
    Ok((spent, pushes))
}

/// CPU time of servers so far, with the git processes they started.
pub fn work_of(servers: &[&Server]) -> Duration {
    servers.iter().map(|server| server.cpu()).sum()
}

/// How many cycles have come to their end.
pub fn cycles(daemon: &Daemon) -> usize {
    daemon.log().matches(CYCLE_DONE).count()
}

/// Waits until so many cycles have come to their end; returns the last line about one.
pub async fn wait_cycles(daemon: &mut Daemon, wanted: usize) -> Result<String> {
    let start = Instant::now();
    while cycles(daemon) < wanted {
        ensure!(daemon.is_running(), "the daemon has ended:\n{}", daemon.log());
        ensure!(start.elapsed() < DONE_WITHIN * 3, "no end of cycle {wanted}:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = daemon.log();
    Ok(log.lines().rev().find(|line| line.contains(CYCLE_DONE)).unwrap_or_default().to_owned())
}

/// Waits until every server serves the owner's state, which it does only when it holds the git data.
async fn wait_served(servers: &[Server], state: &Event) {
    // By being told: while somebody asks for it one server after the other, the daemon is at what comes next.
    let waits = servers.iter().map(async |server| {
        let mut line = Line::open(server).await;
        line.listen(Filter::new().id(state.id)).await;
        if !look::serves(server, state).await {
            line.next_within(DONE_WITHIN).await;
        }
    });
    join_all(waits).await;
}
