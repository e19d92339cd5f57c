//! How the servers are is published as NIP-66 has it, where the operator wants it: of those that answer, and not with
//! each cycle. Where the operator wants it no more, it is deleted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Mirror, Scene, TestRelay};
use nostr::{
    event::{Event, Kind},
    filter::Filter,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
async fn said(relay: &TestRelay, mirror: &Mirror) -> Vec<Event> {
    let kinds = [Kind::RelayDiscovery, Kind::RelayMonitor];
    let mut events = relay.served(Filter::new().author(mirror.bot_pubkey()).kinds(kinds)).await;
    events.sort_by_key(|event| (event.kind, event.id));
    events
}

fn names(event: &Event, tag: &str) -> Vec<String> {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    tags.filter(|parts| parts.first().is_some_and(|name| name == tag))
        .map(|parts| parts[1..].join(" "))
        .collect()
}

#[tokio::test]
async fn servers_that_answer_are_announced_once_and_only_where_that_is_wanted() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    assert_eq!(said(&scene.relay, &mirror).await, [], "nobody asked for it");

    let mirror = mirror.set("servers.publish_monitoring", true);
    scene.b.stop().await;
    mirror.once().await;
    let first = said(&scene.relay, &mirror).await;
    let [monitor, a] = first.as_slice() else { panic!("{first:#?}") };
    assert_eq!((monitor.kind, names(monitor, "frequency")), (Kind::RelayMonitor, vec!["86400".to_owned()]));
    assert_eq!(names(monitor, "c"), ["open", "nip11"]);
    assert_eq!(names(a, "d"), [format!("{}/", scene.a.url().trim_end_matches('/'))]);
    assert!(names(a, "N").contains(&"34".to_owned()), "{a:#?}");
    assert!(names(a, "rtt-open")[0].parse::<u64>().is_ok(), "{a:#?}");
    assert!(names(a, "week")[0].starts_with("asked 2 answered 2 "), "{a:#?}");

    scene.b.resume().await;
    mirror.once().await.expect_code(0);
    let second = said(&scene.relay, &mirror).await;
    assert_eq!(second.len(), 3, "{second:#?}");
    assert!(first.iter().all(|event| second.contains(event)), "what was said stands: {second:#?}");
    mirror.once().await.expect_code(0);
    assert_eq!(said(&scene.relay, &mirror).await, second);
}

#[tokio::test]
async fn what_is_published_no_more_is_deleted_once_wherever_it_was() {
    let (scene, away) = tokio::join!(Scene::set(), TestRelay::start());
    let mirror = scene.mirror(BINARY).uses(&away).watches(&scene.owner);
    let mirror = mirror.set("servers.publish_monitoring", true);
    mirror.once().await.expect_code(0);
    for relay in [&scene.relay, &away] {
        assert_eq!(said(relay, &mirror).await.len(), 3, "two servers and the monitor");
    }

    let mirror = mirror.set("servers.publish_monitoring", false);
    away.stop().await;
    mirror.once().await.expect_code(0);
    assert_eq!(said(&scene.relay, &mirror).await, []);
    away.resume().await;
    assert_eq!(said(&away, &mirror).await.len(), 3);
    // One that was away hears of it later.
    mirror.once().await.expect_code(0);
    assert_eq!(said(&away, &mirror).await, []);
    mirror.once().await.expect_code(0);
    let deletions = Filter::new().author(mirror.bot_pubkey()).kind(Kind::EventDeletion);
    let deleted_at = async |relay: &TestRelay| {
        let served = relay.served(deletions.clone()).await;
        let [once] = served.as_slice() else { panic!("once: {served:#?}") };
        once.created_at
    };
    let at = deleted_at(&scene.relay).await;
    assert_eq!(deleted_at(&away).await, at);

    // On again, it is said again; a new machine knows what was said.
    let mirror = mirror.set("servers.publish_monitoring", true);
    mirror.once().await.expect_code(0);
    let again = said(&scene.relay, &mirror).await;
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|event| event.created_at > at), "no relay takes anything older: {again:#?}");
    let mirror = mirror.on_a_new_machine();
    mirror.once().await.expect_code(0);
    assert_eq!(said(&scene.relay, &mirror).await, again, "within the day");
    let mirror = mirror.on_a_new_machine().set("servers.publish_monitoring", false);
    let mut daemon = mirror.daemon().await;
    daemon.wait_log("cycle done").await;
    for relay in [&scene.relay, &away] {
        assert_eq!(said(relay, &mirror).await, [], "on a new machine");
    }
    daemon.stop().await;
}
