//! Two owners use the same `d`: both are mirrored, and neither takes the other's place.

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn both_are_mirrored_and_keep_their_names() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let (first, second) =
        (Owner::new("dotfiles").at_home_on(&relay), Owner::new("dotfiles").at_home_on(&relay));
    second.work.commit("other.txt", "another repository altogether");
    first.publish(first.announcement().at(&a), &a).await;
    second.publish(second.announcement().at(&a), &a).await;

    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&first).watches(&second);
    let run = mirror.once().await;
    println!("{}\n{}", run.stdout, run.stderr);
    let (plain, suffixed) = match look::refs(&mirror.url_at(&b, "dotfiles")).await {
        refs if refs == first.work.refs() => (&first, &second),
        refs => {
            assert_eq!(refs, second.work.refs());
            (&second, &first)
        }
    };
    let name = |owner: &Owner| format!("dotfiles-{}", owner.public_key().to_hex().get(..8).unwrap());
    assert_eq!(look::refs(&mirror.url_at(&b, &name(suffixed))).await, suffixed.work.refs());
    run.expect_code(0);
    let note = mirror.status_of(&suffixed.coordinate()).await["notes"][0].to_string();
    assert!(note.contains(&name(suffixed)), "{note}");

    // The names stay, also when the disk is lost.
    let again = mirror.on_a_new_machine();
    again.once().await.expect_code(0);
    assert_eq!(look::refs(&again.url_at(&b, "dotfiles")).await, plain.work.refs());
    assert_eq!(look::refs(&again.url_at(&b, &name(suffixed))).await, suffixed.work.refs());
}
