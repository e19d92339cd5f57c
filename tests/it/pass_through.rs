//! A repository is fetched once, whatever the number of servers, and what was fetched goes to them as it came.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, noise_text, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn one_fetch_serves_all_servers_and_the_index_waits() {
    let start = || Server::builder().behind_proxy().start();
    let (source, b, c, d) = tokio::join!(start(), start(), start(), start());
    let relay = TestRelay::start().await;
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("noise", &noise_text(1_000_000));
    owner.publish(owner.announcement().at(&source), &source).await;
    let mirror =
        Mirror::new(BINARY).knows(&source).knows(&b).knows(&c).knows(&d).uses(&relay).watches(&owner);
    let others = [&b, &c, &d];

    source.proxy().reset();
    let first = mirror.run(&["mirror-once", "-v"]).await.expect_code(0);
    assert_eq!(fetches(&source), 1, "{:#?}", source.proxy().seen().requests);
    for server in others {
        assert_eq!(look::refs(&mirror.url_at(server, "hello")).await, owner.work.refs());
        assert_eq!(server.proxy().seen().count("POST", "git-receive-pack"), 1);
    }
    let lines: Vec<&str> = first.stderr.lines().collect();
    let pushed = lines.iter().rposition(|line| line.contains(" pushed ")).expect("pushes are logged");
    let taken = lines.iter().position(|line| line.contains("taken in")).expect("so is the index");
    assert!(pushed < taken, "nobody waited for the index:\n{}", first.stderr);

    // One commit: what was fetched on top of the last state is what the servers lack, to the byte.
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&source).await;
    for server in [&source, &b, &c, &d] {
        server.proxy().reset();
    }
    mirror.once().await.expect_code(0);
    assert_eq!(fetches(&source), 1);
    for server in others {
        assert_eq!(look::refs(&mirror.url_at(server, "hello")).await, owner.work.refs());
        let seen = server.proxy().seen();
        assert_eq!(seen.count("POST", "git-receive-pack"), 1);
        assert!(seen.up_bytes < 20_000, "{} bytes for one commit", seen.up_bytes);
    }

    // A new name for an old commit: servers move refs onto what they have by themselves.
    owner.work.tag("v1");
    owner.update(&source).await;
    for server in [&source, &b, &c, &d] {
        server.proxy().reset();
    }
    mirror.once().await.expect_code(0);
    assert_eq!(fetches(&source), 0);
    for server in others {
        assert_eq!(look::refs(&mirror.url_at(server, "hello")).await, owner.work.refs());
        assert_eq!(server.proxy().seen().count("POST", "git-receive-pack"), 0);
    }
    let folder = mirror.data_dir().join("git").join(owner.npub()).join("hello.git");
    let mut check = tools::git(&folder);
    check.args(["fsck", "--full", "--strict"]);
    tools::must(check).await;
}

/// Fetches of git data; the other request to the same address lists refs.
fn fetches(source: &Server) -> u64 {
    source.proxy().seen().count("POST", "git-upload-pack").saturating_sub(listings(source))
}

fn listings(source: &Server) -> u64 {
    source.proxy().seen().count("GET", "service=git-upload-pack").div_ceil(2)
}
