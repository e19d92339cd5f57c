//! The disk is lost, the key is not: on an empty disk the bot reads its lists back and carries on. It neither does
//! again what it was told before, nor sends servers what they hold.

use std::collections::BTreeSet;

use grasp_mirror_testkit::{Chat, Fault, Mirror, Owner, Person, Protocol, Server, TestRelay, look};
use nostr::{
    event::{EventId, Kind},
    filter::Filter,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
#[tokio::test]
async fn on_an_empty_disk_it_carries_on_where_it_was() {
    let start = || Server::builder().behind_proxy().start();
    let (a, b, relay) = tokio::join!(start(), start(), TestRelay::start());
    let [seeded, told] = ["seeded", "told"].map(|d| Owner::new(d).at_home_on(&relay));
    for owner in [&seeded, &told] {
        owner.publish(owner.announcement().at(&a), &a).await;
    }
    let (mirror, ada) =
        Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&seeded).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let mut asked = Vec::new();
    for protocol in [Protocol::Nip17, Protocol::Nip04] {
        asked.push(ada.ask(protocol, &format!("watch {}", told.npub())).await);
        // Told in both ways to watch someone, and no longer: done again, it would show in the list.
        let other = Person::new().npub();
        for command in ["watch", "unwatch"] {
            let question = ada.ask(protocol, &format!("{command} {other}")).await;
            ada.answers(&question, 1).await;
            asked.push(question);
        }
    }
    for owner in [&seeded, &told] {
        look::wait_until("both are on the other server", async || {
            look::refs(&mirror.url_at(&b, &owner.d)).await == owner.work.refs()
        })
        .await;
    }
    let resync = ada.ask(Protocol::Nip17, "resync").await;
    ada.answers(&resync, 2).await;
    daemon.stop().await;
    let before = (held(&a).await, held(&b).await);
    for server in [&a, &b] {
        server.proxy().reset();
    }

    let mirror = mirror.on_a_new_machine().without_seeds();
    let daemon = mirror.daemon().await;
    let done = ada.resync("resync").await;
    let whole = "4 of 4 mirrors of 2 repositories in sync, nothing was missing";
    assert!(done.contains(whole), "{done}");
    let list = ada.answer_to(Protocol::Nip17, "list").await;
    assert!(list.contains("Authors (2)"), "{list}");
    ada.catch_up().await;
    for question in &asked {
        ada.answers(question, 1).await;
    }
    ada.answers(&resync, 2).await;
    for server in [&a, &b] {
        let seen = server.proxy().seen();
        assert_eq!(seen.count("POST", "git-receive-pack"), 0, "{seen:#?}");
        assert_eq!(seen.verb("EVENT"), Vec::<&str>::new());
    }
    assert_eq!((held(&a).await, held(&b).await), before);

    told.work.commit("later.txt", "more");
    let state = told.update(&a).await;
    ada.ask(Protocol::Nip17, "resync told").await;
    look::wait_until("it mirrors what is new", async || look::serves(&b, &state).await).await;
    daemon.stop().await;
}

/// Whichever inbox relay is left: each has a copy of every answer, in the end also one that was away.
#[tokio::test]
async fn any_inbox_relay_knows_what_was_answered() {
    let start = TestRelay::start;
    let (home, a, b) = tokio::join!(start(), start(), start());
    let (through_a, through_b) = tokio::join!(a.proxied(), b.proxied());
    let mirror = Mirror::new(BINARY).uses(&home).inbox(&through_a).inbox(&through_b);
    let ada = Chat::new(&mirror).asks_at(&a).asks_at(&b).hears_at(&home);
    ada.introduce(&home).await;
    let mirror = mirror.obeys(&ada);
    let wraps = async || b.served(Filter::new().kind(Kind::GiftWrap).pubkey(mirror.bot_pubkey())).await.len();
    let daemon = mirror.daemon().await;
    ada.catch_up().await;
    look::wait_until("B has the test, the question, and the copy of its answer", async || wraps().await == 3)
        .await;
    through_b.fault(Fault::Refuse);
    through_b.drop_connections();
    let asked = ada.ask(Protocol::Nip17, "help list").await;
    ada.answers(&asked, 1).await;
    through_b.heal();
    look::wait_until("B has the next two", async || wraps().await == 5).await;
    daemon.stop().await;

    let mirror = mirror.on_a_new_machine();
    through_a.fault(Fault::Refuse);
    through_a.drop_connections();
    // Both wait until the bot has read what it can.
    let waiting = ada.ask(Protocol::Nip17, "version").await;
    let daemon = mirror.daemon().await;
    ada.answers(&waiting, 1).await;
    ada.answers(&asked, 1).await;
    daemon.stop().await;
}

async fn held(server: &Server) -> BTreeSet<EventId> {
    server.served(Filter::new()).await.into_iter().map(|event| event.id).collect()
}
