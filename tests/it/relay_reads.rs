//! Reading relays to the end: pages, broken connections, authentication. Against real relays in process.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use grasp_mirror::{
    relay::{Limits, RelayError, Relays},
    store::Store,
    transfer::guard::Guard,
};
use grasp_mirror_testkit::{
    Address, Fault, Owner, Server, TestRelay,
    look::{self, PATIENCE},
};
use nostr::prelude::{Event, EventBuilder, Filter, FinalizeEvent, Keys, Kind, RelayUrl, Tag, Timestamp};
use nostr_database::NostrDatabase;
use nostr_lmdb::NostrLmdb;
use nostr_sdk::local_relay::{LocalRelay, LocalRelayBuilder, LocalRelayBuilderNip42};
use tempfile::TempDir;

const EVENTS: u64 = 1_300;

/// A relay that holds more than a page of events, two of every three with the same second as a neighbour.
async fn full_relay(builder: LocalRelayBuilder, author: &Keys) -> (TestRelay, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let database = Arc::new(NostrLmdb::open(dir.path()).await.unwrap());
    for n in 0..EVENTS {
        database.save_event(&note(author, n)).await.unwrap();
    }
    (TestRelay::start_as(builder.database(database)).await, dir)
}

fn note(author: &Keys, n: u64) -> Event {
    EventBuilder::new(Kind::TextNote, n.to_string())
        .custom_created_at(Timestamp::from_secs(1_790_000_000 + n / 3))
        .finalize(author)
        .unwrap()
}

/// Relays as the bot uses them, with a store of their own.
async fn relays() -> (Relays, Store, TempDir) {
    relays_that_wait(PATIENCE).await
}

async fn relays_that_wait(patience: Duration) -> (Relays, Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let guard = Arc::new(Guard::new(true, []));
    (Relays::new(store.database(), guard, Keys::generate(), limits(patience, None)), store, dir)
}

fn limits(patience: Duration, rest: Option<Duration>) -> Limits {
    Limits {
        connect_timeout: patience,
        stall_timeout: patience,
        events_per_minute: NonZeroU32::new(55).unwrap(),
        max_events: 10_000,
        rest,
    }
}

/// Relays as the daemon talks to people through them, for weeks.
fn relays_for_long(rest: Duration) -> Relays {
    Relays::that_keep_nothing(Arc::new(Guard::new(true, [])), Keys::generate(), limits(PATIENCE, Some(rest)))
}

fn url(text: &str) -> RelayUrl {
    RelayUrl::parse(text).unwrap()
}

