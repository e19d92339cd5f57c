//! The whole walk on this machine: three real GRASP servers, an ordinary relay, an owner with a repository
//! on one of the servers, and the real `grasp-mirror mirror-once`; then the daemon, and somebody who talks to it.
//! Prints what happened, for a person.
//!
//! `./scripts/demo` installs what this needs and runs it; `--keep` leaves everything running.

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use grasp_mirror_testkit::{
    Chat, Mirror, Owner, Person, Protocol, Published, Server, TestRelay, look, stopped, tools,
};
use nostr::{event::Event, filter::Filter};

#[tokio::main]
async fn main() -> ExitCode {
    let keep = match env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(_) => {
            eprintln!("usage: demo [--keep]");
            return ExitCode::FAILURE;
        }
    };
    // Both ways out of here drop the servers and their folders.
    tokio::select! {
        result = show(keep) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nThe demo failed: {error:#}");
                ExitCode::FAILURE
            }
        },
        () = stopped() => {
            eprintln!("\nStopped; servers and temporary folders are gone.");
            if keep { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// Everything that runs, in the order in which it is dropped.
struct Stage {
    mirror: Mirror,
    ada: Chat,
    owner: Owner,
    published: Published,
    issue: Event,
    comment: Event,
    servers: [Server; 3],
    relay: TestRelay,
}

async fn show(keep: bool) -> Result<()> {
    let stage = set_up().await;
    println!("Three GRASP servers and a relay run on this machine:");
    for (name, server) in stage.named() {
        println!("  {name}      {}", server.url());
    }
    println!("  relay  {}", stage.relay.url());
    println!("\n{} has published the repository \"hello\" on A, which is all it lists.", stage.owner.npub());
    println!("Around it: an issue and a comment, on A as well. Before the bot has run:\n");
    stage.table().await;

    println!("\n$ grasp-mirror mirror-once");
    let run = stage.mirror.once().await;
    print!("{}", run.stdout);
    ensure!(run.code == 0, "mirror-once ended with {}:\n{}", run.code, run.stderr);
    println!("\nAfterwards:\n");
    stage.table().await;
    stage.check().await?;

    let [_, never_listed, _] = &stage.servers;
    let url = stage.url_at('B', never_listed, &stage.owner);
    println!("\nA clone from B, which the owner never listed:\n\n$ git clone {url}");
    let clone = look::clone(&url).await;
    println!("{}", clone.git(&["log", "--graph", "--oneline", "--decorate", "--all"]).await);
    ensure!(clone.git(&["rev-parse", "HEAD"]).await == stage.owner.work.rev("HEAD"), "the clone differs");

    println!("\nThe status report, as read from the relay (kind 30078):\n");
    println!("{:#}", stage.report().await?);
    println!(
        "\nThe cycle took {:.2} s, {:.2} s of CPU, {:.1} MiB of memory at its peak.",
        run.elapsed.as_secs_f64(),
        run.cpu.as_secs_f64(),
        f64::from(u32::try_from(run.peak_rss_kib)?) / 1024.0
    );
    stage.talk().await?;
    if keep { stage.keep().await } else { Ok(()) }
}

async fn set_up() -> Stage {
    let (a, b, c, relay) =
        tokio::join!(Server::start(), Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.annotated_tag("v1.0");
    owner.work.commit("src/main.rs", "fn main() {\n    println!(\"hello\");\n}\n");
    owner.work.branch("feature");
    owner.work.commit("src/feature.rs", "// to be written\n");
    owner.work.switch("main");
    let listing = owner.announcement().at(&a);
    let published = owner.publish(listing, &a).await;

    let guest = Person::new();
    let issue = guest.issue(&owner.coordinate(), "It says hello to nobody in particular");
    let comment = owner.comment(&issue, &issue, "That is on purpose.");
    for event in [&issue, &comment] {
        a.send(event).await.expect_accepted();
    }
    let mirror = Mirror::new(tools::bot()).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    let (mirror, ada) = mirror.commanded_at(&relay).await;
    Stage { mirror, ada, owner, published, issue, comment, servers: [a, b, c], relay }
}

impl Stage {
    fn named(&self) -> impl Iterator<Item = (char, &Server)> {
        ('A'..).zip(&self.servers)
    }

    /// Where `owner`'s repository is to be found at `server`: under the owner's name where listed, else the bot's.
    fn url_at(&self, name: char, server: &Server, owner: &Owner) -> String {
        if name == 'A' { owner.url_at(server) } else { self.mirror.url_at(server, &owner.d) }
    }

    async fn table(&self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["server", "under", "refs", "main", "owner's state", "issue", "comment"]);
        for (name, server) in self.named() {
            let refs = look::refs(&self.url_at(name, server, &self.owner)).await;
            let tip = refs.get("refs/heads/main").map_or("-", |id| id.get(..8).unwrap_or(id));
            let mut row = vec![
                format!("{name}  {}", server.url()),
                if name == 'A' { "owner" } else { "bot" }.to_owned(),
                refs.len().to_string(),
                tip.to_owned(),
            ];
            for event in [&self.published.state, &self.issue, &self.comment] {
                row.push(if look::serves(server, event).await { "yes" } else { "no" }.to_owned());
            }
            table.add_row(row);
        }
        println!("{table}");
    }

    async fn check(&self) -> Result<()> {
        self.check_refs(&self.owner).await?;
        for (name, server) in self.named() {
            for event in [&self.published.announcement, &self.published.state, &self.issue, &self.comment] {
                let what = format!("the event of kind {}", event.kind);
                ensure!(look::serves(server, event).await, "{name} does not serve {what}");
            }
        }
        Ok(())
    }

    async fn check_refs(&self, owner: &Owner) -> Result<()> {
        for (name, server) in self.named() {
            let refs = look::refs(&self.url_at(name, server, owner)).await;
            ensure!(refs == owner.work.refs(), "{name} has other refs than the owner: {refs:?}");
        }
        Ok(())
    }

    /// The bot as people use it: it is told what to mirror, and asked how that went.
    async fn talk(&self) -> Result<()> {
        let [home, ..] = &self.servers;
        let friend = Owner::new("notes").at_home_on(&self.relay);
        friend.publish(friend.announcement().at(home), home).await;
        println!(
            "\nA friend has published \"notes\" on A. Ada, whom the bot obeys, asks for it by private message (NIP-17):"
        );
        println!("\n$ grasp-mirror daemon");
        let daemon = self.mirror.daemon().await;
        self.ask(&format!("watch {}", friend.npub()), "1 repository found").await?;
        look::wait_until("all six mirrors are reported in sync", async || {
            self.report().await.is_ok_and(|report| report.pointer("/totals/in_sync") == Some(&6.into()))
        })
        .await;
        self.ask("status", "6 of 6 mirrors in sync").await?;
        self.ask("why notes", "in sync (namespace)").await?;
        self.check_refs(&friend).await?;
        daemon.stop().await;
        println!("\nSIGTERM: the daemon has ended, exit code 0.");
        Ok(())
    }

    /// Sends `text` to the bot, and prints it with the answer.
    async fn ask(&self, text: &str, expected: &str) -> Result<()> {
        println!("\nAda: {text}");
        let answer = self.ada.answer_to(Protocol::Nip17, text).await;
        println!("bot: {}", answer.replace('\n', "\n     "));
        ensure!(answer.contains(expected), "{expected:?} is not in the answer");
        Ok(())
    }

    async fn report(&self) -> Result<serde_json::Value> {
        let wanted = Filter::new()
            .author(self.mirror.bot_pubkey())
            .kind(30078.into())
            .identifier("grasp-mirror/status");
        let event = self.relay.served(wanted).await.into_iter().next().context("no report on the relay")?;
        Ok(serde_json::from_str(&event.content)?)
    }

    async fn keep(&self) -> Result<()> {
        println!("\nStill running. Everything is in {}; to try:\n", self.mirror.home().display());
        let config = self.mirror.config_file();
        for command in ["status", "plan", "verify", "mirror-once", "daemon"] {
            println!("  {} {command} --config {}", tools::bot().display(), config.display());
        }
        println!(
            "  git -C {} log --oneline --all   # the owner's own repository",
            self.owner.work.path().display()
        );
        for (name, server) in self.named() {
            println!("  git ls-remote {}   # {name}", self.url_at(name, server, &self.owner));
        }
        println!("\nCtrl-C ends it.");
        let start = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            println!("Running for {} hours.", start.elapsed().as_secs() / 3600);
        }
    }
}
