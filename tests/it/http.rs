//! What the daemon shows by HTTP is what is on the servers, nobody can change anything there, and nobody can take it
//! from others.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeSet, net::TcpListener};

use grasp_mirror_testkit::{
    Fault, Mirror, Protocol, Reply, Scene, Site, TestRelay,
    look::{self, PATIENCE},
};
use nostr::prelude::{Filter, Kind};
use tokio::{io::AsyncReadExt, time::timeout};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn what_is_shown_is_what_is_on_the_servers() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner).shows().set("bot.nip05", "Bot@mirror.example");
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    daemon.wait_log("cycle done").await;
    // The log line is written a moment before the page is.
    look::wait_until("the first cycle is shown", async || {
        site.get("/api/status.json").await.json()["cycle"]["number"] == 1
    })
    .await;

    let status = site.get("/api/status.json").await.json();
    assert_eq!(status, mirror.status_json().await);
    assert_eq!((status["totals"]["in_sync"].as_u64(), status["truncated"].as_u64()), (Some(2), Some(0)));
    let all = site.get("/api/mirrors.json").await.json();
    assert_eq!((all["repos"][0]["d"].as_str(), all["repos"][0]["s"].as_str()), (Some("hello"), Some("ii")));
    let path = format!("/api/repos/{}/hello.json", scene.owner.npub());
    let page = site.get(&path).await.json();
    for server in [&scene.a, &scene.b] {
        let shown = page["mirrors"].as_array().unwrap().iter().find(|shown| shown["server"] == server.url());
        let clone_url = shown.unwrap()["clone_url"].as_str().unwrap();
        assert_eq!(look::refs(clone_url).await, scene.owner.work.refs(), "{clone_url}");
    }
    let servers = site.get("/api/servers.json").await.json();
    assert_eq!(servers.as_array().unwrap().len(), 2);
    assert!(servers[0]["week"]["answered"].as_u64() >= Some(1), "{servers}");

    let mut events = site.events().await;
    events.hear("event: edition").await;
    scene.owner.work.commit("README.md", "# hello again\n");
    let state = scene.owner.update(&scene.a).await;
    events.hear("event: changed").await;
    look::wait_until("the page has the new state", async || {
        let page = site.get(&path).await.json();
        let of = |mirror: &serde_json::Value| {
            let history = mirror["history"].as_array().unwrap();
            (
                history.len(),
                history.last().unwrap()["state"].clone(),
                history.last().unwrap()["status"].clone(),
            )
        };
        page["mirrors"].as_array().unwrap().iter().all(|mirror| {
            let (changes, last, status) = of(mirror);
            changes >= 2 && last == state.id.to_hex() && status == "in_sync"
        })
    })
    .await;

    let nostr = site.get("/.well-known/nostr.json?name=bot").await;
    assert_eq!(nostr.headers["access-control-allow-origin"], "*");
    assert_eq!(nostr.json()["names"]["bot"], mirror.bot_pubkey().to_hex());
    let other = site.get("/.well-known/nostr.json?name=alice").await.json();
    assert!(other["names"].as_object().unwrap().is_empty());
    let profile = scene.relay.served(Filter::new().author(mirror.bot_pubkey()).kind(Kind::Metadata)).await;
    assert!(profile[0].content.contains("bot@mirror.example"));

    let metrics = site.get("/metrics").await;
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text; version=1.0.0"));
    let names = check_metrics(&metrics.body);
    for name in [
        "cycles",
        "followed",
        "mirrors",
        "server_up",
        "server_latency_seconds",
        "last_success_timestamp_seconds",
    ] {
        assert!(names.contains(&format!("grasp_mirror_{name}")), "{name}: {names:?}");
    }
    let host = scene.b.authority();
    let line = format!("grasp_mirror_mirrors{{server=\"{host}\",status=\"in_sync\"}} 1");
    assert!(metrics.body.lines().any(|said| said == line), "{line}\n{}", metrics.body);
    for hidden in ["hello", &scene.owner.npub(), &scene.owner.public_key().to_hex()] {
        assert!(!metrics.body.contains(hidden), "{hidden} is in the metrics");
    }
    for path in ["/healthz", "/readyz"] {
        let health = site.get(path).await;
        assert_eq!((health.status, health.json()["ok"].as_bool()), (200, Some(true)), "{path}");
    }
    nothing_can_be_changed(&site, &path).await;
    daemon.stop().await;
}

