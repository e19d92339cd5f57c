//! An announcement that names hundreds of relays does not send the bot to all of them.

use std::{
    io::ErrorKind,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

#[tokio::test]
async fn one_announcement_cannot_keep_the_bot_busy() {
    // Takes connections and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
    let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    std::thread::spawn(move || {
        for visit in listener.incoming() {
            match visit {
                Ok(_) => counted.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => 0,
                Err(_) => return,
            };
        }
    });

    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    let mut announcement = owner.announcement().at(&a).relay(relay.url());
    for n in 0..300 {
        announcement = announcement.relay(&format!("ws://{address}/{n}"));
    }
    let published = owner.publish(announcement, &a).await;

    Mirror::new(env!("CARGO_BIN_EXE_grasp-mirror"))
        .knows(&a)
        .uses(&relay)
        .watches(&owner)
        .once()
        .await
        .expect_code(0);
    assert!(look::serves(&a, &published.state).await);
    let visits = visits.load(Ordering::Relaxed);
    assert!((1..=50).contains(&visits), "the bot went to {visits} relays");
}
