//! When maintainers change what they say, a mirror moves from one way of being placed to another, and what is there is
//! served at every moment.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use grasp_mirror_testkit::{Announcement, Mirror, Owner, Server, TestRelay, look};
use tokio::task::JoinHandle;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

type Refs = BTreeMap<String, String>;

/// Looks at a path again and again.
struct Watch {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Refs>>,
}

impl Watch {
    fn over(url: String) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                seen.push(look::refs(&url).await);
            }
            seen
        });
        Self { over, task }
    }

    /// Everything that was seen, the last look included.
    async fn end(self) -> Vec<Refs> {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// How the only repository is placed on `server`.
async fn placed(mirror: &Mirror, server: &Server) -> String {
    let plan = mirror.run(&["plan", "hello", "--json"]).await.expect_code(0).json();
    let row = plan["mirrors"].as_array().into_iter().flatten().find(|row| row["server"] == server.url());
    row.unwrap_or_else(|| panic!("{plan:#}"))["placement"].to_string().replace('"', "")
}

/// The owner signs `announcement` and a new commit; then the mirror on `b` is placed as `expected`, and the bot's path
/// there was never without what the owner had signed at some time. Returns all that was.
async fn moved(
    mirror: &Mirror,
    owner: &Owner,
    (a, b): (&Server, &Server),
    announcement: Option<Announcement>,
    (expected, at_owners): (&str, bool),
    history: &mut Vec<Refs>,
) {
    // Later than anything by this machine's clock: so it is known to be said knowingly.
    owner.signs_in(5 * history.len() as u64);
    if let Some(announcement) = announcement {
        owner.announce(announcement, a).await.1.expect_accepted();
    }
    owner.work.commit("README.md", &format!("# hello {}\n", history.len()));
    owner.update(a).await;
    history.push(owner.work.refs());
    let url = mirror.url_at(b, "hello");
    let watch = Watch::over(url.clone());
    // What a server refuses in the first run and in the second shows what holds in the third.
    for _ in 0..3 {
        mirror.once().await;
    }
    let placed = placed(mirror, b).await;
    assert!(expected.split(" or ").any(|one| one == placed), "{placed}, not {expected}");
    let seen = watch.end().await;
    assert!(seen.len() > 5, "{} looks", seen.len());
    for refs in seen {
        assert!(history.contains(&refs), "to {expected}: {refs:?}");
    }
    let path = if at_owners { owner.url_at(b) } else { url };
    assert_eq!(look::refs(&path).await, owner.work.refs(), "{expected}");
    mirror.once().await.expect_code(0);
}

#[tokio::test]
async fn a_mirror_is_served_at_every_moment_of_every_move() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let at_a = || owner.announcement().at(&a);
    let leading = |announcement: Announcement| announcement.lead(&owner.public_key());
    owner.publish(leading(at_a()), &a).await;
    let mut mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "lead");
    let mut history = vec![owner.work.refs()];
    let steps = [
        (None, Some(at_a()), "namespace"),
        (None, Some(leading(at_a())), "lead"),
        (None, Some(leading(at_a()).at(&b)), "listed"),
        // This server has taken the owner's announcements by way of the copy before, and may say no the second time, too: then
        // the lead cannot govern a copy there. One that is busy says yes.
        (None, Some(leading(at_a())), "namespace or lead"),
        (Some(owner.nsec()), None, "signed"),
        (None, Some(at_a()), "namespace"),
        (None, Some(at_a().at(&b)), "listed"),
    ];
    for (key, announcement, expected) in steps {
        if let Some(key) = key {
            mirror = mirror.env("MIRROR_SIGNER", &key);
        }
        let expected = (expected, expected == "listed" || expected == "signed");
        moved(&mirror, &owner, (&a, &b), announcement, expected, &mut history).await;
    }
}

#[tokio::test]
async fn so_it_is_from_the_lead_s_to_where_a_maintainer_s_key_lists_it() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let leading = || owner.announcement().at(&a).lead(&owner.public_key());
    owner.publish(leading(), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(placed(&mirror, &b).await, "lead");
    let mut history = vec![owner.work.refs()];
    let mirror = mirror.env("MIRROR_SIGNER", &owner.nsec());
    moved(&mirror, &owner, (&a, &b), None, ("signed", true), &mut history).await;
    moved(&mirror, &owner, (&a, &b), Some(leading()), ("lead", false), &mut history).await;
}

/// By the owner's list, and by the bot's own announcement: as a maintainer it lists the server itself.
#[tokio::test]
async fn so_it_is_when_the_bot_becomes_a_maintainer_and_when_it_is_none_any_more() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let key = owner.public_key();
    owner.publish(owner.announcement().at(&a).lead(&key), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let bot = mirror.bot_pubkey();
    let mut history = vec![owner.work.refs()];
    let steps = [
        (owner.announcement().at(&a).lead(&key).co_maintainer(&bot), "signed"),
        (owner.announcement().at(&a).lead(&key), "lead"),
        (owner.announcement().at(&a).maintainer(&bot), "signed"),
        (owner.announcement().at(&a), "namespace"),
        (owner.announcement().at(&a).maintainer(&bot).at(&b), "listed"),
    ];
    for (announcement, expected) in steps {
        let expected = (expected, expected == "listed");
        moved(&mirror, &owner, (&a, &b), Some(announcement), expected, &mut history).await;
    }
}
