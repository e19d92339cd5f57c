#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, os::unix::fs::MetadataExt};

use proptest::prelude::*;

use super::*;
use crate::git::{
    Pack,
    testing::{Source, bare, check, git, refs_of, text, tips},
};

fn repository() -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open_or_create(&dir.path().join("npub/name.git")).unwrap();
    (dir, repository)
}

fn bytes(pack: &Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut pack.reader().unwrap(), &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, pack.len());
    bytes
}

/// Takes in everything of `source` that is not there yet, as one more pack.
fn take(repository: &Repository, source: &Source, args: &[&str]) -> Ingested {
    let refs = source.refs();
    let haves = tips(&repository.refs().unwrap());
    let pack = source.pack(&tips(&refs), &haves, args, &repository.incoming_dir());
    let before = fs::read(&pack).unwrap();
    let taken = repository.ingest(&pack).unwrap();
    assert!(before == fs::read(&pack).unwrap(), "servers may be reading it");
    fs::remove_file(pack).unwrap();
    repository.set_refs(&refs, None, 1).unwrap();
    taken
}

#[test]
fn a_repository_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c.git");
    assert!(Repository::open(&path).unwrap().is_none());
    let made = Repository::open_or_create(&path).unwrap();
    assert!(made.incoming_dir().is_dir());
    assert_eq!(text(&path, &["rev-parse", "--is-bare-repository"]), "true");
    assert!(Repository::open(&path).unwrap().is_some());
    assert!(Repository::open_or_create(&path).is_ok());
}

#[test]
fn leftovers_of_a_crashed_run_go_and_this_runs_packs_stay() {
    let (_dir, repository) = repository();
    let own = repository.incoming_dir().join("in-use.pack");
    fs::write(&own, b"x").unwrap();
    let orphan = repository.path().join("objects/pack/pack-1.pack");
    fs::write(&orphan, b"x").unwrap();
    Repository::open_or_create(repository.path()).unwrap();
    assert!(own.exists() && orphan.exists(), "without a crash everything may be in use");

    let old = repository.path().join("incoming/1-1");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("half.pack"), b"x").unwrap();
    Repository::open_or_create(repository.path()).unwrap();
    assert!(own.exists() && !orphan.exists() && !old.exists());
}

#[test]
fn a_pack_taken_in_is_what_git_makes_of_it() {
    let mut source = Source::new(1);
    source.grow(20);
    let (_dir, repository) = repository();
    for args in [&["--delta-base-offset"][..], &[]] {
        let pack = source.pack(&tips(&source.refs()), &[], args, &repository.incoming_dir());
        let taken = repository.ingest(&pack).unwrap();
        let index = taken.pack.unwrap().with_extension("idx");
        let ours = fs::read(&index).unwrap();
        git(
            repository.path(),
            &["index-pack", "--strict", index.with_extension("pack").to_str().unwrap()],
            b"",
        );
        assert!(ours == fs::read(&index).unwrap(), "git writes the same index");
    }
    check(repository.path(), &source.refs());
    assert!(repository.missing(tips(&source.refs())).unwrap().is_empty());
}

#[test]
fn a_pack_that_lacks_an_object_is_refused() {
    let mut source = Source::new(2);
    let first = source.commit();
    let second = source.commit();
    let (_dir, repository) = repository();
    let pack = source.pack(&[second], &[first], &[], &repository.incoming_dir());
    let error = repository.ingest(&pack).unwrap_err();
    assert!(matches!(&error, GitError::Pack { source: PackError::Incomplete { .. }, .. }), "{error}");
    assert!(error.to_string().contains("name.git"), "{error}");
    assert_eq!(fs::read_dir(repository.path().join("objects/pack")).unwrap().count(), 0);
    assert_eq!(repository.missing([second]).unwrap(), [second]);
}

