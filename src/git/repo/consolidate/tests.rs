//! Housekeeping, judged by git itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::{
    git::{
        Pack, PackError,
        pack::MAX_PACKS,
        testing::{Source, bare, check, git, text, tips},
    },
    model::refs::{ObjectId, Refs},
};

/// Where the test that is killed finds its repository, and after how many steps it is killed.
const KILLED: &str = "GRASP_MIRROR_TEST_KILLED";

struct Scene {
    dir: TempDir,
    source: Source,
    repository: Repository,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("npub1a/name.git")).unwrap();
        Self { dir, source: Source::new(seed), repository }
    }

    /// Takes one more pack with what is new in the source; every third was thin, and holds bases twice.
    fn take(&mut self, number: usize) {
        self.source.grow(1);
        take(&self.repository, &self.source.refs(), |wants, haves, to| {
            let args = [&["--delta-base-offset"][..], &[], &["--thin"]][number % 3];
            self.source.pack(wants, haves, args, to)
        });
    }

    fn with_packs(seed: u64, count: usize) -> Self {
        let mut scene = Self::new(seed);
        (0..count).for_each(|number| scene.take(number));
        scene
    }

    /// Another repository beside this one that takes everything of `source` at once.
    fn beside(&self, name: &str, source: &Source) -> Repository {
        let repository = Repository::open_or_create(&self.dir.path().join(name)).unwrap();
        take(&repository, &source.refs(), |wants, haves, to| source.pack(wants, haves, &[], to));
        repository
    }

    /// The repository as the next run finds it.
    fn reopened(&self) -> Repository {
        fs::create_dir_all(self.repository.path().join("incoming/1-1")).unwrap();
        Repository::open_or_create(self.repository.path()).unwrap()
    }

    /// The same scene in another folder, as it is now.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.dir.path()).arg(copy.path().join("copy")).status();
        assert!(copied.unwrap().success());
        copy
    }
}

fn take(repository: &Repository, refs: &Refs, pack: impl FnOnce(&[ObjectId], &[ObjectId], &Path) -> PathBuf) {
    let mut haves = tips(&repository.refs().unwrap());
    haves.extend(tips(&repository.borrowed_refs().unwrap()));
    haves.retain(|id| repository.missing([*id]).unwrap().is_empty());
    let pack = pack(&tips(refs), &haves, &repository.incoming_dir());
    repository.ingest(&pack).unwrap();
    fs::remove_file(pack).unwrap();
    repository.set_refs(refs, None, 1).unwrap();
}

fn objects(repository: &Repository) -> BTreeSet<String> {
    let all = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"];
    text(repository.path(), &all).lines().map(str::to_owned).collect()
}

/// The objects that lie in the repository itself, each with how often; and which of them are bases of deltas.
fn stored(repository: &Repository) -> (BTreeMap<String, usize>, BTreeSet<String>) {
    let (mut all, mut bases) = (BTreeMap::new(), BTreeSet::new());
    for pack in packs_in(&repository.path().join("objects")).unwrap() {
        let index = pack.path.with_extension("idx");
        for line in text(repository.path(), &["verify-pack", "-v", index.to_str().unwrap()]).lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.len() >= 5 && words[0].len() == 40 {
                *all.entry(words[0].to_owned()).or_default() += 1;
                bases.extend(words.get(6).map(|base| (*base).to_owned()));
            }
        }
    }
    (all, bases)
}

fn packs(repository: &Repository) -> usize {
    packs_in(&repository.path().join("objects")).unwrap().len()
}

fn go_on() -> bool {
    true
}

/// Git makes the same index of every pack, and finds nothing wrong.
fn check_all(repository: &Repository, refs: &Refs) {
    for pack in packs_in(&repository.path().join("objects")).unwrap() {
        let ours = fs::read(pack.path.with_extension("idx")).unwrap();
        git(repository.path(), &["index-pack", "--strict", pack.path.to_str().unwrap()], b"");
        assert!(ours == fs::read(pack.path.with_extension("idx")).unwrap(), "git writes another index");
    }
    check(repository.path(), refs);
    assert!(repository.missing(tips(refs)).unwrap().is_empty());
}

