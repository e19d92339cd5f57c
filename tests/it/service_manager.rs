//! A service manager is told when the daemon is ready, reads its configuration again, lives, and stops.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, str};

use grasp_mirror_testkit::{Mirror, TestRelay, look::PATIENCE};
use nostr::prelude::ToBech32;
use tokio::{net::UnixDatagram, time::timeout};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

/// Reads messages until one has `line`; returns that one.
async fn hears(manager: &UnixDatagram, line: &str) -> String {
    let wait = async {
        loop {
            let mut buffer = [0; 4096];
            let length = manager.recv(&mut buffer).await.unwrap();
            let message = str::from_utf8(&buffer[..length]).unwrap();
            if message.lines().any(|one| one == line) {
                return message.to_owned();
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the manager does not hear {line}"))
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let relay = TestRelay::start().await;
    let mirror = Mirror::new(BINARY)
        .uses(&relay)
        .env("NOTIFY_SOCKET", &socket.display().to_string())
        .env("WATCHDOG_USEC", "1000000");
    let mut daemon = mirror.start_daemon();
    hears(&manager, "READY=1").await;
    daemon.wait_ready().await;
    for _ in 0..2 {
        hears(&manager, "WATCHDOG=1").await;
    }
    daemon.reload();
    let reloading = hears(&manager, "RELOADING=1").await;
    // Without the time systemd takes the READY before it for the one after it.
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    hears(&manager, "READY=1").await;
    daemon.stop().await;
    hears(&manager, "STOPPING=1").await;
}

/// What systemd hands over looks as if others might read it, and they may not.
#[test]
fn a_key_that_others_may_read_is_told_unless_it_is_a_credential() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nsec");
    let mirror = Mirror::new(BINARY);
    fs::write(&file, mirror.keys.secret_key().to_bech32().unwrap()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    let told = |credentials: &Path| {
        let mut command = mirror.command(&["plan"]);
        fs::write(mirror.env_file(), "").unwrap();
        let output =
            command.env("MIRROR_NSEC_FILE", &file).env("CREDENTIALS_DIRECTORY", credentials).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap().contains("others may read the bot's key: chmod 600 it")
    };
    assert!(told(Path::new("/elsewhere")));
    assert!(!told(folder.path()));
}

#[test]
fn keys_in_an_env_file_that_others_may_read_are_told_once_unless_it_is_a_credential() {
    let mirror = Mirror::new(BINARY);
    let nsec = mirror.keys.secret_key().to_bech32().unwrap();
    let told = |content: &str, mode: u32, credentials: &Path| {
        let mut command = mirror.command(&["plan"]);
        let file = mirror.env_file();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = command.env("CREDENTIALS_DIRECTORY", credentials).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        let lines = log.lines().filter(|line| line.contains("chmod 600"));
        lines.filter(|line| line.contains(file.to_str().unwrap())).count()
    };
    let elsewhere = Path::new("/elsewhere");
    let (own, maintainers) = (format!("MIRROR_NSEC={nsec}\n"), format!("MIRROR_SIGNER={nsec}\n"));
    assert_eq!(told(&own, 0o644, elsewhere), 1);
    assert_eq!(told(&maintainers, 0o640, elsewhere), 1);
    assert_eq!(told(&own, 0o600, elsewhere), 0);
    assert_eq!(told(&own, 0o644, mirror.home()), 0);
    assert_eq!(told("MIRROR_NSEC=\n", 0o644, elsewhere), 0, "it holds no key");
}