async fn stored(store: &Store, author: &Keys) -> usize {
    store.query(Filter::new().author(author.public_key())).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_negentropy_it_pages_to_the_end() {
    let author = Keys::generate();
    let no_negentropy = LocalRelay::builder().max_filter_limit(500).max_negentropy_items(0);
    let (relay, _dir) = full_relay(no_negentropy, &author).await;
    let (relays, store, _dir) = relays().await;
    let filter = Filter::new().author(author.public_key());
    relays.backfill(&url(relay.url()), filter.clone()).await.unwrap();
    assert_eq!(stored(&store, &author).await, EVENTS as usize);

    // And what the relay lacks is told by pages, too.
    let absent = note(&author, EVENTS + 1);
    let wanted = [note(&author, 0), note(&author, EVENTS - 1), absent.clone()].map(|e| (e.id, e.created_at));
    let lacks = relays.lacks(&url(relay.url()), filter, &wanted).await.unwrap();
    assert_eq!(lacks.into_iter().collect::<Vec<_>>(), [absent.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_negentropy_it_takes_everything_too() {
    let author = Keys::generate();
    let (relay, _dir) = full_relay(LocalRelay::builder(), &author).await;
    let (relays, store, _dir) = relays().await;
    relays.backfill(&url(relay.url()), Filter::new().author(author.public_key())).await.unwrap();
    assert_eq!(stored(&store, &author).await, EVENTS as usize);
}

/// GRASP servers end a request for ids with `EOSE` and `CLOSED`; the second must not be taken for the end of
/// the next request.
#[tokio::test(flavor = "multi_thread")]
async fn with_negentropy_it_takes_everything_from_a_grasp_server() {
    const ISSUES: usize = 130;
    let server = Server::start().await;
    let owner = Owner::new("busy");
    owner.publish(owner.announcement().at(&server), &server).await;
    for n in 0..ISSUES {
        server.send(&owner.issue(&owner.coordinate(), &format!("issue {n}"))).await.expect_accepted();
    }
    let (relays, store, _dir) = relays().await;
    let filter = Filter::new().author(owner.public_key());
    relays.backfill(&url(&server.url()), filter).await.unwrap();
    assert_eq!(stored(&store, &owner.keys).await, ISSUES + 2);
}

/// Who was never heard to speak NIP-77 may be silent when asked in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_told_by_names_where_the_relay_is_known_to() {
    let author = Keys::generate();
    let (relay, _dir) = full_relay(LocalRelay::builder(), &author).await;
    let proxy = relay.proxied().await;
    let (there, absent) = (note(&author, 7), note(&author, EVENTS + 1));
    let asked = [there.id, absent.id];
    let learned = Arc::default();
    let (first, _store, _dir) = relays().await;
    let (second, _store, _dir) = relays().await;
    let (first, second) = (first.beside(&learned), second.beside(&learned));
    let (stranger, _store, _dir) = relays().await;
    let through = url(&proxy.ws());
    let by_event = first.serves(&through, &asked).await.unwrap();
    assert_eq!(by_event.iter().collect::<Vec<_>>(), [&there.id]);
    assert_eq!(proxy.seen().verb("NEG-OPEN").len(), 0);

    first.compare(&through, Filter::new().author(author.public_key()), &[]).await.unwrap().unwrap();
    proxy.reset();
    // On another connection, too, for who is told.
    assert_eq!(second.serves(&through, &asked).await.unwrap(), by_event);
    let seen = proxy.seen();
    assert_eq!((seen.verb("REQ").len(), seen.verb("NEG-OPEN").len()), (0, 1));
    assert_eq!(stranger.serves(&through, &asked).await.unwrap(), by_event);
    let seen = proxy.seen();
    assert_eq!((seen.verb("REQ").len(), seen.verb("NEG-OPEN").len()), (1, 1));
}

/// One that was busy is not read page by page for as long as the program runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_was_not_answered_in_time_is_tried_again_in_the_next_run() {
    let author = Keys::generate();
    let (relay, _dir) = full_relay(LocalRelay::builder(), &author).await;
    let proxy = relay.proxied().await;
    let (relays, _store, _dir) = relays().await;
    let through = url(&proxy.ws());
    let compare = || relays.compare(&through, Filter::new().author(author.public_key()), &[]);
    assert!(compare().await.unwrap().is_some());
    proxy.silence(true);
    assert!(compare().await.unwrap().is_none());
    proxy.silence(false);
    relays.start_over().await;
    assert!(compare().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_nothing_there() {
    let author = Keys::generate();
    let (relay, _dir) = full_relay(LocalRelay::builder().max_negentropy_items(0), &author).await;
    let proxy = relay.proxied().await;
    let through = url(&proxy.ws());
    let everything = vec![Filter::new().author(author.public_key())];
    let broken = |result: Result<Vec<Event>, RelayError>| {
        matches!(result, Err(RelayError::Incomplete { .. } | RelayError::Unreachable { .. }))
    };

    proxy.fault(Fault::CutDown(20_000));
    let (cut, _store, _dir) = relays().await;
    assert!(broken(cut.read(&through, everything.clone()).await), "cut in the middle");

    proxy.fault(Fault::Hang);
    let (hung, _store, _dir) = relays_that_wait(Duration::from_secs(3)).await;
    assert!(broken(hung.read(&through, everything.clone()).await), "no answer at all");

    proxy.fault(Fault::Garbage);
    let (garbled, _store, _dir) = relays().await;
    assert!(broken(garbled.read(&through, everything.clone()).await), "garbage");

    proxy.heal();
    let (well, _store, _dir) = relays().await;
    assert_eq!(well.read(&through, everything).await.unwrap().len(), EVENTS as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_with_thousands_of_refs_is_read() {
    let author = Keys::generate();
    let tags = (0..3_000).map(|n| Tag::custom(format!("refs/tags/v{n}"), ["1".repeat(40)]));
    let state = EventBuilder::new(Kind::RepoState, "").tag(Tag::identifier("d")).tags(tags);
    let relay = TestRelay::start_as(LocalRelay::builder().max_event_size(1 << 20)).await;
    relay.send(&state.finalize(&author).unwrap()).await.expect_accepted();
    let (relays, _store, _dir) = relays().await;
    let read = relays.read(&url(relay.url()), vec![Filter::new().author(author.public_key())]).await.unwrap();
    assert_eq!(read.iter().map(|event| event.tags.len()).collect::<Vec<_>>(), [3_001]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_who_we_are_is_told() {
    let author = Keys::generate();
    let (relay, _dir) =
        full_relay(LocalRelay::builder().nip42(LocalRelayBuilderNip42::read()), &author).await;
    let (relays, _store, _dir) = relays().await;
    let read = relays.read(&url(relay.url()), vec![Filter::new().author(author.public_key())]).await;
    assert_eq!(read.unwrap().len(), EVENTS as usize);
}

/// Somebody may stop waiting for a connection; the next one who wants it does not find it hanging for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_given_up_half_way_can_be_made_again() {
    let relay = TestRelay::start().await;
    let proxy = relay.proxied().await;
    proxy.fault(Fault::Hang);
    let (relays, through) = (relays_for_long(Duration::ZERO), url(&proxy.ws()));
    let notes = || vec![Filter::new().kind(Kind::TextNote)];
    let impatient = tokio::time::timeout(Duration::from_millis(300), relays.read(&through, notes()));
    assert!(impatient.await.is_err());
    proxy.heal();
    proxy.drop_connections();
    look::wait_until("it is read", async || relays.read(&through, notes()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_may_hang_up_as_often_as_it_likes() {
    let relay = TestRelay::start().await;
    let proxy = relay.proxied().await;
    let (relays, through) = (relays_for_long(Duration::from_secs(15)), url(&proxy.ws()));
    for _ in 0..8 {
        let before = proxy.seen().connections;
        // The end of the last connection may not have been noticed yet.
        look::wait_until("it is read anew", async || {
            relays.read(&through, vec![Filter::new().kind(Kind::TextNote)]).await.is_ok()
                && proxy.seen().connections > before
        })
        .await;
        proxy.drop_connections();
    }
}