#[test]
fn many_packs_become_one_with_every_object_once() {
    let mut scene = Scene::with_packs(21, MAX_PACKS);
    assert_eq!(scene.repository.consolidate(0, &go_on).unwrap(), None);
    scene.take(MAX_PACKS);
    let before = objects(&scene.repository);
    let done = scene.repository.consolidate(0, &go_on).unwrap().unwrap();
    assert_eq!(done.joined, MAX_PACKS + 1);
    assert!(done.after_bytes <= done.before_bytes, "{done:?}");
    assert_eq!(packs(&scene.repository), 1);
    check_all(&scene.repository, &scene.source.refs());
    assert_eq!(objects(&scene.repository), before);
    assert!(stored(&scene.repository).0.values().all(|times| *times == 1));
    assert_eq!(scene.repository.consolidate(0, &go_on).unwrap(), None);
    let left = fs::read_dir(scene.repository.incoming_dir()).unwrap().count();
    assert_eq!(left, 0, "nothing is left in the folder for what comes in");
}

#[test]
fn a_large_pack_stays_and_the_small_ones_join() {
    let mut scene = Scene::new(22);
    fs::write(scene.source.path().join("large"), "x".repeat(500_000)).unwrap();
    scene.source.commit();
    take(&scene.repository, &scene.source.refs(), |wants, haves, to| {
        scene.source.pack(wants, haves, &["--compression=0"], to)
    });
    let large = packs_in(&scene.repository.path().join("objects")).unwrap().remove(0).path;
    (0..MAX_PACKS).for_each(|number| scene.take(number));
    let before = objects(&scene.repository);
    let done = scene.repository.consolidate(0, &go_on).unwrap().unwrap();
    assert_eq!(done.joined, MAX_PACKS);
    assert!(large.exists());
    assert_eq!(packs(&scene.repository), 2);
    check_all(&scene.repository, &scene.source.refs());
    assert_eq!(objects(&scene.repository), before);
}

#[test]
fn without_room_nothing_is_begun() {
    let scene = Scene::with_packs(23, MAX_PACKS + 1);
    assert_eq!(scene.repository.consolidate(u64::MAX / 2, &go_on).unwrap(), None);
    assert_eq!(packs(&scene.repository), MAX_PACKS + 1);
}

#[test]
fn a_damaged_pack_is_not_copied_and_nothing_goes() {
    let scene = Scene::with_packs(24, MAX_PACKS + 1);
    // The largest: of what is in several packs its copy is the one that is taken.
    let packs_there = packs_in(&scene.repository.path().join("objects")).unwrap();
    let pack = packs_there.into_iter().max_by_key(|pack| pack.len).unwrap().path;
    let mut bytes = fs::read(&pack).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    let mut permissions = pack.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&pack, permissions).unwrap();
    fs::write(&pack, bytes).unwrap();
    let error = scene.repository.consolidate(0, &go_on).unwrap_err();
    assert!(matches!(error, GitError::Pack { source: PackError::Malformed { .. }, .. }), "{error}");
    assert_eq!(packs(&scene.repository), MAX_PACKS + 1);
}

/// Told to stop after each number of steps: what the next run finds is whole, and it finishes.
#[test]
fn stopped_between_any_two_steps_nothing_is_lost() {
    let scene = Scene::with_packs(25, MAX_PACKS + 1);
    let before = objects(&scene.repository);
    let refs = scene.source.refs();
    for steps in (0..).step_by(3) {
        let copy = scene.copy();
        let dir = copy.path().join("copy/npub1a/name.git");
        let repository = Repository::open(&dir).unwrap().unwrap();
        let asked = Cell::new(0);
        let some_steps = || {
            asked.set(asked.get() + 1);
            asked.get() <= steps
        };
        repository.consolidate(0, &some_steps).unwrap();
        assert_eq!(objects(&repository), before);
        fs::create_dir_all(dir.join("incoming/1-1")).unwrap();
        let repository = Repository::open_or_create(&dir).unwrap();
        git(&dir, &["fsck", "--full", "--strict"], b"");
        assert_eq!(objects(&repository), before);
        repository.consolidate(0, &go_on).unwrap();
        assert!(packs(&repository) <= MAX_PACKS);
        check(&dir, &refs);
        if asked.get() < steps {
            assert!(steps > MAX_PACKS, "one step a pack at least");
            return;
        }
    }
}

