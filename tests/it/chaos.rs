//! Every kind of fault on servers that a daemon works with, and kills, while maintainers go on working: what it says is
//! so, and when all is well again, so are the mirrors.
//!
//! `CHAOS_SEED` and `CHAOS_STEPS` choose other steps, and more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeMap, time::Duration};

use grasp_mirror_testkit::{Chance, Fault, Mirror, Owner, Server, TestRelay, look};
use nostr::prelude::{Event, ToBech32};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// After so many steps all is well for a while.
const ROUND: u64 = 8;

const FAULTS: [Fault; 14] = [
    Fault::Refuse,
    Fault::Hang,
    Fault::Hold,
    Fault::Garbage,
    Fault::Status(500),
    Fault::Status(502),
    Fault::Status(404),
    Fault::Later(429, 1),
    Fault::Later(503, 2),
    Fault::CutUp(300),
    Fault::CutUp(3_000),
    Fault::CutDown(200),
    Fault::CutDown(2_000),
    Fault::Mute,
];

/// Which requests a fault is for.
const PARTS: [&str; 5] = ["", "/", "git-receive-pack", "/git-receive-pack", "info/refs"];

/// A repository, the refs of every state that was signed of it, in order, and what was said about it.
struct Watched {
    owner: Owner,
    states: Vec<(String, BTreeMap<String, String>)>,
    issues: Vec<Event>,
}

impl Watched {
    async fn update(&mut self, server: &Server, chance: &mut Chance) {
        let work = &self.owner.work;
        let number = self.states.len();
        work.change(number, 200, chance);
        let state = self.owner.update(server).await;
        self.states.push((state.id.to_hex(), work.refs()));
    }

    async fn say(&mut self, server: &Server) {
        let issue = self.owner.issue(&self.owner.coordinate(), &format!("number {}", self.issues.len()));
        server.send(&issue).await.expect_accepted();
        self.issues.push(issue);
    }

    /// Whether `server` has all that was said.
    async fn is_told(&self, server: &Server) -> bool {
        for issue in &self.issues {
            if !look::serves(server, issue).await {
                return false;
            }
        }
        true
    }

    /// A server that counts as in sync with a state has its refs, or those of a newer one.
    async fn honest(&self, mirror: &Mirror, servers: [&Server; 2]) -> bool {
        let status = mirror.status_json().await;
        let coordinate = self.owner.coordinate();
        let repo =
            status["repos"].as_array().into_iter().flatten().find(|repo| repo["a"] == coordinate.as_str());
        let Some(repo) = repo else { return false };
        let told = self.states.iter().position(|(state, _)| repo["state"] == state.as_str());
        let Some(told) = told else { return false };
        let problems = repo["problems"].as_array().unwrap();
        let mut all = problems.is_empty();
        for server in servers {
            let known = status["servers"].as_array().into_iter().flatten();
            let is_used =
                |known: &serde_json::Value| known["url"] == server.url() && known["unused"].is_null();
            if !known.clone().any(is_used) {
                // It does not look like a GRASP server now.
                all = false;
            } else if !problems.iter().any(|problem| problem["server"] == server.url()) {
                let refs = refs_at(mirror, &self.owner, server).await;
                assert!(
                    self.is_since(told, &refs),
                    "{} has {refs:#?}\n{repo:#}\n{:#?}",
                    server.url(),
                    self.states
                );
            }
        }
        all && told + 1 == self.states.len()
    }

    /// Whether each of `refs` is that of one of the states since `told`, and none is missing that all of them have: a push
    /// may be under way.
    fn is_since(&self, told: usize, refs: &BTreeMap<String, String>) -> bool {
        let states = || self.states[told..].iter().map(|(_, refs)| refs);
        let is_known = |(name, id): (&String, &String)| states().any(|state| state.get(name) == Some(id));
        let is_there =
            |name: &String| refs.contains_key(name) || !states().all(|state| state.contains_key(name));
        refs.iter().all(is_known) && self.states[told].1.keys().all(is_there)
    }
}

