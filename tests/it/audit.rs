//! `audit`: a stranger with nothing but relays and git servers finds out whether a bot's report is true.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::{collections::BTreeSet, process::Command};

use grasp_mirror_testkit::{Mirror, Owner, Person, Scene, Server, TestRelay, free_port};
use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    filter::Filter,
    nips::nip19::{Nip19Profile, ToBech32},
    types::RelayUrl,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// A stranger's check: no configuration, no key, no data folder.
async fn audit(args: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.current_dir(folder.path()).env_clear().arg("audit").args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What the check of `mirror` says, on loopback.
async fn checked(mirror: &Mirror, relay: &TestRelay, more: &[&str]) -> (i32, Value) {
    let npub = mirror.npub();
    let args =
        [&[npub.as_str(), "--relay", relay.url(), "--allow-private-addresses", "--json"], more].concat();
    let (code, stdout, stderr) = audit(&args).await;
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {code}\n{stdout}\n{stderr}")),
    )
}

fn verdict<'audit>(audit: &'audit Value, server: &Server) -> (&'audit str, &'audit str) {
    let claims = audit["claims"].as_array().unwrap();
    let claim = claims.iter().find(|claim| claim["server"] == server.url()).unwrap();
    (claim["verdict"].as_str().unwrap(), claim["reason"].as_str().unwrap_or_default())
}

/// Signs the bot's report again, changed by whoever has its key.
async fn lie(mirror: &Mirror, relay: &TestRelay, change: impl Fn(&mut Value)) {
    let filter = Filter::new().author(mirror.bot_pubkey()).identifier("grasp-mirror/status");
    let told = relay.served(filter).await.pop().unwrap();
    let mut report: Value = serde_json::from_str(&told.content).unwrap();
    change(&mut report);
    let lie = EventBuilder::new(Kind::ApplicationSpecificData, report.to_string())
        .tag(Tag::identifier("grasp-mirror/status"))
        .custom_created_at(told.created_at + 1_u64)
        .finalize(&mirror.keys)
        .unwrap();
    relay.send(&lie).await.expect_accepted();
}

#[tokio::test]
async fn claims_are_compared_with_what_servers_have() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!(code, 0, "{audit:#}");
    let totals = &audit["totals"];
    assert_eq!(
        (&totals["claims"], &totals["hold"], &totals["not_looked_at"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert_eq!(audit["claims"][0]["a"], scene.owner.coordinate());
    assert!(
        audit["age_secs"].as_u64().unwrap() < 120 && audit["claims"][0]["claimed_at"] == audit["claimed_at"]
    );

    // One of them, whichever.
    let (code, sample) = checked(&mirror, &scene.relay, &["--sample", "1"]).await;
    assert_eq!(
        (code, &sample["totals"]["hold"], &sample["totals"]["not_looked_at"]),
        (0, &1.into(), &1.into())
    );

    // Loses everything, and is still in the report.
    scene.b.wipe().await;
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!((code, verdict(&audit, &scene.a).0), (2, "holds"));
    let (found, reason) = verdict(&audit, &scene.b);
    assert!(found == "does_not_hold" && reason.contains("does not exist"), "{audit:#}");

    // Nobody can tell what a server has that does not answer.
    scene.b.kill();
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!((code, verdict(&audit, &scene.a).0, verdict(&audit, &scene.b).0), (0, "holds", "unchecked"));
    assert_eq!(audit["totals"]["unchecked"], 1);
    scene.a.kill();
    let npub = mirror.npub();
    let args = [&npub, "--relay", scene.relay.url(), "--allow-private-addresses"];
    let (code, stdout, stderr) = self::audit(&args).await;
    assert!(code == 1 && stderr.contains("none of the claims could be checked"), "{code} {stdout} {stderr}");
}

#[tokio::test]
async fn a_bot_that_lies_is_found_out() {
    let scene = Scene::set().await;
    let dead = format!("ws://127.0.0.1:{}", free_port());
    let c = Server::start().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);

    // A server that has nothing of it, and one that is not there.
    lie(&mirror, &scene.relay, |report| {
        for url in [c.url(), dead.clone()] {
            let server =
                serde_json::json!({"url":url,"reachable":true,"software":null,"mirrors":1,"in_sync":1});
            report["servers"].as_array_mut().unwrap().push(server);
        }
        report["repos"][0]["copies"] = 4.into();
        report["totals"]["in_sync"] = 4.into();
    })
    .await;
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!(code, 2, "{audit:#}");
    assert_eq!((verdict(&audit, &scene.a).0, verdict(&audit, &scene.b).0), ("holds", "holds"));
    assert_eq!(verdict(&audit, &c).0, "does_not_hold");
    assert_eq!(audit["totals"]["unchecked"], 1, "{audit:#}");
    let args = [&mirror.npub(), "--relay", scene.relay.url(), "--allow-private-addresses"];
    let (code, table, _) = self::audit(&args).await;
    let told = "4 claims: 2 true, 1 false, 1 could not be checked.";
    assert!(code == 2 && table.contains(told) && table.contains("✗ does not hold"), "{table}");

    // Copies that are nowhere.
    lie(&mirror, &scene.relay, |report| {
        report["servers"].as_array_mut().unwrap().truncate(2);
        report["repos"][0]["copies"] = 9.into();
        report["totals"]["in_sync"] = 9.into();
    })
    .await;
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!((code, audit["contradictions"].as_array().unwrap().len()), (2, 1), "{audit:#}");

    // It signs a state of its own for its copy, and says that all is well.
    let (owner, b) = (&scene.owner, &scene.b);
    owner.work.commit("later.txt", "by nobody");
    let state = EventBuilder::new(Kind::RepoState, "")
        .tags(owner.state().tags.iter().cloned())
        .finalize(&mirror.keys)
        .unwrap();
    b.send(&state).await.expect_accepted();
    owner.work.push_all(&mirror.url_at(b, &owner.d)).await.unwrap_or_else(|said| panic!("{said}"));
    lie(&mirror, &scene.relay, |report| {
        report["repos"][0]["copies"] = 2.into();
        report["totals"]["in_sync"] = 2.into();
    })
    .await;
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!((code, verdict(&audit, &scene.a).0), (2, "holds"));
    let (found, reason) = verdict(&audit, b);
    assert!(found == "does_not_hold" && reason.contains("signed is"), "{audit:#}");
}

#[tokio::test]
async fn what_was_signed_since_the_report_is_nobodys_lie() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    scene.owner.work.commit("later.txt", "more");
    let later = EventBuilder::new(Kind::RepoState, "")
        .tags(scene.owner.state().tags.iter().cloned())
        .custom_created_at(nostr::types::Timestamp::now() + 1_u64)
        .finalize(&scene.owner.keys)
        .unwrap();
    scene.a.send(&later).await.expect_accepted();
    let pushed = scene.owner.work.push_all(&scene.owner.url_at(&scene.a)).await;
    pushed.unwrap_or_else(|said| panic!("{said}"));
    scene.relay.send(&later).await.expect_accepted();
    let (code, audit) = checked(&mirror, &scene.relay, &[]).await;
    assert_eq!((code, verdict(&audit, &scene.a).0), (0, "holds"), "{audit:#}");
    let (found, reason) = verdict(&audit, &scene.b);
    assert!(found == "unchecked" && reason.contains("since the report"), "{audit:#}");
}

