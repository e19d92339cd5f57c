//! A disk that is full in the middle of a fetch: the run ends politely, says why, leaves nothing half done, and the
//! next one with more room finishes the work.

use std::{fs, process::Command};

use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look, noise_text, tools};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Runs in a mount namespace of its own: the data folder lies on a file system that is too small, then is not.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=12m tmpfs "$DATA" || exit 99
"$BOT" mirror-once --config "$CONFIG" >first.out 2>&1
echo "first $?"
"$BOT" status --json --config "$CONFIG" >status.json 2>status.err
find "$DATA/git" -type f -size +1000k | wc -l
mount -o remount,size=200m "$DATA" || exit 98
"$BOT" mirror-once --config "$CONFIG" >second.out 2>&1
echo "second $?"
git -C "$DATA/git/$OWNER/hello.git" fsck --full --strict >fsck.out 2>&1
echo "fsck $?"
"#;

#[tokio::test]
async fn a_full_disk_stops_politely_and_more_room_finishes_the_work() {
    let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
    let owner = Owner::new("hello").at_home_on(&relay);
    owner.work.commit("noise", &noise_text(24 << 20));
    owner.publish(owner.announcement().at(&a), &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner);
    let mirror = mirror.set("limits.disk_floor_bytes", 0);
    mirror.write_config();
    fs::create_dir_all(mirror.data_dir()).unwrap();

    let mut script = in_a_namespace(&mirror, SCRIPT);
    script.env("OWNER", owner.npub());
    let said = tools::must(script).await;
    let log = |name: &str| fs::read_to_string(mirror.home().join(name)).unwrap_or_default();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let told = || format!("{said}\n{}\n{}\n{}", log("first.out"), log("second.out"), log("fsck.out"));
    assert_eq!(lines, ["first 2", "0", "second 0", "fsck 0"], "{}", told());
    let status = log("status.json");
    assert!(status.contains("is full"), "{status}\n{}", log("first.out"));
    assert_eq!(look::refs(&mirror.url_at(&b, "hello")).await, owner.work.refs());
}

const INIT: &str = r#"
mount -t tmpfs -o size=4k tmpfs "$DATA" || exit 99
"$BOT" init --config "$DATA/config.toml" >first.out 2>&1
echo "first $?"
ls -A "$DATA"
"$BOT" mirror-once --config "$CONFIG" >once.out 2>&1
echo "once $?"
rm -rf "$DATA"/*
mount -o remount,size=200m "$DATA" || exit 98
"$BOT" init --config "$DATA/config.toml" >second.out 2>&1
echo "second $?"
"#;

#[tokio::test]
async fn what_init_cannot_write_whole_it_does_not_leave() {
    let mirror = Mirror::new(BINARY);
    mirror.write_config();
    fs::create_dir_all(mirror.data_dir()).unwrap();
    let script = in_a_namespace(&mirror, INIT);
    assert_eq!(tools::must(script).await.trim(), "first 1\nonce 1\nsecond 0");
    let said = |name: &str| fs::read_to_string(mirror.home().join(name)).unwrap();
    assert!(said("first.out").contains("data/config.toml: No space left"), "{}", said("first.out"));
    assert!(said("once.out").contains("make room there"), "{}", said("once.out"));
    assert!(said("second.out").contains("wrote "), "{}", said("second.out"));
}

const TOO_SMALL: &str = r#"
for size in 40k 100k; do
    mount -t tmpfs -o size=$size tmpfs "$DATA" || exit 99
    "$BOT" mirror-once --config "$CONFIG" >$size.out 2>&1
    echo "$size $?"
    mount -o remount,size=200m "$DATA" || exit 98
    "$BOT" mirror-once --config "$CONFIG" >second.out 2>&1
    echo "more room $?"
    umount "$DATA"
done
"#;

#[tokio::test]
async fn a_disk_without_room_for_events_is_told_and_more_room_is_enough() {
    let mirror = Mirror::new(BINARY);
    mirror.write_config();
    fs::create_dir_all(mirror.data_dir()).unwrap();
    let said = tools::must(in_a_namespace(&mirror, TOO_SMALL)).await;
    assert_eq!(said.trim(), "40k 1\nmore room 0\n100k 1\nmore room 0");
    for (size, way_out) in [("40k", "no storage space"), ("100k", "data/events is full")] {
        let told = fs::read_to_string(mirror.home().join(size).with_extension("out")).unwrap();
        assert!(told.contains(way_out) && told.contains("; make room there"), "{size}: {told}");
    }
}

/// `script`, in a mount namespace of its own.
fn in_a_namespace(mirror: &Mirror, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script]).current_dir(mirror.home());
    tools::isolate(&mut command, mirror.home());
    command.env("BOT", BINARY).env("DATA", mirror.data_dir()).env("CONFIG", mirror.config_file());
    command
}
