//! With a maintainer's key the maintainer's own announcement lists the servers that the bot brought the repository to, and
//! says all else that it said before. What a person takes out is not added again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, Weak},
};

use grasp_mirror_testkit::{Mirror, Owner, Person, Server, TestRelay, look};
use nostr::{event::Event, filter::Filter};
use nostr_sdk::local_relay::{LocalRelay, QueryPolicy, QueryPolicyResult, WritePolicy, WritePolicyResult};
use tokio::sync::watch;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
async fn announced(at: &Server, owner: &Owner) -> Event {
    let filter = Filter::new().author(owner.public_key()).kind(30617.into());
    let [event] = &at.served(filter).await[..] else { panic!("one announcement") };
    event.clone()
}

fn tag<'a>(event: &'a Event, name: &str) -> &'a [String] {
    event.tags.iter().find(|tag| tag.kind() == name).map(|tag| tag.as_slice()).unwrap_or_default()
}

async fn placements(mirror: &Mirror) -> String {
    mirror.run(&["plan", "--json"]).await.stdout
}

fn signing(mirror: Mirror, key: &Person) -> Mirror {
    mirror.env("MIRROR_SIGNER", &key.nsec())
}

#[tokio::test]
async fn a_copy_moves_to_the_owners_path_and_back_when_it_is_taken_out() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let odd =
        owner.announcement().at(&a).tag(&["x-odd", "", "ü"]).tag(&["web", "https://h.example"]).tag(&["t"]);
    let before = owner.publish(odd, &a).await.announcement;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());

    let mirror = signing(mirror, &owner);
    mirror.once().await.expect_code(0);
    for server in [&a, &b] {
        let after = announced(server, &owner).await;
        assert_eq!(after.created_at.as_secs(), before.created_at.as_secs() + 1);
        assert_eq!((after.tags.len(), &after.content), (before.tags.len(), &before.content));
        for (old, new) in before.tags.iter().zip(after.tags.iter()) {
            match old.kind() {
                "clone" => assert_eq!(new.as_slice(), ["clone", &owner.url_at(&a), &owner.url_at(&b)]),
                "relays" => assert_eq!(new.as_slice(), ["relays", &a.url(), &b.url()]),
                _ => assert_eq!(old, new),
            }
        }
    }
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    // What was there before is there still.
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    let plan = placements(&mirror).await;
    assert!(plan.contains("\"signed\"") && !plan.contains("\"namespace\""), "{plan}");
    // The owner's next state is brought there, and nothing is signed anew.
    owner.signs_in(1);
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    assert_eq!(announced(&a, &owner).await.created_at.as_secs(), before.created_at.as_secs() + 1);
    mirror.verify().await.expect_code(0);

    // Somebody takes it out by hand.
    owner.signs_in(30);
    let (taken_out, answer) = owner.announce(owner.announcement().at(&a), &a).await;
    answer.expect_accepted();
    owner.work.commit("README.md", "# hello for the third time\n");
    owner.update(&a).await;
    for _ in 0..2 {
        mirror.once().await.expect_code(0);
        assert_eq!(announced(&a, &owner).await.id, taken_out.id);
        assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
    }
    assert!(placements(&mirror).await.contains("\"namespace\""));
    // Nor on a new machine; nobody else can read what was taken out.
    let told =
        relay.served(Filter::new().author(mirror.bot_pubkey()).identifier("grasp-mirror/taken-out")).await;
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.kind.as_u16() == 30078 && !told.content.contains(&b.url()), "{told:?}");
    let mirror = mirror.on_a_new_machine();
    for _ in 0..2 {
        mirror.once().await.expect_code(0);
        assert_eq!(announced(&a, &owner).await.id, taken_out.id);
    }
    let notes = mirror.status_of(&owner.coordinate()).await["notes"].to_string();
    assert!(notes.contains("taken out of its announcement by hand"), "{notes}");
    // And puts it back.
    let (_, answer) = owner.announce(owner.announcement().at(&a).at(&b), &a).await;
    answer.expect_accepted();
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    let plan = placements(&mirror).await;
    assert!(!plan.contains("\"namespace\"") && !plan.contains("\"signed\""), "{plan}");
}

/// The owner lists `a` only, and so it stays; `b` has the bot's copy.
async fn takes_out_for_good(owner: &Owner, mirror: &Mirror, a: &Server, b: &Server) {
    let (taken_out, answer) = owner.announce(owner.announcement().at(a), a).await;
    answer.expect_accepted();
    for _ in 0..2 {
        mirror.once().await.expect_code(0);
        assert_eq!(announced(a, owner).await.id, taken_out.id);
    }
    assert_eq!(look::refs(&mirror.url_at(b, "hello")).await, owner.work.refs());
}

#[tokio::test]
async fn what_its_owner_listed_and_takes_out_is_not_added_either() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a).at(&b), &a).await;
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner), &owner);
    mirror.once().await.expect_code(0);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
    takes_out_for_good(&owner, &mirror, &a, &b).await;
}

