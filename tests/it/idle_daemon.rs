//! A daemon with nothing to do asks each server two short questions a cycle, whatever the number of repositories, and
//! what changes is noticed all the same.

#![allow(clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Daemon, Mirror, Owner, Person, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// Messages and bytes each way that one cycle costs a server.
#[derive(Debug)]
struct Cost {
    messages: f64,
    bytes: f64,
}

async fn number(mirror: &Mirror) -> u64 {
    mirror.status_json().await["cycle"]["number"].as_u64().unwrap_or_default()
}

/// Until this many more cycles are over; returns how many were.
async fn cycles(mirror: &Mirror, more: u64) -> u64 {
    let from = number(mirror).await;
    look::wait_until("cycles go by", async || number(mirror).await >= from + more).await;
    number(mirror).await - from
}

async fn in_sync(mirror: &Mirror, mirrors: usize) {
    look::wait_until("all is in sync", async || {
        mirror.status_json().await["totals"]["in_sync"].as_u64() == Some(mirrors as u64)
    })
    .await;
}

async fn idle_cost(repositories: usize) -> Cost {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let mut owner = Owner::new("first").at_home_on(&relay);
    for repository in 0..repositories {
        owner.d = format!("repository-{repository}");
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("bot.cycle_interval_secs", 1).env("RUST_LOG", "grasp_mirror=debug");
    let daemon = mirror.daemon().await;
    in_sync(&mirror, 2 * repositories).await;
    // What the bot itself published is news once.
    cycles(&mirror, 3).await;

    // From the log, which is read at the same moment as the proxies.
    let done = || daemon.log().matches("cycle done").count();
    let worked_out = || daemon.log().matches("worked out what is wanted").count();
    let (before, catalogs) = (daemon.cpu(), worked_out());
    a.proxy().reset();
    b.proxy().reset();
    let from = done();
    cycles(&mirror, 8).await;
    let seen = [a.proxy().seen(), b.proxy().seen()];
    let over = (done() - from) as f64;
    assert!(catalogs > 0, "the log says it");
    assert_eq!(worked_out(), catalogs, "all rests, so nothing is worked out again");
    let used = daemon.cpu() - before;
    println!("{repositories} repositories: {used:?} CPU in {over} cycles, {} KiB resident", daemon.rss_kib());
    daemon.stop().await;
    let mut cost = Cost { messages: 0.0, bytes: 0.0 };
    for seen in seen {
        assert_eq!(seen.count("GET", ""), 0, "{seen:#?}");
        assert_eq!(seen.count("POST", ""), 0, "{seen:#?}");
        assert_eq!(seen.verb("EVENT"), Vec::<&str>::new());
        assert!(!seen.messages.is_empty(), "it did look");
        cost.messages = cost.messages.max(seen.messages.len() as f64 / over);
        cost.bytes = cost.bytes.max((seen.up_bytes + seen.down_bytes) as f64 / over);
    }
    println!("{repositories} repositories: {cost:?}");
    cost
}

#[tokio::test]
async fn what_a_cycle_costs_does_not_grow_with_the_number_of_repositories() {
    let few = idle_cost(5).await;
    // A server takes about sixty events in a minute.
    let many = idle_cost(18).await;
    // Two comparisons, each opened and closed; the cycle that is under way while we look may count half.
    assert!(many.messages <= 4.0 * 1.5, "{many:?}");
    assert!(many.bytes <= 4096.0, "{many:?}");
    assert!(many.messages <= 1.5 * few.messages, "{few:?} {many:?}");
}

/// A daemon that has nothing to do.
async fn idle(mirror: &Mirror) -> Daemon {
    let daemon = mirror.daemon().await;
    in_sync(mirror, 2).await;
    cycles(mirror, 3).await;
    daemon
}

#[tokio::test]
async fn whatever_changes_is_noticed() {
    let start = || Server::builder().behind_proxy().start();
    let (a, mut b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let listing = owner.announcement().at(&a).relay(relay.url());
    let published = owner.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("bot.cycle_interval_secs", 1);
    let daemon = idle(&mirror).await;
    let guest = Person::new();

    let on_server = guest.issue(&owner.coordinate(), "told to a server");
    a.send(&on_server).await.expect_accepted();
    look::wait_until("an issue on a server", async || look::serves(&b, &on_server).await).await;

    let on_relay = guest.issue(&owner.coordinate(), "told to a relay");
    relay.send(&on_relay).await.expect_accepted();
    look::wait_until("an issue on a relay", async || {
        look::serves(&a, &on_relay).await && look::serves(&b, &on_relay).await
    })
    .await;

    let answer = owner.comment(&on_relay, &on_relay, "Thanks");
    relay.send(&answer).await.expect_accepted();
    look::wait_until("an answer to it", async || look::serves(&b, &answer).await).await;

    // About nothing that is known here: not kept.
    let other = Owner::new("other");
    other.publish(other.announcement().at(&a), &a).await;
    a.send(&guest.issue(&other.coordinate(), "of no interest")).await.expect_accepted();

    owner.work.commit("later.txt", "more");
    let state = owner.update(&a).await;
    let url = mirror.url_at(&b, "hello");
    look::wait_until("a new state", async || {
        look::serves(&b, &state).await && look::refs(&url).await == owner.work.refs()
    })
    .await;

    cycles(&mirror, 3).await;
    b.wipe().await;
    look::wait_until("a server that lost everything", async || {
        look::serves(&b, &published.announcement).await
            && look::serves(&b, &state).await
            && look::serves(&b, &on_server).await
            && look::serves(&b, &answer).await
    })
    .await;
    assert_eq!(look::refs(&url).await, owner.work.refs());

    // Connections that break are made anew.
    cycles(&mirror, 2).await;
    a.proxy().drop_connections();
    b.proxy().drop_connections();
    cycles(&mirror, 2).await;
    let last = guest.issue(&owner.coordinate(), "after a break");
    a.send(&last).await.expect_accepted();
    look::wait_until("an issue after a break", async || look::serves(&b, &last).await).await;
    in_sync(&mirror, 2).await;

    a.send(&owner.delete(&published.announcement)).await.expect_accepted();
    look::wait_until("the end of a repository", async || {
        mirror.status_json().await["left_alone"]["deleted"][0] == owner.coordinate()
    })
    .await;
    daemon.stop().await;
}