#[tokio::test]
async fn it_knocks_nowhere_inside_and_needs_a_report() {
    let scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    // The relay is the user's own word, the servers are the report's.
    let (code, stdout, stderr) = audit(&[&mirror.npub(), "--relay", scene.relay.url(), "--json"]).await;
    assert_eq!(code, 1, "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["totals"]["unchecked"], 2);
    let why = verdict(&found, &scene.b).1;
    assert!(why.contains("not a public address; give --allow-private-addresses to use it"), "{why}");

    let nobody = Person::new();
    let (code, _, stderr) = audit(&[&nobody.npub(), "--relay", scene.relay.url()]).await;
    assert!(code == 1 && stderr.contains("no report of") && stderr.contains("--relay"), "{stderr}");
    let (code, _, stderr) = audit(&[&nobody.nsec(), "--relay", scene.relay.url()]).await;
    assert!(
        code == 1 && stderr.contains("that is a secret key") && !stderr.contains(&nobody.nsec()),
        "{stderr}"
    );
    for wrong in
        [&["npub1nonsense"][..], &[], &[&nobody.npub(), "--sample", "0"], &[&nobody.npub(), "--relay", "x y"]]
    {
        assert_eq!(audit(wrong).await.0, 1, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_copy_is_taken_for_what_it_is() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let [led, unlisted] = ["led", "unlisted"].map(|d| Owner::new(d).at_home_on(&relay));
    led.publish(led.announcement().at(&a).lead(&led.public_key()), &a).await;
    let leading = || unlisted.announcement().at(&a).lead(&unlisted.public_key());
    unlisted.publish(leading().at(&b), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&led).watches(&unlisted);
    mirror.once().await.expect_code(0);
    let (_, answer) = unlisted.announce(leading(), &a).await;
    answer.expect_accepted();
    mirror.once().await;
    mirror.once().await.expect_code(0);

    let (code, audit) = checked(&mirror, &relay, &[]).await;
    assert_eq!(code, 0, "{audit:#}");
    let each = audit["claims"].as_array().unwrap().iter().map(|claim| {
        let name = claim["a"].as_str().unwrap().rsplit(':').next().unwrap();
        let server = if claim["server"] == a.url() { "a" } else { "b" };
        format!("{name} {server} {} {}", claim["placement"], claim["verdict"])
    });
    let each: BTreeSet<String> = each.collect();
    let expected = [
        "led a \"listed\" \"holds\"",
        "led b \"lead\" \"holds\"",
        "unlisted a \"listed\" \"holds\"",
        "unlisted b \"lead\" \"holds\"",
    ];
    assert_eq!(each, expected.map(str::to_owned).into());
}

/// A name that says itself where the bot is found, or a relay list that does.
#[tokio::test]
async fn the_report_is_found_where_the_bot_says() {
    let (scene, elsewhere) = tokio::join!(Scene::set(), TestRelay::start());
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    mirror.once().await.expect_code(0);
    let elsewhere_alone = ["--relay", elsewhere.url(), "--allow-private-addresses", "--json"];
    let relays = [RelayUrl::parse(scene.relay.url()).unwrap()];
    let nprofile = Nip19Profile::new(mirror.bot_pubkey(), relays).to_bech32().unwrap();
    let (code, _, stderr) = audit(&[&[nprofile.as_str()], &elsewhere_alone[..]].concat()).await;
    assert_eq!(code, 0, "{stderr}");

    let (code, _, stderr) = audit(&[&[mirror.npub().as_str()], &elsewhere_alone[..]].concat()).await;
    assert!(code == 1 && stderr.contains("no report of"), "{stderr}");
    let list = EventBuilder::new(Kind::RelayList, "").tag(Tag::custom("r", [scene.relay.url()]));
    elsewhere.send(&list.finalize(&mirror.keys).unwrap()).await.expect_accepted();
    let (code, stdout, stderr) = audit(&[&[mirror.npub().as_str()], &elsewhere_alone[..]].concat()).await;
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["totals"]["hold"], 2);
}