async fn nothing_can_be_changed(site: &Site, repository: &str) {
    let pages =
        ["/", "/style.css", "/dashboard.js", "/api/status.json", "/api/mirrors.json", "/metrics", repository];
    for path in pages {
        let page = site.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        guarded(path, &page);
        let head = site.ask("HEAD", path, "localhost").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let no = site.ask(method, path, "localhost").await;
            assert_eq!((no.status, no.headers["allow"].as_str()), (405, "GET, HEAD"), "{method} {path}");
            guarded(path, &no);
        }
        // A page that made its own name resolve to loopback.
        for host in ["evil.example", "localhost.evil.example:7335", "127.0.0.1.evil.example"] {
            let no = site.ask("GET", path, host).await;
            assert_eq!(no.status, 421, "{host} {path}");
            guarded(path, &no);
        }
    }
    for path in [
        "/nothing",
        "/../config.toml",
        "/%2e%2e/nsec",
        "/api/repos/npub1xyz/hello.json",
        &repository.replace("hello", "other"),
        &repository.replace("hello", "..%2f..%2fnsec"),
        &repository.replace("hello", "%00%ff"),
    ] {
        let no = site.get(path).await;
        assert!(matches!(no.status, 400 | 404), "{path}: {}", no.status);
        guarded(path, &no);
    }
}

fn guarded(path: &str, reply: &Reply) {
    let header = |name: &str| reply.headers.get(name).map(String::as_str).unwrap_or_default();
    let policy = header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(header("x-frame-options"), "DENY", "{path}");
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "{path}");
}

