//! The bot publishes who it is and where it is reached: keeping what a profile held before, and only what relays do
//! not serve already.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use grasp_mirror_testkit::{Mirror, TestRelay};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind},
    filter::Filter,
    types::Timestamp,
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const IDENTITY: [u16; 3] = [0, 10002, 10050];

/// The bot's events about itself by kind, as `relay` serves them.
async fn identity(mirror: &Mirror, relay: &TestRelay) -> BTreeMap<u16, Event> {
    let about_itself = Filter::new().author(mirror.bot_pubkey()).kinds(IDENTITY.map(Kind::from));
    relay.served(about_itself).await.into_iter().map(|event| (event.kind.as_u16(), event)).collect()
}

#[tokio::test]
async fn a_new_bot_introduces_itself_once() {
    let (relay, inbox) = tokio::join!(TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&relay).inbox(&inbox);
    mirror.daemon().await.stop().await;
    let first = identity(&mirror, &relay).await;
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), IDENTITY);
    let profile: Value = serde_json::from_str(&first[&0].content).unwrap();
    assert_eq!((&profile["name"], &profile["bot"]), (&json!("test bot"), &json!(true)));
    assert!(profile["about"].as_str().is_some_and(|about| !about.is_empty()));
    for (kind, name, url) in [(10002, "r", relay.url()), (10050, "relay", inbox.url())] {
        let tags: Vec<_> = first[&kind].tags.iter().map(|tag| tag.as_slice()).collect();
        let [tag] = tags.as_slice() else { panic!("one relay in {tags:?}") };
        assert_eq!((tag[0].as_str(), tag[1].trim_end_matches('/')), (name, url));
    }

    mirror.daemon().await.stop().await;
    assert_eq!(identity(&mirror, &relay).await, first);
    // Nor does it on an empty disk.
    let mirror = mirror.on_a_new_machine();
    mirror.daemon().await.stop().await;
    assert_eq!(identity(&mirror, &relay).await, first);
}

#[tokio::test]
async fn a_profile_is_kept_and_completed() {
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY).uses(&relay);
    let old = json!({"name": "Mirri", "about": "mine", "picture": "https://example.org/m.png", "x": [1, {"y": null}]});
    let event = EventBuilder::new(Kind::Metadata, old.to_string())
        .custom_created_at(Timestamp::now())
        .finalize(&mirror.keys)
        .unwrap();
    relay.send(&event).await.expect_accepted();
    mirror.daemon().await.stop().await;
    let mut profile: Value = serde_json::from_str(&identity(&mirror, &relay).await[&0].content).unwrap();
    assert_eq!(profile["bot"], true);
    profile.as_object_mut().unwrap().remove("bot");
    assert_eq!(profile, old);
}
