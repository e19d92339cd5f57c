//! A server whose disk is damaged serves packs that are no good: they are thrown away, it is marked, the next source
//! is asked, and the report says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn a_damaged_pack_is_thrown_away_and_the_next_source_asked() {
    let start = || Server::builder().behind_proxy().start();
    let (damaged, good, b, relay) = tokio::join!(start(), start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("small", "too short to be made a delta\n");
    let listing = || owner.announcement().at(&damaged).at(&good);
    let published = owner.publish(listing(), &damaged).await;
    good.send(&published.announcement).await.expect_accepted();
    good.send(&published.state).await.expect_accepted();
    owner.work.push_all(&owner.url_at(&good)).await.unwrap_or_else(|said| panic!("{said}"));
    damage(&damaged.git_folder().join(owner.npub()).join("hello.git"), &owner.work.rev("HEAD:small")).await;

    let mirror = Mirror::new(BINARY).knows(&damaged).knows(&good).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    look::clone(&mirror.url_at(&b, "hello")).await;
    let notes = mirror.status_of(&owner.coordinate()).await["notes"].to_string();
    assert!(notes.contains(&owner.url_at(&damaged)) && notes.contains("thrown away"), "{notes}");

    // From now on it is asked last.
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&good).await;
    damaged.proxy().reset();
    mirror.once().await;
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    assert_eq!(damaged.proxy().seen().count("POST", "git-upload-pack"), 0);
}

/// Changes the last byte of the stored object `id`, which belongs to its checksum: only who inflates it sees that.
async fn damage(repository: &Path, id: &str) {
    let mut repack = tools::git(repository);
    repack.args(["repack", "-a", "-d", "-f", "-q"]);
    tools::must(repack).await;
    let packs = fs::read_dir(repository.join("objects/pack")).unwrap();
    let pack =
        packs.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|it| it == "pack"));
    let pack = pack.expect("a pack");
    let mut verify = tools::git(repository);
    verify.args(["verify-pack", "-v"]).arg(pack.with_extension("idx"));
    let listed = tools::must(verify).await;
    let line = listed.lines().find(|line| line.starts_with(id)).expect("the object is in the pack");
    let numbers: Vec<u64> = line.split_whitespace().skip(2).map(|number| number.parse().unwrap()).collect();
    let [_, stored_len, offset] = numbers[..] else { panic!("it is no delta: {line}") };
    let mut writable = fs::metadata(&pack).unwrap().permissions();
    #[allow(
        clippy::permissions_set_readonly_false,
        reason = "git makes packs read-only; root does not mind"
    )]
    writable.set_readonly(false);
    fs::set_permissions(&pack, writable).unwrap();
    let file = File::options().read(true).write(true).open(&pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + stored_len - 1).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, offset + stored_len - 1).unwrap();
}
