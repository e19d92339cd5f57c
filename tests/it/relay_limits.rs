//! A relay is asked for no more than it says it takes (NIP-11), and for what matters most first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use grasp_mirror_testkit::{Mirror, Owner, Seen, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
/// How many filters each request for new events had: those stay open, and want nothing that is stored.
fn listened(seen: &Seen) -> Vec<usize> {
    let requests = seen.verb("REQ").into_iter().map(|text| {
        let request: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        request.into_iter().skip(2).collect::<Vec<_>>()
    });
    // Of the bot's own mail it hears besides, and of its own lists.
    let live = |filters: &Vec<serde_json::Value>| {
        filters
            .iter()
            .all(|filter| filter["limit"] == 1 && filter.get("since").is_some() && filter.get("#p").is_none())
    };
    requests.filter(live).map(|filters| filters.len()).collect()
}

#[tokio::test]
async fn a_relay_with_little_room_is_asked_for_the_most_important_only() {
    for (limits, expected) in [
        (r#"{"max_subscriptions":5,"max_filters":1}"#, vec![1]),
        (r#"{"max_subscriptions":20,"max_filters":2}"#, vec![1, 2, 2]),
        ("{}", vec![5]),
    ] {
        let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
        let home = relay.proxied().await;
        home.introduce(&format!(r#"{{"name":"a relay","limitation":{limits}}}"#));
        let owner = Owner::new("hello").at_home_on(&home);
        owner.publish(owner.announcement().at(&a), &a).await;
        let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&home).watches(&owner);
        let mut daemon = mirror.daemon().await;
        daemon.wait_log("cycle done").await;
        look::wait_until("the relay is listened to", async || {
            let mut listened = listened(&home.seen());
            listened.sort_unstable();
            listened == expected
        })
        .await;

        // What maintainers sign is heard wherever it is said first.
        owner.work.commit("README.md", "# hello again\n");
        let state = owner.update(&a).await;
        look::wait_until("the new state is there", async || look::serves(&b, &state).await).await;
        let log = daemon.stop().await;
        assert_eq!(log.matches("cycle done").count(), 1, "no cycle was needed:\n{log}");
    }
}