/// Restarts a server, without what broken pushes left there, and lets everybody in again.
///
/// ngit-grasp 3.0.9 puts its refs in order when it starts. What is pushed meanwhile it puts back to the state before, and
/// serves the newer one all the same: so nobody is let in before it is done.
async fn begin_anew(server: &mut Server) {
    let starts =
        |server: &Server| server.log().matches("Git authorization-integrity startup pass completed").count();
    let before = starts(server);
    server.proxy().fault(Fault::Refuse);
    server.proxy().drop_connections();
    server.unlock().await;
    look::wait_until("the server has put its refs in order", async || starts(server) > before).await;
    server.proxy().heal();
    server.proxy().silence(false);
    server.proxy().drop_connections();
}

/// What a server has on its disk, whatever its proxy does.
async fn refs_at(mirror: &Mirror, owner: &Owner, server: &Server) -> BTreeMap<String, String> {
    for npub in [owner.npub(), mirror.bot_pubkey().to_bech32().unwrap()] {
        let folder = server.git_folder().join(npub).join(format!("{}.git", owner.d));
        let refs = look::refs(folder.to_str().unwrap()).await;
        if !refs.is_empty() {
            return refs;
        }
    }
    BTreeMap::new()
}

#[tokio::test]
async fn what_it_says_is_so_whatever_servers_do() {
    let number =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |value| value.parse().expect("a number"));
    let (steps, seed) = (number("CHAOS_STEPS", 3 * ROUND), number("CHAOS_SEED", 1));
    println!("CHAOS_STEPS={steps} CHAOS_SEED={seed}");
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15 ^ seed << 7);
    let proxied = || Server::builder().behind_proxy().start();
    let (a, mut b, mut c, relay) = tokio::join!(Server::start(), proxied(), proxied(), TestRelay::start());
    let mut watched = Vec::new();
    for d in ["one", "two", "three"] {
        let owner = Owner::new(d).at_home_on(&relay);
        let mut announcement = owner.announcement().at(&a);
        if d == "one" {
            announcement = announcement.at(&b);
        }
        let published = owner.publish(announcement, &a).await;
        let states = vec![(published.state.id.to_hex(), owner.work.refs())];
        watched.push(Watched { owner, states, issues: Vec::new() });
    }
    let mut mirror = Mirror::new(BINARY)
        .knows(&a)
        .knows(&b)
        .knows(&c)
        .uses(&relay)
        .set("bot.cycle_interval_secs", 15)
        .set("servers.health_interval_secs", 5)
        .set("mirror.hold_hours", 0);
    for (key, value) in [("retry_first", 1), ("retry_max", 3), ("stall_timeout", 2), ("connect_timeout", 2)] {
        mirror = mirror.set(&format!("limits.{key}_secs"), value);
    }
    for one in &watched {
        mirror = mirror.watches(&one.owner);
    }
    let mut daemon = mirror.start_daemon();
    for step in 1..=steps {
        let proxy = chance.of(&[&b, &c]).proxy();
        match chance.below(9) {
            8 => {
                println!("step {step}: killed");
                daemon.kill();
                daemon = mirror.start_daemon();
            }
            0 => proxy.heal(),
            1 => proxy.drop_connections(),
            2 => proxy.silence(true),
            3 => proxy.silence(false),
            _ => {
                let (part, fault) = (*chance.of(&PARTS), *chance.of(&FAULTS));
                println!("step {step}: {} {fault:?} on {part:?}", proxy.address());
                proxy.fault_on(part, fault);
                if chance.below(2) == 0 {
                    proxy.drop_connections();
                }
            }
        }
        let at = usize::try_from(chance.below(watched.len() as u64)).unwrap();
        match chance.below(4) {
            0 => {}
            1 => watched[at].say(&a).await,
            _ => watched[at].update(&a, &mut chance).await,
        }
        tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
        for one in &watched {
            one.honest(&mirror, [&b, &c]).await;
        }
        if step % ROUND == 0 {
            for server in [&mut b, &mut c] {
                begin_anew(server).await;
            }
            look::wait_until("all is in sync", async || {
                let mut all = true;
                for one in &watched {
                    all &= one.honest(&mirror, [&b, &c]).await;
                    all &= one.is_told(&b).await && one.is_told(&c).await;
                }
                all
            })
            .await;
        }
    }
    daemon.stop().await;
}
