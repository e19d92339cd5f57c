//! A repository that is started over, with tags on everything git can tag: servers follow, and the local copy
//! keeps what was there before.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn servers_follow_and_nothing_is_lost_here() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let work = &owner.work;
    work.commit("folder/file", "x\n");
    let elsewhere = format!("160000,{},submodule", "1".repeat(40));
    work.git(&["update-index", "--add", "--cacheinfo", &elsewhere]);
    work.git(&["commit", "--quiet", "-m", "Add a submodule"]);
    work.git(&["tag", "blob", &work.rev("HEAD:folder/file")]);
    work.git(&["tag", "tree", &work.rev("HEAD:folder")]);
    work.git(&["tag", "-a", "-m", "a blob", "annotated-blob", "blob"]);
    work.annotated_tag("v1");
    work.git(&["tag", "-a", "-m", "a tag", "nested", "v1"]);
    work.branch("gone");
    work.commit("gone", "1");
    work.switch("main");
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let url = mirror.url_at(&b, "hello");
    assert_eq!(look::refs(&url).await, work.refs());

    let before = work.refs();
    work.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    work.git(&["rm", "-r", "--force", "--quiet", "--cached", "."]);
    work.commit("new", "all new\n");
    work.git(&["branch", "--force", "main", "fresh"]);
    work.switch("main");
    work.delete_branch("fresh");
    work.delete_branch("gone");
    work.git(&["tag", "--delete", "blob", "tree", "annotated-blob", "nested"]);
    work.git(&["tag", "--force", "v1", "main"]);
    owner.update(&a).await;
    // Most of its branches and tags are gone: somebody has to say that this is meant.
    mirror.once().await.expect_code(2);
    assert_eq!(look::refs(&url).await, before);
    mirror.run(&["approve", "hello"]).await.expect_code(0);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&url).await, work.refs());

    let folder = mirror.data_dir().join("git").join(owner.npub()).join("hello.git");
    let mut list = tools::git(&folder);
    list.args(["for-each-ref", "--format=%(refname) %(objectname)", "refs/archive"]);
    let kept = tools::must(list).await;
    for (name, id) in &before {
        let short = name.strip_prefix("refs/").unwrap_or(name);
        let is_it = |line: &str| line.ends_with(&format!("/{short} {id}"));
        assert!(kept.lines().any(is_it), "{name} is not among\n{kept}");
    }
    let mut check = tools::git(&folder);
    check.args(["fsck", "--full", "--strict"]);
    tools::must(check).await;
}
