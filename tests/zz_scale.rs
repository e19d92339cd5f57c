use grasp_mirror::{
    model::{placement::Placement, status::MirrorStatus},
    plan::record::*,
    store::{Store, records::Records},
};
use grasp_mirror_testkit::{Mirror, Person, Proxy, TestRelay, free_port};
use sha2::Digest;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

async fn front(upstream: String) -> String {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let upstream = upstream.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let n = client.read(&mut head).await.unwrap();
                let head = &head[..n];
                let text = String::from_utf8_lossy(head).to_lowercase();
                if !text.contains("upgrade: websocket") {
                    let body = r#"{"supported_grasps":["GRASP-01"],"software":"fake","version":"1"}"#;
                    let body = if text.contains("nostr+json") { body } else { "" };
                    let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
                    let _ = client
                        .write_all(
                            format!(
                                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                                body.len()
                            )
                            .as_bytes(),
                        )
                        .await;
                    return;
                }
                let mut server = TcpStream::connect(upstream).await.unwrap();
                server.set_nodelay(true).unwrap();
                client.set_nodelay(true).unwrap();
                server.write_all(head).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale() {
    let n: usize = std::env::var("N").map_or(2000, |n| n.parse().unwrap());
    let binary = std::env::var("BIN").unwrap_or(env!("CARGO_BIN_EXE_grasp-mirror").into());
    let relay = TestRelay::start().await;
    let mut relays = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..3 {
        let r = TestRelay::start().await;
        let address = front(r.url().trim_start_matches("ws://").to_owned()).await;
        proxies.push(Proxy::before(address.parse().unwrap()).await);
        relays.push(r);
    }
    let urls: Vec<String> = proxies.iter().map(|p| format!("ws://{}", p.address())).collect();
    let authors: Vec<Person> = (0..20).map(|_| Person::new()).collect();
    let mut mirror = Mirror::new(binary)
        .uses(&relay)
        .set("bot.cycle_interval_secs", 5)
        .set("limits.max_repos_per_author", 1000);
    for url in &urls {
        mirror = mirror.knows_url(url);
    }
    for author in &authors {
        mirror = mirror.watches(author);
    }
    let store = Store::open(&mirror.data_dir()).await.unwrap();
    let records = Records::new(store.clone(), mirror.keys.clone());
    let fp: String = sha2::Sha256::new().finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let now = nostr::types::Timestamp::now().as_secs();
    for i in 0..n {
        let author = &authors[i % 20];
        let d = format!("repository-{i}");
        let npub = author.npub();
        let mut clone = vec!["clone".to_owned()];
        clone.extend(urls.iter().map(|u| format!("{}/{npub}/{d}.git", u.replace("ws:", "http:"))));
        let mut rel = vec!["relays".to_owned()];
        rel.extend(urls.iter().cloned());
        let tags: [Vec<String>; 5] = [
            vec!["d".into(), d.clone()],
            vec!["name".into(), d.clone()],
            vec!["description".into(), "Some text that says what it is".into()],
            clone,
            rel,
        ];
        let tags: Vec<Vec<&str>> = tags.iter().map(|t| t.iter().map(String::as_str).collect()).collect();
        let ann = author.sign(30617, "", &tags.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let id = format!("{:040x}", i + 1);
        let refs: Vec<String> = (0..8).map(|k| format!("refs/heads/branch-{k}")).collect();
        let mut tags: Vec<Vec<&str>> = vec![vec!["d", &d], vec!["HEAD", "ref: refs/heads/branch-0"]];
        tags.extend(refs.iter().map(|r| vec![r.as_str(), id.as_str()]));
        let state = author.sign(30618, "", &tags.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for e in [&ann, &state] {
            for r in &relays {
                r.receive(e.clone()).await;
            }
            store.save(e).await.unwrap();
        }
        let mirrors: BTreeMap<_, _> = urls
            .iter()
            .map(|u| {
                (
                    u.parse().unwrap(),
                    MirrorRecord {
                        status: MirrorStatus::InSync,
                        placement: Placement::Listed,
                        reason: None,
                        since: now,
                        read_back_at: Some(now),
                        retry_at: None,
                        failures: 0,
                        refused: BTreeMap::new(),
                        conversation: Some(HeldConversation { fingerprint: fp.clone(), seen_at: now }),
                    },
                )
            })
            .collect();
        let record = RepositoryRecord {
            mirrors,
            local: Some(state.id),
            deep_checked_at: Some(now),
            ..Default::default()
        };
        records.write(&format!("mirrors/30617:{}:{d}", author.public_key().to_hex()), &record).await.unwrap();
    }
    drop((records, store));
    println!("set up");
    let start = std::time::Instant::now();
    let daemon = mirror.start_daemon();
    while mirror.status_json().await["cycle"]["number"].as_u64() < Some(1) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("first cycle {:?} cpu {:?} rss {} KiB", start.elapsed(), daemon.cpu(), daemon.rss_kib());
    while mirror.status_json().await["cycle"]["number"].as_u64() < Some(3) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("third cycle cpu {:?} rss {} KiB", daemon.cpu(), daemon.rss_kib());
    for p in &proxies {
        p.reset();
    }
    let (cpu, own) = (daemon.cpu(), grasp_mirror_testkit::own_cpu());
    tokio::time::sleep(Duration::from_secs(30)).await;
    println!(
        "30 s: cpu {:?} (this process {:?}) rss {} KiB",
        daemon.cpu() - cpu,
        grasp_mirror_testkit::own_cpu() - own,
        daemon.rss_kib()
    );
    for p in &proxies {
        let s = p.seen();
        println!(
            "{} messages, up {} down {}, http {:?}",
            s.messages.len(),
            s.up_bytes,
            s.down_bytes,
            s.requests
        );
    }
    let s = proxies[0].seen();
    for m in s.messages.iter().take(4) {
        println!("{} {}", m.len(), &m[..m.len().min(150)]);
    }
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap_or_default();
    println!("{smaps}");
    println!("{}", mirror.status_json().await["totals"]);
    let log = daemon.stop().await;
    println!("{}", log.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
}
