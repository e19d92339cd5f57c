//! What forks have in common is stored once, and nobody outside can tell.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::PathBuf;

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Someone whose repository begins with the same commits as everyone's here.
fn fork(d: &str, relay: &TestRelay) -> Owner {
    let owner = Owner::new(d).at_home_on(relay);
    for number in 0..20 {
        owner.work.commit(&format!("src/{number}.rs"), &format!("fn {number}\n").repeat(400 * (number + 1)));
    }
    owner
}

async fn publish(owner: &Owner, server: &Server) {
    let root = owner.work.git(&["rev-list", "--max-parents=0", "HEAD"]);
    owner.publish(owner.announcement().at(server).tag(&["r", &root, "euc"]), server).await;
}

struct Copy(PathBuf);

impl Copy {
    fn of(mirror: &Mirror, owner: &Owner) -> Self {
        Self(mirror.data_dir().join("git").join(owner.npub()).join(format!("{}.git", owner.d)))
    }

    fn borrows(&self) -> bool {
        self.0.join("objects/info/alternates").is_file()
    }

    /// How many objects lie in it, borrowed ones aside.
    fn own_objects(&self) -> usize {
        let counted = tools::git(&self.0).args(["count-objects", "-v"]).output().unwrap();
        let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
        let in_pack = counted.lines().find_map(|line| line.strip_prefix("in-pack: ")).map(str::parse);
        in_pack.and_then(Result::ok).unwrap_or_else(|| panic!("{counted}"))
    }

    async fn check(&self) {
        let mut check = tools::git(&self.0);
        check.args(["fsck", "--full", "--strict"]);
        tools::must(check).await;
    }
}

/// A clone has every ref, and everything they need.
async fn is_cloned(url: &str, owner: &Owner) {
    assert_eq!(look::refs(url).await, owner.work.refs());
    let folder = tempfile::tempdir().unwrap();
    let mut clone = tools::git(folder.path());
    clone.args(["clone", "--quiet", "--mirror", url, "copy"]);
    tools::must(clone).await;
    let mut check = tools::git(&folder.path().join("copy"));
    check.args(["fsck", "--full", "--strict"]);
    tools::must(check).await;
}

#[tokio::test]
async fn objects_of_forks_are_stored_once_and_every_server_gets_all_of_them() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let (one, two) = (fork("upstream", &relay), fork("my-fork", &relay));
    two.work.commit("mine.txt", "mine");
    publish(&one, &a).await;
    publish(&two, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&one).watches(&two);
    mirror.once().await.expect_code(0);

    // Both came at once; one of them dropped what the other has.
    let (first, second) = (Copy::of(&mirror, &one), Copy::of(&mirror, &two));
    assert!(first.borrows() != second.borrows(), "one lends, one borrows");
    let (lends, borrows) = if first.borrows() { (&second, &first) } else { (&first, &second) };
    assert!(borrows.own_objects() < 8, "{} of {}", borrows.own_objects(), lends.own_objects());
    for (copy, owner) in [(&first, &one), (&second, &two)] {
        copy.check().await;
        is_cloned(&mirror.url_at(&b, &owner.d), owner).await;
    }

    // Another one borrows from the start, and is whole on the servers all the same.
    let three = fork("late", &relay);
    three.work.commit("late.txt", "late");
    publish(&three, &a).await;
    let mirror = mirror.watches(&three);
    mirror.once().await.expect_code(0);
    let third = Copy::of(&mirror, &three);
    assert!(third.borrows());
    assert!(third.own_objects() < 8, "{}", third.own_objects());
    third.check().await;
    is_cloned(&mirror.url_at(&b, "late"), &three).await;

    // All of them go on as before.
    for owner in [&one, &two, &three] {
        owner.work.commit("more.txt", &owner.d);
        owner.update(&a).await;
    }
    mirror.once().await.expect_code(0);
    for owner in [&one, &two, &three] {
        Copy::of(&mirror, owner).check().await;
        is_cloned(&mirror.url_at(&b, &owner.d), owner).await;
    }
}
