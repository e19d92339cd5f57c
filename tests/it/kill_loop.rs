//! Two hundred kills at any moment, while maintainers go on working: no run leaves anything broken behind, nothing is
//! called in sync that is not, and the run that is left alone finishes the work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::{process::Stdio, time::Duration};

use grasp_mirror_testkit::{Chance, Mirror, Owner, Server, TestRelay, look, tools};
use nostr::prelude::Event;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const KILLS: usize = 200;
/// Kills between two updates by the owners.
const STEP: usize = 8;

#[tokio::test]
async fn nothing_is_lost_or_broken_by_two_hundred_kills() {
    let (a, mut b, mut c, relay) =
        tokio::join!(Server::start(), Server::start(), Server::start(), TestRelay::start());
    let owners = [Owner::new("one").at_home_on(&relay), Owner::new("two").at_home_on(&relay)];
    for owner in &owners {
        owner.work.commit("large", &"All work and no play\n".repeat(50_000));
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let mut mirror = Mirror::new(BINARY).knows(&a).knows(&b).knows(&c).uses(&relay);
    for owner in &owners {
        mirror = mirror.watches(owner);
    }
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15);
    let mut states = Vec::new();
    for kill in 0..KILLS {
        if kill % STEP == 0 {
            states.clear();
            for owner in &owners {
                owner.work.change(kill / STEP, 1_000, &mut chance);
                states.push(owner.update(&a).await);
            }
        }
        let mut run = mirror.command(&["mirror-once"]);
        let mut run =
            run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{e}"));
        // A whole run takes some 300 ms here.
        tokio::time::sleep(Duration::from_millis(chance.below(350))).await;
        run.kill().ok();
        run.wait().ok();
        if kill % 20 == 19 {
            for (owner, state) in owners.iter().zip(&states) {
                check(&mirror, owner).await;
                honest(&mirror, owner, state, [&b, &c]).await;
            }
        }
    }
    for server in [&mut b, &mut c] {
        server.unlock().await;
    }
    mirror.once().await.expect_code(0);
    for owner in &owners {
        for server in [&b, &c] {
            assert_eq!(look::refs(&mirror.url_at(server, &owner.d)).await, owner.work.refs());
        }
        check(&mirror, owner).await;
    }
}

/// Whatever a killed run left behind, git is content with it.
async fn check(mirror: &Mirror, owner: &Owner) {
    let folder = mirror.data_dir().join("git").join(owner.npub()).join(format!("{}.git", owner.d));
    if !folder.join("HEAD").is_file() {
        return;
    }
    let mut fsck = tools::git(&folder);
    fsck.args(["fsck", "--full", "--strict"]);
    tools::must(fsck).await;
}

/// What the bot says to be in sync with the newest state is so on the servers.
async fn honest(mirror: &Mirror, owner: &Owner, state: &Event, servers: [&Server; 2]) {
    let status = mirror.status_json().await;
    let repos = status["repos"].as_array().cloned().unwrap_or_default();
    let Some(repo) = repos.iter().find(|repo| repo["a"] == owner.coordinate()) else { return };
    if repo["state"] != state.id.to_hex() {
        return;
    }
    for server in servers {
        let problem = repo["problems"].as_array().unwrap().iter().any(|it| it["server"] == server.url());
        if !problem {
            assert_eq!(look::refs(&mirror.url_at(server, &owner.d)).await, owner.work.refs(), "{repo:#}");
        }
    }
}
