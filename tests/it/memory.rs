//! Packs are streamed: the size of a repository does not show in the bot's memory.

use std::time::Instant;

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const PACK_BYTES: u64 = 60 << 20;
const PEAK_KIB: u64 = 96 << 10;

#[tokio::test]
async fn sixty_megabytes_to_four_servers_within_96_mebibytes() {
    let (source, a, b, c) = tokio::join!(Server::start(), Server::start(), Server::start(), Server::start());
    let relay = TestRelay::start().await;
    let owner = Owner::new("bulky").at_home_on(&relay);
    let start = Instant::now();
    owner.work.fill(PACK_BYTES);
    let filled = start.elapsed();
    // The source loses nothing, the other listed one has nothing, two have never heard of it.
    let listing = owner.announcement().at(&source).at(&a);
    owner.publish(listing, &source).await;
    println!("filled in {filled:?}, published after {:?}", start.elapsed());

    let mirror =
        Mirror::new(BINARY).knows(&source).knows(&a).knows(&b).knows(&c).uses(&relay).watches(&owner);
    let run = mirror.once().await.expect_code(0);
    println!("peak {} KiB, {:?}, {:?} CPU", run.peak_rss_kib, run.elapsed, run.cpu);

    for url in [owner.url_at(&a), mirror.url_at(&b, "bulky"), mirror.url_at(&c, "bulky")] {
        assert_eq!(look::refs(&url).await, owner.work.refs());
    }
    look::clone(&mirror.url_at(&c, "bulky")).await;
    assert!(run.peak_rss_kib < PEAK_KIB, "peak {} KiB, allowed {PEAK_KIB}", run.peak_rss_kib);
}