#[test]
fn a_pack_of_something_else_than_was_asked_for_is_not_kept() {
    let (mut asked, mut other) = (Source::new(4), Source::new(5));
    let (want, unasked) = (asked.commit(), other.commit());
    let (_dir, repository) = repository();
    let packs = || fs::read_dir(repository.path().join("objects/pack")).unwrap().count();

    let pack = other.pack(&[unasked], &[], &[], &repository.incoming_dir());
    let error = repository.ingest_fetched(&pack, &[want]).unwrap_err();
    assert!(matches!(&error, GitError::Pack { source: PackError::Unasked { .. }, .. }), "{error}");
    assert!(error.to_string().contains(&want.to_string()), "{error}");
    assert_eq!(packs(), 0);

    let pack = asked.pack(&[want], &[], &[], &repository.incoming_dir());
    repository.ingest_fetched(&pack, &[want]).unwrap();
    assert!(repository.missing([want]).unwrap().is_empty());
}

#[test]
fn a_thin_pack_is_completed() {
    let mut source = Source::new(3);
    source.grow(10);
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    source.grow(5);
    let refs = source.refs();
    let haves = tips(&repository.refs().unwrap());
    let thin = source.pack(&tips(&refs), &haves, &["--thin"], &repository.incoming_dir());
    let (_other, elsewhere) = self::repository();
    let copy = elsewhere.incoming_dir().join("copy");
    fs::copy(&thin, &copy).unwrap();
    let error = elsewhere.ingest(&copy).unwrap_err();
    assert!(matches!(&error, GitError::Pack { source: PackError::NoBase { .. }, .. }), "{error}");

    repository.ingest(&thin).unwrap();
    check(repository.path(), &refs);
}

#[test]
fn a_submodule_is_no_missing_object() {
    let mut source = Source::new(4);
    source.commit();
    let entry = "160000,1111111111111111111111111111111111111111,module";
    source.git(&["update-index", "--add", "--cacheinfo", entry]);
    source.git(&["commit", "-q", "-m", "submodule"]);
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let had = tips(&repository.refs().unwrap());
    source.git(&["commit", "-q", "--allow-empty", "-m", "more"]);
    take(&repository, &source, &[]);
    assert!(!repository.pack_for(&tips(&source.refs()), &had).unwrap().is_empty());
}

#[test]
fn an_empty_pack_is_taken_and_not_kept() {
    let (_dir, repository) = repository();
    let path = repository.incoming_dir().join("empty");
    fs::write(&path, bytes(&Pack::Empty)).unwrap();
    let taken = repository.ingest(&path).unwrap();
    assert_eq!(taken, Ingested { objects: 0, pack: None, bytes: 32 });
    git(repository.path(), &["index-pack", "--stdin", "--strict"], &bytes(&Pack::Empty));
}

#[test]
fn old_tips_are_archived_and_the_same_again_changes_nothing() {
    let mut source = Source::new(5);
    let first = source.commit();
    source.git(&["tag", "-a", "-m", "t", "v1"]);
    let second = source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let main: crate::model::refs::RefName = "refs/heads/main".parse().unwrap();
    let nested: crate::model::refs::RefName = "refs/heads/main/nested".parse().unwrap();
    let mut refs = repository.refs().unwrap();
    assert_eq!(refs, source.refs());
    assert!(repository.set_refs(&refs, Some(&main), 100).unwrap().is_empty());

    refs.insert(main.clone(), first);
    let rewound = repository.set_refs(&refs, None, 100).unwrap();
    assert_eq!((rewound.updated, rewound.rewritten), (1, 1));
    assert_eq!(rewound.archived, ["refs/archive/100/heads/main"]);
    refs.insert(main.clone(), second);
    let forward = repository.set_refs(&refs, None, 100).unwrap();
    assert_eq!((forward.archived.len(), forward.rewritten), (0, 0), "forward loses nothing");

    // `main` makes place for `main/nested`, in the same second as before; the tag goes.
    let refs = Refs::from([(nested.clone(), second)]);
    let changes = repository.set_refs(&refs, Some(&nested), 100).unwrap();
    assert_eq!((changes.created, changes.deleted, changes.head_moved), (1, 2, true));
    assert_eq!(changes.rewritten, 0, "what is deleted is not rewritten");
    assert_eq!(changes.archived, ["refs/archive/101/heads/main", "refs/archive/101/tags/v1"]);
    assert_eq!(refs_of(repository.path()), refs);
    assert_eq!(text(repository.path(), &["symbolic-ref", "HEAD"]), nested.as_str());
    assert_eq!(text(repository.path(), &["rev-parse", "refs/archive/100/heads/main"]), second.to_string());
}

