//! What a mirror of one repository costs this process, for PERF figures by hand:
//!
//! `pack_relay ingest PACK` takes a pack into a fresh repository;
//! `pack_relay cut PACK HAVE WANT` does so and cuts out what a server with `HAVE` needs for `WANT`;
//! `pack_relay relay FROM-URL TO-URL…` fetches, takes in, and pushes to all targets at once.
//!
//! Prints time, CPU and the peak of resident memory (`VmHWM`) after each step. Linux only.

use std::{path::Path, time::Duration};

use anyhow::Context;
use grasp_mirror::{
    git::{
        Repository,
        wire::{GitHttp, Limits, Room, commands_to, http_client},
    },
    model::refs::Refs,
};
use url::Url;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir()?;
    let repository = Repository::open_or_create(&folder.path().join("measured.git"))?;
    report("start")?;
    match arguments.as_slice() {
        [what, pack] if what == "ingest" => {
            let copy = repository.incoming_dir().join("in.pack");
            std::fs::copy(Path::new(pack), &copy)?;
            let taken = repository.ingest(&copy)?;
            report(&format!("ingested {} objects, {} bytes", taken.objects, taken.bytes))
        }
        [what, pack, have, want] if what == "cut" => {
            let copy = repository.incoming_dir().join("in.pack");
            std::fs::copy(Path::new(pack), &copy)?;
            repository.ingest(&copy)?;
            report("ingested")?;
            let pack = repository.pack_for(&[want.parse()?], &[have.parse()?])?;
            report(&format!("cut out {} bytes", pack.len()))
        }
        [what, from, to @ ..] if what == "relay" => relay(&repository, from.parse()?, to).await,
        _ => anyhow::bail!("usage: pack_relay ingest PACK | cut PACK HAVE WANT | relay FROM-URL TO-URL…"),
    }
}

async fn relay(repository: &Repository, from: Url, to: &[String]) -> anyhow::Result<()> {
    let http = GitHttp::new(http_client(Duration::from_secs(10), None)?, Limits::default());
    let listed = http.ls_refs(&from).await?;
    let refs: Refs =
        listed.refs.into_iter().filter_map(|(name, id)| Some((name.parse().ok()?, id))).collect();
    let wants: Vec<_> = refs.values().copied().collect();
    let pack = http.fetch_pack(&from, &wants, &[], Room::up_to(1 << 40), &repository.incoming_dir()).await?;
    report(&format!("fetched {} bytes", pack.bytes))?;
    let taken = repository.ingest(&pack.path)?;
    report(&format!("ingested {} objects", taken.objects))?;
    repository.set_refs(&refs, None, 1)?;
    report(&format!("set {} refs", refs.len()))?;
    let pushes = to.iter().map(|to| async {
        let server = http.receive_pack_refs(&to.parse()?).await?;
        let pack = repository.pack_for(&wants, &server.haves())?;
        http.push(&server, &commands_to(&server.refs, &refs), &pack).await?;
        anyhow::Ok(())
    });
    futures::future::try_join_all(pushes).await?;
    report(&format!("pushed to {} servers", to.len()))
}

fn report(step: &str) -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15: user and system time in hundredths of a second.
    let ticks: u64 = stat.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    let cpu_ms = ticks * 10;
    let peak = peak.split_whitespace().nth(1).unwrap_or("?");
    println!("{step}: cpu_ms={cpu_ms} peak_kib={peak}");
    Ok(())
}