#[tokio::test]
async fn a_new_repository_is_listed_in_the_first_cycle_by_a_co_maintainers_key() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let helper = Owner::new("hello").at_home_on(&relay);
    let published = owner.publish(owner.announcement().at(&a).maintainer(&helper.public_key()), &a).await;
    helper
        .announce(helper.announcement().at(&a).maintainer(&owner.public_key()), &a)
        .await
        .1
        .expect_accepted();
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner), &helper);
    mirror.once().await.expect_code(0);
    assert_eq!(announced(&a, &owner).await.id, published.announcement.id, "no key of the owner's");
    let theirs = announced(&b, &helper).await;
    assert!(tag(&theirs, "clone").contains(&helper.url_at(&b)), "{theirs:?}");
    assert_eq!(look::refs(&helper.url_at(&b)).await, owner.work.refs());
}

/// One server takes only what this owner lists, another only what somebody else does.
#[tokio::test]
async fn a_server_that_refuses_the_copy_is_listed_where_it_takes_that_and_nowhere_else() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let choosy = |who: &Person| Server::builder().env("NGIT_REPOSITORY_WHITELIST", &who.npub());
    let theirs = choosy(&owner).start().await;
    let others = choosy(&Person::new()).behind_proxy().start().await;
    let before = owner.publish(owner.announcement().at(&a), &a).await.announcement;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&theirs).knows(&others).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(2);
    let refused = mirror.status_of(&owner.coordinate()).await["problems"].as_array().unwrap().len();
    assert_eq!(refused, 2, "neither takes the bot's copy");

    let mirror = signing(mirror, &owner);
    mirror.once().await.expect_code(2);
    assert_eq!(look::refs(&owner.url_at(&theirs)).await, owner.work.refs());
    let after = announced(&a, &owner).await;
    assert_eq!(after.created_at.as_secs(), before.created_at.as_secs() + 1);
    assert_eq!(tag(&after, "clone"), ["clone", &owner.url_at(&a), &owner.url_at(&theirs)]);
    assert_eq!(announced(&theirs, &owner).await.id, after.id);
    // The other one was shown an announcement that nobody else has seen.
    let repo = mirror.status_of(&owner.coordinate()).await;
    let [problem] = &repo["problems"].as_array().unwrap()[..] else { panic!("{repo:#}") };
    assert_eq!(
        (&problem["server"], &problem["status"]),
        (&others.url().into(), &"refused".into()),
        "{repo:#}"
    );
    let reason = problem["reason"].as_str().unwrap();
    assert!(reason.contains("nor does it take a maintainer's announcement"), "{reason}");
    let plan = mirror.run(&["plan", "hello", "--json"]).await.json();
    let at = plan["mirrors"].as_array().unwrap().iter().find(|row| row["server"] == theirs.url());
    assert_eq!(at.unwrap()["placement"], "signed", "{plan:#}");
    // And is left alone then.
    others.proxy().reset();
    mirror.once().await.expect_code(2);
    assert_eq!(others.proxy().seen().verb("EVENT").len(), 0);
    assert_eq!(announced(&a, &owner).await.id, after.id);
}

#[tokio::test]
async fn a_key_that_maintains_nothing_is_told_by_name_and_signs_nothing() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let (owner, stranger) = (Owner::new("hello").at_home_on(&relay), Person::new());
    let b = Server::builder().env("NGIT_REPOSITORY_WHITELIST", &stranger.npub()).start().await;
    let published = owner.publish(owner.announcement().at(&a).maintainer(&stranger.public_key()), &a).await;
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner), &stranger);
    let run = mirror.once().await.expect_code(2);
    assert!(run.stderr.contains(&stranger.npub()), "{}", run.stderr);
    let told = run.stderr.find("maintains none").unwrap_or_else(|| panic!("{}", run.stderr));
    let tried = run.stderr.find("not in sync").unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(told < tried, "it is said before anything is done: {}", run.stderr);
    assert!(!run.stderr.contains(&stranger.nsec()), "{}", run.stderr);
    let found = mirror.run(&["verify", "--json"]).await.expect_code(2).json();
    let [signer] = &found["signers"].as_array().unwrap()[..] else { panic!("{found:#}") };
    assert_eq!((&signer["signer"], &signer["ok"]), (&stranger.npub().into(), &false.into()), "{found:#}");
    assert!(signer["reason"].as_str().unwrap().contains("maintains none"), "{found:#}");
    assert_eq!(announced(&a, &owner).await.id, published.announcement.id);
    assert!(placements(&mirror).await.contains("\"namespace\""));
}

/// Gives no answer to what lists more than was listed before, and says which it was.
#[derive(Debug)]
struct Holding(watch::Sender<Option<Event>>);

impl WritePolicy for Holding {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        Box::pin(async move {
            if event.kind.as_u16() == 30617 && tag(event, "relays").len() > 2 && self.0.borrow().is_none() {
                self.0.send_replace(Some(event.clone()));
                std::future::pending::<()>().await;
            }
            WritePolicyResult::Accept
        })
    }
}