#[test]
fn refs_that_cannot_be_set_change_nothing() {
    let mut source = Source::new(6);
    source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let before = repository.refs().unwrap();
    let with = |name: &str, id: &str| {
        let mut refs = before.clone();
        refs.insert(name.parse().unwrap(), id.parse().unwrap());
        repository.set_refs(&refs, None, 1).unwrap_err().to_string()
    };
    let absent = with("refs/heads/x", &"1".repeat(40));
    assert!(absent.contains("refs/heads/x") && absent.contains(&"1".repeat(40)), "{absent}");
    let tree = with("refs/heads/x", &source.git(&["rev-parse", "HEAD^{tree}"]));
    assert!(tree.contains("is a tree"), "{tree}");
    let tip = source.git(&["rev-parse", "HEAD"]);
    let nested = with("refs/heads/main/nested", &tip);
    assert!(nested.contains("refs/heads/main/nested cannot be there beside refs/heads/main"), "{nested}");
    let lock = repository.path().join("packed-refs.lock");
    fs::write(&lock, "").unwrap();
    let locked = with("refs/heads/x", &tip);
    assert!(locked.contains(&lock.display().to_string()), "{locked}");
    assert_eq!((lock.exists(), repository.refs().unwrap()), (true, before));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever becomes of branches, tags and folders of them, and whatever another git has left in files of their own:
    /// git sees what is set, and what is none of it stays.
    #[test]
    fn refs_are_what_was_set_last(
        steps in proptest::collection::vec(
            proptest::collection::btree_map("(heads|tags)/[a-c](/[a-c])?", 0..2_usize, 0..6),
            1..6,
        ),
        by_git in proptest::collection::vec(any::<bool>(), 6),
    ) {
        let mut source = Source::new(8);
        let tips = [source.commit(), source.commit()];
        let (_dir, repository) = repository();
        take(&repository, &source, &[]);
        git(repository.path(), &["update-ref", "refs/notes/commits", &tips[0].to_string()], &[]);
        for ((at, step), by_git) in (100..).zip(steps).zip(by_git) {
            let mut refs = Refs::new();
            for (name, tip) in step {
                let name: crate::model::refs::RefName = format!("refs/{name}").parse().unwrap();
                let (short, long) = (name.as_str().get(..name.as_str().len() - 2), format!("{name}/"));
                let clashes = |other: &crate::model::refs::RefName| {
                    Some(other.as_str()) == short || other.as_str().starts_with(&long)
                };
                if !refs.keys().any(clashes) {
                    refs.insert(name, tips[tip]);
                }
            }
            if by_git {
                git(repository.path(), &["update-ref", "refs/heads/d", &tips[1].to_string()], &[]);
            }
            repository.set_refs(&refs, None, at).unwrap();
            prop_assert_eq!(&repository.refs().unwrap(), &refs);
            prop_assert_eq!(refs_of(repository.path()), refs);
            prop_assert_eq!(text(repository.path(), &["rev-parse", "refs/notes/commits"]), tips[0].to_string());
        }
        git(repository.path(), &["fsck", "--strict"], &[]);
        git(repository.path(), &["pack-refs", "--all"], &[]);
        let last = repository.refs().unwrap();
        prop_assert_eq!(refs_of(repository.path()), last);
    }
}

#[test]
fn refs_are_one_file_that_git_reads() {
    let mut source = Source::new(9);
    let tip = source.commit();
    source.git(&["tag", "-a", "-m", "t", "v1"]);
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let alone = |folder: &str| fs::read_dir(repository.path().join(folder)).unwrap().count();
    assert_eq!((alone("refs/heads"), alone("refs/tags")), (0, 0));
    assert_eq!(text(repository.path(), &["rev-parse", "v1^{commit}"]), tip.to_string());
    assert_eq!(text(repository.path(), &["describe", "main"]), "v1");

    // As an earlier version left them, and a person.
    git(repository.path(), &["update-ref", "refs/heads/by-hand", &tip.to_string()], &[]);
    git(repository.path(), &["symbolic-ref", "refs/heads/alias", "refs/heads/main"], &[]);
    repository.set_refs(&source.refs(), None, 5).unwrap();
    assert_eq!(alone("refs/heads"), 1, "the alias is a person's");
    assert_eq!(repository.refs().unwrap(), source.refs());
    assert_eq!(text(repository.path(), &["rev-parse", "refs/archive/5/heads/by-hand"]), tip.to_string());
}

