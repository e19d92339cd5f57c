//! The binary as people meet it first: `init`, mistakes in the configuration, exit codes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

const NPUB: &str = "npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy";

fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grasp-mirror"));
    command.current_dir(folder).args(args);
    for name in [
        "MIRROR_NSEC",
        "MIRROR_NSEC_FILE",
        "MIRROR_NPUBS",
        "MIRROR_ALLOWED_NPUBS",
        "MIRROR_SIGNER",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.envs(env.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn init_writes_what_is_missing_and_keeps_what_is_there() {
    let folder = folder();
    let at = folder.path();
    let first = run(at, &["init"], &[]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert_eq!(mode(&at.join(".env")), 0o600);
    assert_eq!(mode(&at.join("data/nsec")), 0o600);
    assert_eq!(mode(&at.join("data")), 0o700);
    let nsec = fs::read_to_string(at.join("data/nsec")).unwrap();
    let npub = stdout(&first).split_whitespace().find(|word| word.starts_with("npub1")).unwrap().to_owned();
    assert!(!stdout(&first).contains(nsec.trim()) && !stderr(&first).contains(nsec.trim()));

    fs::write(at.join(".env"), format!("MIRROR_NPUBS={NPUB}\n")).unwrap();
    fs::write(at.join("config.toml"), "[bot]\nname = \"mine\"\n").unwrap();
    let second = run(at, &["init"], &[]);
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    assert!(stdout(&second).contains("kept (it was there) ./config.toml"), "{}", stdout(&second));
    assert!(stdout(&second).contains(&npub));
    assert_eq!(fs::read_to_string(at.join("config.toml")).unwrap(), "[bot]\nname = \"mine\"\n");
    assert_eq!(fs::read_to_string(at.join("data/nsec")).unwrap(), nsec);
}

#[test]
fn init_elsewhere_leads_later_commands_to_its_key() {
    let folder = folder();
    let at = folder.path();
    let first = run(at, &["init", "--config", "etc/mirror.toml", "--data-dir", "var \"x\"", "--json"], &[]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let report: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&report["key_made"], &report["config_written"]), (&true.into(), &true.into()));
    assert!(at.join("etc/.env").exists() && at.join("var \"x\"/nsec").exists());

    let second = run(at, &["--config", "etc/mirror.toml", "init", "--json"], &[]);
    let again: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!((&again["npub"], &again["key_made"]), (&report["npub"], &false.into()));
}

#[test]
fn a_mistake_names_key_line_and_what_would_do() {
    let folder = folder();
    fs::write(folder.path().join("config.toml"), "[bot]\nname = \"x\"\n\n[limits]\ntransfer = 3\n").unwrap();
    for command in ["init", "daemon", "mirror-once", "status", "verify", "plan"] {
        let output = run(folder.path(), &[command], &[]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = stderr(&output);
        for word in ["config.toml", "line 5", "limits.transfer", "`transfers`"] {
            assert!(said.contains(word), "{command}: {said}");
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn wrong_usage_exits_1_and_help_exits_0() {
    let folder = folder();
    for args in [&["--nonsense"][..], &["fly"], &[], &["status", "--config"], &["init", "-v", "-q"]] {
        assert_eq!(run(folder.path(), args, &[]).status.code(), Some(1), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["help", "plan"], &["plan", "--help"]] {
        let output = run(folder.path(), args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_named_file_must_exist() {
    let folder = folder();
    let output = run(folder.path(), &["status", "--config", "gone.toml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("gone.toml"), "{}", stderr(&output));
}

#[test]
fn secrets_are_never_echoed() {
    let secret = "nsec1thisisnotakeybutsomebodymaythinkitisone";
    let folder = folder();
    let at = folder.path();
    let mut outputs = vec![
        run(at, &["status", "-vv"], &[("MIRROR_NSEC", secret)]),
        run(at, &["status", "-vv"], &[("MIRROR_NPUBS", secret)]),
        run(at, &["status", "-vv"], &[("MIRROR_SIGNER", secret)]),
    ];
    for dotenv in [format!("MIRROR_NSEC={secret}\n"), format!("MIRROR_NSEC={secret} {secret}\n")] {
        fs::write(at.join(".env"), dotenv).unwrap();
        outputs.push(run(at, &["status", "-vv"], &[]));
    }
    for output in outputs {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("MIRROR_"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("thisisnot") && output.stdout.is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn an_unknown_variable_names_its_line_and_the_nearest() {
    let folder = folder();
    fs::write(folder.path().join(".env"), format!("# people\nMIRROR_NPUB={NPUB}\n")).unwrap();
    let output = run(folder.path(), &["status"], &[]);
    assert_eq!(output.status.code(), Some(1));
    for word in [".env", "line 2", "MIRROR_NPUB", "MIRROR_NPUBS"] {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
