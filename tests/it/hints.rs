//! An nprofile, an naddr or a link may say where more is found: what only that relay has is found there.

#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_testkit::{Mirror, Owner, Protocol, Server, TestRelay, look};
use nostr::{
    event::Kind,
    nips::{
        nip01::Coordinate,
        nip19::{Nip19Coordinate, Nip19Profile, ToBech32},
    },
    types::RelayUrl,
};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn what_only_the_named_relay_has_is_found() {
    let (home, known, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let [one, other, third] = ["one", "other", "third"].map(Owner::new);
    for owner in [&one, &other, &third] {
        owner.publish(owner.announcement().at(&home), &home).await;
    }
    let (mirror, ada) = Mirror::new(BINARY).knows(&known).uses(&relay).commanded_at(&relay).await;
    let daemon = mirror.daemon().await;
    let hint = || [RelayUrl::parse(&home.url()).unwrap()];
    let coordinate = Coordinate::new(Kind::GitRepoAnnouncement, other.public_key()).identifier("other");
    let nprofile = Nip19Profile::new(one.public_key(), hint()).to_bech32().unwrap();
    let naddr = Nip19Coordinate::new(coordinate, hint()).to_bech32().unwrap();
    // As the server and web pages give it.
    let clone_url = home.repo_url(&third.public_key(), &third.d);
    for (owner, name) in [(&one, nprofile), (&other, format!("nostr:{naddr}")), (&third, clone_url)] {
        let answer = ada.answer_to(Protocol::Nip17, &format!("watch {name}")).await;
        assert!(answer.contains("Mirroring starts now"), "{answer}");
        look::wait_until("it is on the server that the bot knows", async || {
            look::refs(&mirror.url_at(&known, &owner.d)).await == owner.work.refs()
        })
        .await;
    }
    daemon.stop().await;
}
