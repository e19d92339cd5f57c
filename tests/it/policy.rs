//! What the operator's rules keep away gets nothing, and the report names the rule.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn nothing_goes_where_a_rule_forbids_it() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let [owner, other] = ["hello", "other"].map(|d| Owner::new(d).at_home_on(&relay));
    for owner in [&owner, &other] {
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let rule = |key: &str, entry: &str| {
        b.proxy().reset();
        let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).watches(&other);
        mirror.set(key, vec![entry.to_owned()])
    };

    let (npub, coordinate, allowed) = (owner.npub(), owner.coordinate(), other.npub());
    for (key, entry) in [("policy.deny", &npub), ("policy.deny", &coordinate), ("policy.allow", &allowed)] {
        let mirror = rule(key, entry);
        // What is denied is not wanted.
        mirror.once().await.expect_code(0);
        mirror.verify().await.expect_code(0);
        let status = mirror.status_json().await;
        assert_eq!((&status["totals"]["mirrors"], &status["totals"]["refused"]), (&2.into(), &0.into()));
        let repo = mirror.status_of(&coordinate).await;
        for problem in repo["problems"].as_array().into_iter().flatten() {
            assert_eq!(problem["status"], "blocked", "{problem}");
            let names_it = |reason: &str| reason.starts_with("[policy]") && !reason.ends_with(' ');
            assert!(problem["reason"].as_str().is_some_and(names_it), "{problem}");
        }
        assert_eq!(repo["problems"].as_array().map(Vec::len), Some(2), "{repo:#}");
        assert!(look::ls_remote(&mirror.url_at(&b, "hello")).await.is_empty());
        assert_eq!(look::refs(&mirror.url_at(&b, "other")).await, other.work.refs());
        assert!(!mirror.data_dir().join("git").join(&npub).exists());
    }

    for (key, entry) in [("policy.deny", b.url()), ("policy.allow", a.url())] {
        let mirror = rule(key, &entry);
        mirror.once().await.expect_code(0);
        assert_eq!(b.proxy().seen().connections, 0, "{key} {entry}");
        let status = mirror.status_json().await;
        let servers = status["servers"].as_array().into_iter().flatten();
        let unused: Vec<_> = servers.filter(|server| server["url"] == b.url()).collect();
        let [unused] = unused.as_slice() else { panic!("B is in the report: {status:#}") };
        assert!(unused["unused"].as_str().is_some_and(|why| why.contains("[policy]")), "{unused}");
    }
}
