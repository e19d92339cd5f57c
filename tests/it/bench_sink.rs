//! What `./scripts/bench` measures against takes pushes of the real git and of our client alike.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use grasp_mirror::{
    git::{
        Repository,
        wire::{GitHttp, Limits, commands_to, http_client},
    },
    model::refs::{ObjectId, Refs},
};
use grasp_mirror_testkit::{Noise, Sink, Taken, Work, look::PATIENCE, tools};

#[tokio::test]
async fn a_sink_takes_every_push() {
    let work = Work::new();
    work.annotated_tag("v1");
    // More than git sends in one piece: it asks first, and then sends chunks.
    let mut noise = Noise::default();
    std::fs::write(work.path().join("noise"), noise.bytes(3 << 20)).unwrap();
    let before = work.refs();
    work.commit("more", "text\n");
    let sink = Sink::start(2, before).await;
    let (tls, _) = Sink::start_tls(1, BTreeMap::new()).await;
    for url in sink.urls("empty").iter().chain(&sink.urls("behind")).chain(&tls.urls("empty")) {
        let mut git = work.command();
        git.env("GIT_SSL_NO_VERIFY", "true").args(["push", url, "refs/heads/*", "refs/tags/*"]);
        tools::must(git).await;
    }
    let git = sink.take();
    assert!(git.up_bytes > 4 * (3 << 20), "{git:?}");
    assert_eq!(git.requests, 4 * 3, "each listed, asked and pushed: {git:?}");
    assert_eq!(sink.take(), Taken::default());

    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&dir.path().join("ours.git")).unwrap();
    let file = repository.incoming_dir().join("in.pack");
    let objects = work.git(&["rev-list", "--objects", "--all"]);
    let pack = work.path().join("objects");
    std::fs::write(&pack, objects).unwrap();
    let mut git = work.command();
    git.args(["pack-objects", "--quiet", "--stdout"])
        .stdin(std::fs::File::open(&pack).unwrap())
        .stdout(std::fs::File::create(&file).unwrap());
    assert!(git.status().unwrap().success());
    repository.ingest(&file).unwrap();
    let refs: Refs = work
        .refs()
        .iter()
        .map(|(name, id)| (name.parse().unwrap(), ObjectId::from_hex(id.as_bytes()).unwrap()))
        .collect();
    let http = GitHttp::new(http_client(PATIENCE, None).unwrap(), Limits::default());
    for url in sink.urls("empty").iter().chain(&sink.urls("behind")) {
        let server = http.receive_pack_refs(&url.parse().unwrap()).await.unwrap();
        let wants: Vec<ObjectId> = refs.values().copied().collect();
        let pack = repository.pack_for(&wants, &server.haves()).unwrap();
        http.push(&server, &commands_to(&server.refs, &refs), &pack).await.unwrap();
    }
    let ours = sink.take();
    assert!(ours.up_bytes >= 4 * (3 << 20), "{ours:?}");
    assert_eq!(ours.requests, 4 * 2, "each listed and pushed: {ours:?}");
}