#[test]
fn pull_requests_keep_their_commits() {
    let mut source = Source::new(7);
    let tip = source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let event = "ab".repeat(32);
    let set = |id: &str, tip| repository.set_pull_requests(&BTreeMap::from([(id.to_owned(), tip)]));
    set(&event, tip).unwrap();
    assert_eq!(text(repository.path(), &["rev-parse", &format!("refs/nostr/{event}")]), tip.to_string());
    assert!(set("../../x", tip).is_err());
    assert!(set(&event, ObjectId::Sha1([1; 20])).is_err());
    let written = || repository.path().join("packed-refs").metadata().unwrap().ino();
    let before = written();
    set(&event, tip).unwrap();
    assert_eq!(written(), before, "what is there is not written again");
}

#[test]
fn who_sets_refs_at_the_same_time_loses_none() {
    let mut source = Source::new(10);
    let tip = source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    std::thread::scope(|scope| {
        for worker in 0..4_u8 {
            let repository = &repository;
            scope.spawn(move || {
                for round in 0..5_u8 {
                    let id = format!("{worker:02}{round:02}").repeat(16);
                    repository.set_pull_requests(&BTreeMap::from([(id, tip)])).unwrap();
                }
            });
        }
    });
    let kept = text(repository.path(), &["for-each-ref", "--format=%(refname)", "refs/nostr"]);
    assert_eq!(kept.lines().count(), 20);
}

