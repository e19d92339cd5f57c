//! The report says how many servers may vanish, and `status --at-risk` lists what the next loss may end.

use grasp_mirror_testkit::{Scene, Server};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

#[tokio::test]
async fn fewer_than_two_copies_are_listed() {
    let mut scene = Scene::set().await;
    let mirror = scene.mirror(BINARY).watches(&scene.owner);
    let at_risk = async |args: &[&str], code| {
        mirror.run(&[&["status", "--at-risk"], args].concat()).await.expect_code(code)
    };
    mirror.once().await.expect_code(0);
    assert_eq!(mirror.status_of(&scene.owner.coordinate()).await["may_vanish"], 1);
    let none = at_risk(&[], 0).await.stdout;
    assert!(none.contains("No repository has fewer than two"), "{none}");

    scene.b.kill();
    mirror.once().await.expect_code(2);
    let listed = at_risk(&["--json"], 2).await.json();
    let told = |field: &str| listed.pointer(&format!("/at_risk/0/{field}")).cloned();
    assert_eq!(told("a"), Some(scene.owner.coordinate().into()));
    assert_eq!(
        (told("copies"), told("wanted"), told("may_vanish")),
        (Some(1.into()), Some(2.into()), Some(0.into()))
    );
    let table = at_risk(&[], 2).await.stdout;
    assert!(table.contains("hello by npub1") && table.contains("1 of 2"), "{table}");
    assert!(table.contains(&Server::authority(&scene.b)), "{table}");
}