/// What `promtool check metrics` and the OpenMetrics text format ask for; returns the families.
fn check_metrics(text: &str) -> BTreeSet<String> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let (mut current, mut kind, mut has_help) = (String::new(), String::new(), false);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    for line in &lines[..lines.len() - 1] {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(families.insert(name.to_owned()), "{name} twice");
                assert!(!help.trim().is_empty(), "{line}");
                (current, has_help) = (name.to_owned(), true);
                kind.clear();
            }
            ["#", "TYPE", name, type_] => {
                assert!(has_help && name == current && kind.is_empty(), "{line}");
                assert!(["counter", "gauge", "info"].contains(&type_), "{line}");
                kind = type_.to_owned();
            }
            ["#", "UNIT", name, unit] => {
                assert_eq!(name, current, "{line}");
                assert!(
                    name.ends_with(&format!("_{unit}")) && unit == "seconds",
                    "a base unit, in the name: {line}"
                );
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let suffix = match kind.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                assert_eq!(name, format!("{current}{suffix}"), "{line}");
                assert!(samples.insert(series.to_owned()), "{series} twice");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(value.is_finite() && value >= 0.0, "{line}");
            }
        }
        assert!(current.starts_with("grasp_mirror_"), "{line}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(current.chars().all(plain), "{line}");
        assert!(
            !["_total", "_ms", "_milliseconds", "_minutes", "_kb"].iter().any(|end| current.ends_with(end)),
            "{line}"
        );
    }
    families
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_at_the_start() {
    let relay = TestRelay::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = Mirror::new(BINARY).uses(&relay).set("http.listen", address.as_str()).run(&["daemon"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    for part in [&*address, "in use", "[http] listen"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

#[tokio::test]
async fn it_is_ready_when_it_knows_what_to_do_and_healthy_while_cycles_succeed() {
    let relay = TestRelay::start().await;
    let proxy = relay.proxied().await;
    let slow = format!("ws://{}", proxy.address());
    // On a blank machine the bot waits for its relay, which may have its lists.
    proxy.fault(Fault::Hang);
    let mirror = Mirror::new(BINARY).uses(&slow).shows().set("bot.cycle_interval_secs", 1);
    let (mirror, person) = mirror.commanded_at(&relay).await;
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    for path in ["/healthz", "/readyz"] {
        let said = site.get(path).await;
        assert_eq!((said.status, said.json()["phase"].as_str()), (503, Some("starting")), "{path}");
        assert!(said.json()["why"].as_str().unwrap().contains("lists are being read"), "{said:?}");
    }
    assert!(
        !check_metrics(&site.get("/metrics").await.body)
            .contains("grasp_mirror_last_success_timestamp_seconds")
    );
    assert_eq!(site.get("/.well-known/nostr.json?name=bot").await.status, 404, "it has no name");
    proxy.heal();
    daemon.wait_ready().await;
    look::wait_until("cycles succeed", async || site.get("/healthz").await.status == 200).await;
    assert_eq!(site.get("/readyz").await.status, 200);

    person.answer_to(Protocol::Nip17, "pause").await;
    look::wait_until("no cycle has succeeded for long", async || site.get("/healthz").await.status == 503)
        .await;
    let said = site.get("/healthz").await.json();
    assert_eq!(said["phase"], "paused");
    assert!(said["why"].as_str().unwrap().ends_with("I was told to pause; send: resume"), "{said}");
    assert_eq!(site.get("/readyz").await.status, 200, "it answers");
    assert!(site.get("/metrics").await.body.contains("grasp_mirror_paused 1"));
    person.answer_to(Protocol::Nip17, "resume").await;
    look::wait_until("they do again", async || site.get("/healthz").await.status == 200).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_starts_again_shows_what_it_remembers() {
    let scene = Scene::set().await;
    let proxy = scene.relay.proxied().await;
    let mirror = Mirror::new(BINARY).knows(&scene.a).knows(&scene.b).watches(&scene.owner).shows();
    let mirror = mirror.uses(format!("ws://{}", proxy.address()));
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    daemon.stop().await;

    // It waits for its relay, so no cycle begins yet.
    proxy.fault(Fault::Hang);
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    look::wait_until("the mirrors are shown", async || {
        site.get("/api/mirrors.json").await.json()["repos"][0]["s"] == "ii"
    })
    .await;
    assert_eq!(site.get("/readyz").await.status, 503);
    assert_eq!(site.get("/healthz").await.status, 200, "the last good cycle is young");
    assert_eq!(site.get("/api/status.json").await.json()["totals"]["in_sync"], 2);
    let page = site.get(&format!("/api/repos/{}/hello.json", scene.owner.npub())).await.json();
    assert_eq!(page["mirrors"][0]["history"][0]["status"], "in_sync", "{page}");
    assert!(!daemon.log().contains("ready"), "{}", daemon.log());
    daemon.kill();
}

#[tokio::test]
async fn whoever_keeps_connections_does_not_keep_others_out() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay).shows();
    let mut daemon = mirror.daemon().await;
    let site = daemon.site().await;
    let mut listeners = Vec::new();
    let refused = loop {
        let mut stream =
            site.open(&format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", site.address)).await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        match &head {
            b"HTTP/1.1 200" => listeners.push(stream),
            other => break String::from_utf8_lossy(other).into_owned(),
        }
        assert!(listeners.len() < 100, "streams are bounded");
    };
    assert_eq!(refused, "HTTP/1.1 503");
    drop(listeners);

    let mut silent = Vec::new();
    for n in 0..140 {
        // Some say nothing, some stop in the middle of a head, some never read the answer.
        let said =
            ["", "GET / HTTP/1.1\r\nHost: x", "GET /api/mirrors.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"]
                [n % 3];
        silent.push(site.open(said).await);
    }
    assert_eq!(site.get("/readyz").await.status, 200, "they are hung up on");
    let mut end = Vec::new();
    let hung_up = timeout(PATIENCE, silent[0].read_to_end(&mut end)).await;
    assert!(hung_up.is_ok(), "a connection without a request is closed");
    let long = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = site.open("").await;
    // It may be closed before all is sent.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(site.get("/readyz").await.status, 200);
    daemon.stop().await;
}