#[tokio::test]
async fn what_is_taken_out_after_a_kill_is_not_added_again_once_it_was_seen() {
    let (held, mut sees) = watch::channel(None);
    let builder = LocalRelay::builder().write_policy(Holding(held));
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start_as(builder));
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner), &owner);
    let daemon = mirror.daemon().await;
    let signed = sees.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    look::wait_until("it is served", async || look::serves(&a, &signed).await).await;
    daemon.kill();
    // Whoever only looks has seen it, too.
    assert!(placements(&mirror).await.contains(&b.url()));
    owner.signs_in(30);
    takes_out_for_good(&owner, &mirror, &a, &b).await;
}

/// While the bot publishes, another client does so on another relay.
#[derive(Debug)]
struct Meanwhile {
    theirs: Mutex<Option<Event>>,
    there: Arc<TestRelay>,
}

impl WritePolicy for Meanwhile {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = WritePolicyResult> + Send + 'a>> {
        Box::pin(async move {
            let due = |theirs: &mut Event| event.kind.as_u16() == 30617 && theirs.pubkey == event.pubkey;
            let theirs = self.theirs.lock().unwrap().take_if(due);
            if let Some(theirs) = theirs {
                self.there.receive(theirs).await;
            }
            WritePolicyResult::Accept
        })
    }
}

/// Just before the bot signs, another client has.
#[derive(Debug)]
struct Before {
    theirs: Mutex<Option<Event>>,
    here: Arc<OnceLock<Weak<TestRelay>>>,
}

impl QueryPolicy for Before {
    fn admit_query<'a>(
        &'a self,
        query: &'a mut Filter,
        _address: &'a SocketAddr,
    ) -> Pin<Box<dyn Future<Output = QueryPolicyResult> + Send + 'a>> {
        Box::pin(async move {
            let kinds = query.kinds.clone().unwrap_or_default();
            let is_last_look = kinds.contains(&30617.into()) && !query.generic_tags.is_empty();
            let theirs = self.theirs.lock().unwrap().take_if(|_| is_last_look);
            if let (Some(theirs), Some(here)) = (theirs, self.here.get().and_then(Weak::upgrade)) {
                here.receive(theirs).await;
            }
            QueryPolicyResult::Accept
        })
    }
}

#[tokio::test]
async fn the_newest_version_is_read_again_before_anything_is_signed() {
    let (a, b) = tokio::join!(Server::builder().behind_proxy().start(), Server::start());
    let owner = Owner::new("hello");
    owner.publish(owner.announcement().at(&a), &a).await;
    owner.signs_in(0);
    let theirs = owner.sign_announcement(owner.announcement().at(&a).tag(&["x-new", "kept"]));
    let here = Arc::new(OnceLock::new());
    let before = Before { theirs: Mutex::new(Some(theirs.clone())), here: Arc::clone(&here) };
    let relay = Arc::new(TestRelay::start_as(LocalRelay::builder().query_policy(before)).await);
    here.set(Arc::downgrade(&relay)).unwrap();
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&*relay).watches(&owner), &owner);
    a.proxy().reset();
    mirror.once().await.expect_code(0);
    let last = announced(&b, &owner).await;
    assert_eq!(last.created_at.as_secs(), theirs.created_at.as_secs() + 1);
    assert_eq!(tag(&last, "x-new"), ["x-new", "kept"]);
    // Nothing older was signed before.
    let by_owner = format!("\"pubkey\":\"{}\"", owner.public_key().to_hex());
    let seen = a.proxy().seen();
    let announced = |text: &&str| text.contains(&by_owner) && text.contains("\"kind\":30617");
    let sent: Vec<&str> = seen.verb("EVENT").into_iter().filter(announced).collect();
    assert!(!sent.is_empty());
    let known = [theirs.id.to_hex(), last.id.to_hex()];
    assert!(sent.iter().all(|text| known.iter().any(|id| text.contains(id))), "{sent:#?}");
}

#[tokio::test]
async fn what_another_client_signs_meanwhile_is_not_overwritten() {
    let (a, b, there) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let there = Arc::new(there);
    let owner = Owner::new("hello").at_home_on(&*there);
    let listing = || owner.announcement().at(&a).relay(there.url());
    owner.publish(listing(), &a).await;
    owner.signs_in(0);
    let theirs = owner.sign_announcement(listing().tag(&["x-new", "kept"]));
    let meanwhile = Meanwhile { theirs: Mutex::new(Some(theirs.clone())), there: Arc::clone(&there) };
    let here = TestRelay::start_as(LocalRelay::builder().write_policy(meanwhile)).await;
    let mirror = signing(Mirror::new(BINARY).knows(&a).knows(&b).uses(&here).watches(&owner), &owner);
    mirror.once().await.expect_code(0);
    let last = announced(&b, &owner).await;
    assert_eq!(last.created_at.as_secs(), theirs.created_at.as_secs() + 1);
    assert_eq!(tag(&last, "x-new"), ["x-new", "kept"]);
    assert!(tag(&last, "clone").contains(&owner.url_at(&b)));
    assert_eq!(announced(&a, &owner).await.id, last.id);
    assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
}
