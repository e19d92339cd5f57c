//! What packagers take from the binary: completions that complete, a manual page for every command, and what a container's
//! health check asks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{fs, net::SocketAddr, process::Command};

use grasp_mirror_testkit::{Fault, Mirror, TestRelay, look};

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");

fn printed(args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, as the help lists them.
pub(super) fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let list = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let starts = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = starts.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let completed = |words: &str, last: &str| {
        let count = words.split(' ').count() - 1;
        let line = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={count}; f=$(complete -p grasp-mirror); f=${{f##*-F }}; \
             ${{f%% *}} grasp-mirror '{last}' x; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed("grasp-mirror mirr", "mirr"), "mirror-once");
    assert_eq!(completed("grasp-mirror restore --in", "--in"), "--into");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        assert!(commands().iter().all(|command| script.contains(command)), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("man1");
    printed(&["man", "--into", &into.display().to_string()]);
    let page = fs::read_to_string(into.join("grasp-mirror.1")).unwrap();
    assert_eq!(page, printed(&["man"]));
    assert!(commands().len() > 10);
    for command in commands() {
        let text = fs::read_to_string(into.join(format!("grasp-mirror-{command}.1")));
        assert!(text.unwrap_or_else(|_| panic!("no page for {command}")).contains(".SH SYNOPSIS"));
    }
}

/// As in a container of Debian's without its certificates.
#[test]
fn without_certificates_it_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let mut run = Command::new(BINARY);
        run.arg(command).current_dir(folder.path()).env_clear();
        run.env("SSL_CERT_DIR", folder.path().join("none")).env("SSL_CERT_FILE", folder.path().join("none"));
        run.output().unwrap()
    };
    assert!(run("init").status.success());
    let output = run("mirror-once");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No CA certificates were loaded") && said.contains("(ca-certificates)"), "{said}");
}

/// Runs the Dockerfile's own health check, at another address.
async fn is_healthy(address: SocketAddr) -> bool {
    let (_, check) = include_str!("../../Dockerfile").split_once("HEALTHCHECK").unwrap();
    let (_, check) = check.split_once(" CMD ").unwrap();
    let check = check.split_once("\nENTRYPOINT").unwrap().0.replace("\\\n", "");
    let check: Vec<String> = serde_json::from_str(&check).unwrap();
    let [bash, args @ ..] = check.as_slice() else { panic!("{check:?}") };
    let port = address.port().to_string();
    let mut command = Command::new(bash);
    command.args(args.iter().map(|arg| arg.replace("7335", &port)));
    tokio::task::spawn_blocking(move || command.status().unwrap().success()).await.unwrap()
}

#[tokio::test]
async fn a_container_is_healthy_while_the_bot_is() {
    let relay = TestRelay::start().await;
    let proxy = relay.proxied().await;
    // On a blank machine the bot waits for its relay.
    proxy.fault(Fault::Hang);
    let mirror = Mirror::new(BINARY).uses(format!("ws://{}", proxy.address())).shows();
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    assert!(!is_healthy(site.address).await, "it answers 503");
    proxy.heal();
    daemon.wait_ready().await;
    look::wait_until("it is healthy", async || is_healthy(site.address).await).await;
    daemon.stop().await;
    assert!(!is_healthy(site.address).await, "nobody answers");
}