/// Not a test of its own: the process that the next test starts, and that kills itself.
#[test]
fn killed() {
    let Ok(told) = std::env::var(KILLED) else { return };
    let (steps, dir) = told.split_once(' ').unwrap();
    let left = Cell::new(steps.parse::<usize>().unwrap());
    let kill_in_time = || {
        match left.get().checked_sub(1) {
            Some(fewer) => left.set(fewer),
            None => {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        true
    };
    let repository = Repository::open_or_create(Path::new(dir)).unwrap();
    repository.consolidate(0, &kill_in_time).unwrap();
}

#[test]
fn a_process_killed_at_any_step_leaves_a_whole_repository() {
    let scene = Scene::with_packs(26, MAX_PACKS + 1);
    let before = objects(&scene.repository);
    for steps in [0, 1, 2, 3, 4, 9, 30] {
        let copy = scene.copy();
        let dir = copy.path().join("copy/npub1a/name.git");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "git::repo::consolidate::tests::killed"])
            .env(KILLED, format!("{steps} {}", dir.display()))
            .output()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
        assert_eq!(signal, Some(9), "{steps}: {}", String::from_utf8_lossy(&child.stdout));
        git(&dir, &["fsck", "--full", "--strict"], b"");
        let repository = Repository::open_or_create(&dir).unwrap();
        assert_eq!(objects(&repository), before, "killed after {steps} steps");
        repository.consolidate(0, &go_on).unwrap();
        assert!(packs(&repository) <= MAX_PACKS);
        check(&dir, &scene.source.refs());
        assert_eq!(fs::read_dir(dir.join("incoming")).unwrap().count(), 1, "leftovers of the killed run");
        let files = fs::read_dir(dir.join("objects/pack")).unwrap().count();
        assert_eq!(files, 2 * packs(&repository));
    }
}

#[test]
fn packs_in_use_stay_until_the_next_time() {
    let scene = Scene::with_packs(27, MAX_PACKS + 1);
    let held = hold_packs();
    assert_eq!(scene.repository.consolidate(0, &go_on).unwrap(), None);
    assert_eq!(packs(&scene.repository), MAX_PACKS + 2, "the joined one is there already");
    drop(held);
    scene.repository.consolidate(0, &go_on).unwrap().unwrap();
    assert_eq!(packs(&scene.repository), 1);
    check_all(&scene.repository, &scene.source.refs());
}

/// What a fork and its base share lies in the base only, but for bases of deltas of the fork's own.
fn check_shared(base: &Repository, fork: &Repository) {
    let ((lent, _), (own, bases)) = (stored(base), stored(fork));
    for (id, times) in own {
        assert_eq!(times, 1, "{id} is stored {times} times");
        assert!(!lent.contains_key(&id) || bases.contains(&id), "{id} is stored in both, and no base");
    }
}

#[test]
fn a_fork_that_is_there_already_drops_what_its_base_has() {
    let mut scene = Scene::with_packs(28, 3);
    let root = scene.source.id("main~2");
    scene.source.grow(4);
    let fork = scene.beside("npub1b/fork.git", &scene.source);
    let before = objects(&fork);
    let size = |repository: &Repository| -> u64 {
        packs_in(&repository.path().join("objects")).unwrap().iter().map(|pack| pack.len).sum()
    };
    let alone = size(&fork);

    assert!(
        !fork.borrow_from(&scene.repository, &[ObjectId::Sha1([7; 20])]).unwrap(),
        "it lacks that commit"
    );
    assert!(!fork.borrow_from(&fork, &[root]).unwrap(), "nobody lends to itself");
    std::thread::sleep(Duration::from_millis(20));
    assert!(fork.borrow_from(&scene.repository, &[root]).unwrap());
    let done = fork.consolidate(0, &go_on).unwrap().unwrap();
    assert!(done.after_bytes < alone && size(&fork) == done.after_bytes, "{done:?} of {alone}");
    assert_eq!(objects(&fork), before);
    check_shared(&scene.repository, &fork);
    check(fork.path(), &scene.source.refs());
    assert_eq!(fork.consolidate(0, &go_on).unwrap(), None, "once is enough");

    // No chains, and nobody borrows from who borrows.
    let third = scene.beside("npub1c/third.git", &scene.source);
    assert!(!third.borrow_from(&fork, &[root]).unwrap());
    assert!(!scene.repository.borrow_from(&third, &[root]).unwrap(), "who lends does not borrow");
    assert!(third.borrow_from(&scene.repository, &[root]).unwrap());
    let refused =
        Command::new("git").arg("-C").arg(scene.repository.path()).args(["repack", "-adq"]).output();
    assert!(!refused.unwrap().status.success(), "git takes nothing away from who lends");

    // Moved as a whole, the data folder still works.
    let moved = scene.copy();
    let fork = moved.path().join("copy/npub1b/fork.git");
    check(&fork, &scene.source.refs());
    let fork = Repository::open(&fork).unwrap().unwrap();
    assert!(fork.missing(tips(&scene.source.refs())).unwrap().is_empty());
    fs::remove_dir_all(moved.path().join("copy/npub1a")).unwrap();
    let error = Repository::open_or_create(fork.path()).unwrap_err();
    assert!(matches!(error, GitError::BaseGone { .. }), "{error}");
}

