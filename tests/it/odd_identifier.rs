//! Identifiers are chosen by strangers: any name must work or be refused, and none may reach other folders.

use std::fs;

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn spaces_and_letters_of_all_kinds_are_mirrored() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("mein Projekt – é漢 100%").at_home_on(&relay);
    let listing = owner.announcement().at(&a);
    owner.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    mirror.once().await.expect_code(0);
    let url = mirror.url_at(&b, &owner.d);
    look::clone(&url).await;
    assert_eq!(look::refs(&url).await, owner.work.refs());
}

#[tokio::test]
async fn no_identifier_leaves_the_folder() {
    let (a, relay) = tokio::join!(Server::start(), TestRelay::start());
    let honest = Owner::new("hello").at_home_on(&relay);
    let listing = honest.announcement().at(&a);
    honest.publish(listing, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).uses(&relay).watches(&honest);
    fs::create_dir_all(mirror.data_dir()).unwrap();

    let long = "x".repeat(300);
    for d in [
        "../../../escaped",
        "..",
        ".",
        "a/../../../escaped",
        "/tmp/escaped",
        "a\\b",
        "a\u{202e}b",
        "a\nb",
        &long,
    ] {
        // The commits can be fetched, so nothing but the name stands in the way.
        let announcement = grasp_mirror_testkit::Announcement::new(honest.public_key(), d)
            .clone_url(&honest.url_at(&a))
            .relay(relay.url());
        relay.send(&honest.sign_announcement(announcement)).await.expect_accepted();
        relay.send(&honest.sign_state(d, &honest.work)).await.expect_accepted();
    }
    let run = mirror.once().await;
    assert!([0, 2].contains(&run.code), "ended with {}:\n{}", run.code, run.stderr);

    let names = |folder| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let git = mirror.data_dir().join("git");
    assert_eq!(names(git.clone()), [honest.npub()], "one folder an owner");
    for name in names(git.join(honest.npub())) {
        let repository = git.join(honest.npub()).join(&name);
        assert!(name.ends_with(".git") && name.is_ascii() && name.len() < 256, "{name}");
        assert!(
            repository.join("HEAD").is_file(),
            "{name} is a bare repository, not a folder on the way to one"
        );
    }
    let mut around = names(mirror.home().to_owned());
    around.retain(|name| ![".env", "data", "config.toml", "stdout", "stderr"].contains(&name.as_str()));
    assert!(around.is_empty(), "{around:?}");
    assert!(
        !std::path::Path::new("/tmp/escaped").exists() && !std::path::Path::new("/tmp/escaped.git").exists()
    );
    // And the honest one is not held up.
    assert_eq!(mirror.status_of(&honest.coordinate()).await["copies"], 1);
}
