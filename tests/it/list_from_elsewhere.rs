//! A newer list signed with the bot's key in another client is obeyed at once: what it adds is mirrored, what it
//! leaves out is no longer updated, and stays where it is.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{net::SocketAddr, pin::Pin};

use grasp_mirror_testkit::{Chat, Mirror, Owner, Person, Protocol, Server, TestRelay, look};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    filter::Filter,
    message::MachineReadablePrefix,
    types::Timestamp,
};
use nostr_sdk::local_relay::{LocalRelay, QueryPolicy, QueryPolicyResult};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn newer_lists_are_obeyed() {
    let start = Server::start;
    let (a, b, c, relay) = tokio::join!(start(), start(), start(), TestRelay::start());
    let [first, second, third, fourth] =
        ["first", "second", "third", "fourth"].map(|d| Owner::new(d).at_home_on(&relay));
    for owner in [&first, &second, &third, &fourth] {
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let (mirror, ada) =
        Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&first).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let arrives = async |owner: &Owner, server: &Server| {
        look::wait_until(&format!("{} is on {}", owner.d, server.url()), async || {
            look::refs(&mirror.url_at(server, &owner.d)).await == owner.work.refs()
        })
        .await;
    };
    arrives(&first, &b).await;

    // Another author instead of the first, and a single repository.
    let (second_key, coordinate) = (second.public_key().to_hex(), third.coordinate());
    relay.send(&newer(&mirror, &relay, 10017, &[&["p", &second_key]]).await).await.expect_accepted();
    arrives(&second, &b).await;
    relay.send(&newer(&mirror, &relay, 10018, &[&["a", &coordinate]]).await).await.expect_accepted();
    arrives(&third, &b).await;
    // One server more.
    let urls = [&a, &b, &c].map(Server::url);
    let tags: Vec<_> = urls.iter().map(|url| ["g", url.as_str()]).collect();
    let tags: Vec<_> = tags.iter().map(<[_; 2]>::as_slice).collect();
    relay.send(&newer(&mirror, &relay, 10317, &tags).await).await.expect_accepted();
    arrives(&second, &c).await;
    arrives(&third, &c).await;

    let before = look::refs(&mirror.url_at(&b, "first")).await;
    first.work.commit("later.txt", "more");
    let state = first.update(&a).await;
    ada.resync("resync").await;
    assert!(!look::serves(&b, &state).await);
    assert_eq!(look::refs(&mirror.url_at(&b, "first")).await, before);
    assert!(look::ls_remote(&mirror.url_at(&c, "first")).await.is_empty());
    assert!(look::ls_remote(&mirror.url_at(&b, "fourth")).await.is_empty(), "nobody asked for it");
    // It listens to the new server, too, although only the list names that address.
    assert!(!daemon.log().contains("not a public address"), "{}", daemon.log());
    daemon.stop().await;
}

#[tokio::test]
async fn the_bot_goes_where_its_own_lists_say() {
    let (first, other, inbox) = tokio::join!(TestRelay::start(), TestRelay::start(), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&first).set("bot.index_relays", vec![first.url().to_owned()]);
    let ada = Chat::new(&mirror).asks_at(&inbox).hears_at(&inbox);
    ada.introduce(&first).await;
    let mirror = mirror.obeys(&ada);
    let daemon = mirror.daemon().await;
    let own = Filter::new().author(mirror.bot_pubkey());
    let lists = own.clone().kinds([Kind::RelayList, Kind::InboxRelays]);

    let urls = [first.url(), other.url()];
    let relays = newer(&mirror, &first, 10002, &[&["r", urls[0]], &["r", urls[1]]]).await;
    let inboxes = newer(&mirror, &first, 10050, &[&["relay", inbox.url()]]).await;
    for list in [&relays, &inboxes] {
        first.send(list).await.expect_accepted();
    }
    assert!(ada.answer_to(Protocol::Nip17, "version").await.contains("grasp-mirror"));
    let report = own.kind(Kind::ApplicationSpecificData).identifier("grasp-mirror/status");
    look::wait_until("the report is on the other relay", async || {
        !other.served(report.clone()).await.is_empty()
    })
    .await;
    daemon.stop().await;

    // A restart does not go back to what the operator wrote.
    let daemon = mirror.daemon().await;
    assert!(ada.answer_to(Protocol::Nip17, "help version").await.contains("version"));
    daemon.stop().await;
    let mut served = first.served(lists).await;
    served.sort_by_key(|list| list.kind);
    assert_eq!(served, [relays, inboxes]);
    // Nor does a new machine, which knows the first relay only.
    let mirror = mirror.on_a_new_machine();
    let daemon = mirror.daemon().await;
    assert!(ada.answer_to(Protocol::Nip17, "help list").await.contains("list"));
    daemon.stop().await;
}

/// Shows nobody private messages, as many relays do.
#[derive(Debug)]
struct NoPrivateMessages;

impl QueryPolicy for NoPrivateMessages {
    fn admit_query<'a>(
        &'a self,
        query: &'a mut Filter,
        _: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = QueryPolicyResult> + Send + 'a>> {
        let private = query.kinds.as_ref().is_some_and(|kinds| kinds.contains(&Kind::GiftWrap));
        Box::pin(async move {
            if private {
                QueryPolicyResult::reject(MachineReadablePrefix::Restricted, "no private messages here")
            } else {
                QueryPolicyResult::Accept
            }
        })
    }
}

#[tokio::test]
async fn a_relay_without_private_messages_still_brings_lists() {
    let public = LocalRelay::builder().query_policy(NoPrivateMessages);
    let (public, inbox) = tokio::join!(TestRelay::start_as(public), TestRelay::start());
    let mirror = Mirror::new(BINARY).uses(&public).inbox(&inbox);
    let (mirror, ada) = mirror.commanded_at(&inbox).await;
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    let author = Person::new();
    let list = newer(&mirror, &public, 10017, &[&["p", &author.public_key().to_hex()]]).await;
    public.send(&list).await.expect_accepted();
    look::wait_until("the bot knows the new list", async || {
        ada.answer_to(Protocol::Nip17, "list").await.contains("Authors (1)")
    })
    .await;
    daemon.stop().await;
}

/// What another client with the bot's key signs in place of the list that `relay` serves.
async fn newer(mirror: &Mirror, relay: &TestRelay, kind: u16, tags: &[&[&str]]) -> Event {
    let kind = Kind::from(kind);
    let old = relay.served(Filter::new().author(mirror.bot_pubkey()).kind(kind)).await;
    let after = old.iter().map(|event| event.created_at + 1_u64).max().unwrap_or_default();
    EventBuilder::new(kind, "")
        .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .custom_created_at(after.max(Timestamp::now()))
        .finalize(&mirror.keys)
        .unwrap()
}
