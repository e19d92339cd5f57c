//! Joining stored packs: all of them for a server that has nothing, some of their entries for one that is behind.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::fs;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grasp_mirror::{
    git::Repository,
    model::refs::{ObjectId, Refs},
};
use grasp_mirror_testkit::{Work, sources};
use tempfile::TempDir;

const PACKS: usize = 16;
/// Each with one more file of source text.
const COMMITS_EACH: usize = 16;

/// A repository that was fetched in so many steps, and the tip after each.
fn fetched() -> (TempDir, Repository, Vec<ObjectId>) {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&folder.path().join("joined.git")).unwrap();
    let work = Work::empty();
    // Large files among them would say more about copying bytes than about joining.
    let texts = sources().into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let mut texts = texts.filter(|text| (1_000..100_000).contains(&text.len()));
    let mut tips: Vec<String> = Vec::new();
    for step in 0..PACKS {
        for number in 0..COMMITS_EACH {
            work.commit(&format!("src/{step}/{number}.rs"), &texts.next().unwrap());
        }
        let tip = work.rev("HEAD");
        let file = repository.incoming_dir().join("in.pack");
        let wanted = folder.path().join("wanted");
        let known = tips.last().map(|before| format!("^{before}\n")).unwrap_or_default();
        fs::write(&wanted, format!("{tip}\n{known}")).unwrap();
        let mut pack = work.command();
        pack.args(["pack-objects", "--quiet", "--revs", "--stdout", "--delta-base-offset"])
            .stdin(fs::File::open(&wanted).unwrap())
            .stdout(fs::File::create(&file).unwrap());
        assert!(pack.status().unwrap().success());
        repository.ingest(&file).unwrap();
        tips.push(tip);
    }
    let tips: Vec<ObjectId> = tips.iter().map(|tip| tip.parse().unwrap()).collect();
    let refs = Refs::from([("refs/heads/main".parse().unwrap(), *tips.last().unwrap())]);
    repository.set_refs(&refs, None, 1).unwrap();
    (folder, repository, tips)
}

fn joining(criterion: &mut Criterion) {
    let (_folder, repository, tips) = fetched();
    let wants = [*tips.last().unwrap()];
    let mut group = criterion.benchmark_group(format!("{PACKS} packs"));
    for (name, haves) in [("all joined", vec![]), ("the newer half", vec![*tips.get(PACKS / 2 - 1).unwrap()])]
    {
        let bytes = repository.pack_for(&wants, &haves).unwrap().len();
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bencher| {
            bencher.iter(|| repository.pack_for(&wants, &haves).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, joining);
criterion_main!(benches);