#[test]
fn lfs_is_noticed() {
    let mut source = Source::new(8);
    source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    assert!(!repository.uses_lfs(&source.refs()).unwrap());
    fs::write(source.path().join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    source.commit();
    take(&repository, &source, &[]);
    assert!(repository.uses_lfs(&source.refs()).unwrap());
}

#[test]
fn one_stored_pack_is_streamed_as_it_is_and_nothing_is_sent_to_who_has_it() {
    let mut source = Source::new(9);
    source.grow(5);
    let (_dir, repository) = repository();
    let taken = take(&repository, &source, &[]);
    let wants = tips(&source.refs());
    let pack = repository.pack_for(&wants, &[]).unwrap();
    assert_eq!(pack.path(), taken.pack.as_deref());
    assert!(repository.pack_for(&wants, &wants).unwrap().is_empty());
    // An ancestor is wanted: nothing new.
    assert!(repository.pack_for(&[source.id("main~2")], &[source.id("main")]).unwrap().is_empty());
    assert!(repository.pack_for(&[ObjectId::Sha1([1; 20])], &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Several packs, joined for a server that has nothing, and cut for servers that have some.
    #[test]
    fn servers_get_what_they_need(seed in 1_u64..1_000_000, steps in prop::collection::vec(1_u64..6, 1..5)) {
        let mut source = Source::new(seed);
        let (_dir, repository) = repository();
        let mut seen = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            source.grow(*step);
            let args: &[&str] = if number % 2 == 0 { &["--delta-base-offset"] } else { &[] };
            take(&repository, &source, args);
            seen.push(source.refs());
        }
        // Objects twice: a pack of everything beside the small ones.
        if seed % 2 == 0 {
            let all = source.pack(&tips(&source.refs()), &[], &[], &repository.incoming_dir());
            repository.ingest(&all).unwrap();
        }
        let refs = source.refs();
        let all = bytes(&repository.pack_for(&tips(&refs), &[ObjectId::Sha1([7; 20])]).unwrap());
        let fresh = bare();
        git(fresh.path(), &["index-pack", "--stdin", "--strict"], &all);
        check(fresh.path(), &refs);
        for earlier in &seen {
            let server = bare();
            let theirs = source.pack(&tips(earlier), &[], &[], server.path());
            git(server.path(), &["index-pack", "--stdin", "--strict"], &fs::read(theirs).unwrap());
            check(server.path(), earlier);
            let pack = bytes(&repository.pack_for(&tips(&refs), &tips(earlier)).unwrap());
            prop_assert!(pack.len() <= all.len());
            git(server.path(), &["index-pack", "--stdin", "--strict", "--fix-thin"], &pack);
            check(server.path(), &refs);
        }
    }

    /// One flipped byte, or a cut: an error, no panic, and nothing taken in.
    #[test]
    fn a_damaged_pack_is_refused(at in 0_usize..4000, flip in 1_u8..=255, cut: bool) {
        let mut source = Source::new(11);
        source.commit();
        source.commit();
        let (_dir, repository) = repository();
        let pack = source.pack(&tips(&source.refs()), &[], &["--delta-base-offset"], &repository.incoming_dir());
        let mut damaged = fs::read(&pack).unwrap();
        let at = at % damaged.len();
        if cut { damaged.truncate(at) } else { damaged[at] ^= flip }
        fs::write(&pack, damaged).unwrap();
        prop_assert!(repository.ingest(&pack).is_err());
        prop_assert_eq!(fs::read_dir(repository.path().join("objects/pack")).unwrap().count(), 0);
    }
}

#[test]
fn what_was_lost_is_given_back_until_its_time_is_over() {
    let mut source = Source::new(21);
    source.commit();
    source.git(&["tag", "-a", "-m", "t", "v1"]);
    source.git(&["branch", "kept"]);
    let gone = source.commit();
    let (dir, repository) = repository();
    let [main, kept]: [crate::model::refs::RefName; 2] =
        ["refs/heads/main", "refs/heads/kept"].map(|name| name.parse().unwrap());
    let at_first = source.refs();
    let pack = source.pack(&tips(&at_first), &[], &[], &repository.incoming_dir());
    repository.ingest(&pack).unwrap();
    repository.set_refs(&at_first, Some(&main), 100).unwrap();
    let later = Refs::from([(kept.clone(), at_first[&kept])]);
    repository.set_refs(&later, Some(&kept), 200).unwrap();

    let archived = repository.archived().unwrap();
    let named: Vec<_> = archived.iter().map(|old| (old.at, old.name.as_str())).collect();
    assert_eq!(named, [(200, "refs/heads/main"), (200, "refs/tags/v1")]);
    assert_eq!(archived[0].tip, gone);
    let past = repository.past(150).unwrap();
    assert_eq!((&past.refs, past.head.as_ref(), past.known_since), (&at_first, Some(&main), Some(100)));
    assert_eq!(repository.past(200).unwrap().refs, later);
    assert!(repository.past(99).unwrap().refs.is_empty(), "there was nothing yet");

    let into = dir.path().join("restored");
    repository.restore(&past.refs, past.head.as_ref(), &into).unwrap();
    check(&into.join(".git"), &at_first);
    assert_eq!(text(&into, &["status", "--porcelain", "--branch"]), "## main");
    assert!(matches!(repository.restore(&later, None, &into), Err(GitError::NotEmpty { .. })));
    assert!(!into.join(".git/incoming").exists());

    assert_eq!(repository.expire_archive(200).unwrap(), 0);
    assert_eq!(repository.past(150).unwrap().refs, at_first);
    assert_eq!(repository.expire_archive(201).unwrap(), 2);
    assert_eq!(repository.archived().unwrap(), []);
    let guessed = repository.past(150).unwrap();
    assert_eq!((guessed.refs, guessed.known_since), (later.clone(), Some(201)));
    assert!(repository.missing([gone]).unwrap().is_empty(), "objects stay");
    assert_eq!(refs_of(repository.path()), later);
}

#[test]
fn without_a_log_the_archive_says_what_there_was() {
    let mut source = Source::new(22);
    let first = source.commit();
    let second = source.commit();
    let (_dir, repository) = repository();
    take(&repository, &source, &[]);
    let main: crate::model::refs::RefName = "refs/heads/main".parse().unwrap();
    for (at, tip) in [(100, first), (200, second), (300, first)] {
        repository.set_refs(&Refs::from([(main.clone(), tip)]), None, at).unwrap();
        // As an older version left it.
        fs::remove_file(repository.path().join("refs.log")).unwrap();
    }
    let tip = |at| repository.past(at).unwrap().refs[&main];
    assert_eq!([tip(50), tip(250), tip(300)], [second, second, first]);
    assert_eq!(repository.past(300).unwrap().known_since, None);
}