#[test]
fn a_copy_of_the_same_keeps_no_pack_of_its_own() {
    let scene = Scene::with_packs(29, 2);
    let twin = scene.beside("npub1b/twin.git", &scene.source);
    std::thread::sleep(Duration::from_millis(20));
    assert!(twin.borrow_from(&scene.repository, &tips(&scene.source.refs())).unwrap());
    assert_eq!(twin.consolidate(0, &go_on).unwrap().unwrap().after_bytes, 0);
    assert_eq!(packs(&twin), 0);
    check(twin.path(), &scene.source.refs());
}

#[test]
fn a_fork_that_borrows_from_the_start_fetches_only_what_differs_and_servers_get_it_whole() {
    let mut scene = Scene::with_packs(30, 3);
    let fork = Repository::open_or_create(&scene.dir.path().join("npub1b/fork.git")).unwrap();
    assert!(fork.borrow_from(&scene.repository, &[scene.source.id("main~1")]).unwrap());
    let shared = tips(&fork.borrowed_refs().unwrap());
    assert_eq!(shared, tips(&scene.source.refs()));
    scene.source.grow(2);
    take(&fork, &scene.source.refs(), |wants, haves, to| {
        assert_eq!(haves, shared);
        scene.source.pack(wants, haves, &["--thin"], to)
    });
    check_shared(&scene.repository, &fork);
    check_all(&fork, &scene.source.refs());

    let send = |wants: &Refs, haves: &[ObjectId]| {
        let pack = fork.pack_for(&tips(wants), haves).unwrap();
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut Pack::reader(&pack).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let refs = scene.source.refs();
    let server = bare();
    let all = send(&refs, &[]);
    git(server.path(), &["index-pack", "--stdin", "--strict"], &all);
    check(server.path(), &refs);

    // A small part of what the base has is cut out.
    let first = Refs::from([("refs/heads/main".parse().unwrap(), scene.source.id("main~4"))]);
    let server = bare();
    let part = send(&first, &[]);
    git(server.path(), &["index-pack", "--stdin", "--strict"], &part);
    check(server.path(), &first);

    // The base grows, joins its packs, and its packs go: the fork sees it all.
    (0..MAX_PACKS).for_each(|number| scene.take(number));
    scene.repository.consolidate(0, &go_on).unwrap().unwrap();
    check_all(&fork, &refs);
    let reopened = scene.reopened();
    check_all(&reopened, &scene.source.refs());
}

#[test]
fn an_old_tip_that_is_kept_survives() {
    let scene = Scene::with_packs(31, MAX_PACKS + 1);
    let repository = &scene.repository;
    let before = repository.refs().unwrap();
    let kept: Vec<_> = before.values().copied().collect();
    repository.set_refs(&Refs::new(), None, 100).unwrap();
    assert!(repository.consolidate(0, &go_on).unwrap().is_some());
    let past = repository.past(99).unwrap();
    assert!(repository.missing(kept).unwrap().is_empty());
    assert_eq!(past.known_since, Some(1), "{past:?}");
    let into = tempfile::tempdir().unwrap();
    repository.restore(&past.refs, None, &into.path().join("restored")).unwrap();
    check(&into.path().join("restored/.git"), &before);
}
