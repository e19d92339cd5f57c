//! The binary as people meet it first: `init`, mistakes in the configuration, exit codes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, pipe},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use nostr::{key::Keys, nips::nip19::ToBech32};
use tempfile::TempDir;

const NPUB: &str = "npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy";

/// A configuration that asks nobody.
const NOBODY: &str = "[bot]\nrelays = []\nindex_relays = []\ninbox_relays = []\n[servers]\nknown = []\n[http]\nlisten = \"\"\n";

fn command(folder: &Path, args: &[&str]) -> Command {
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
    command
}

fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    command(folder, args).envs(env.iter().copied()).output().unwrap()
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
fn the_first_daemon_makes_a_key_and_prints_the_npub() {
    for (args, begins) in [
        (&["daemon"][..], "the bot is npub1"),
        (&["daemon", "--json"], "{\"key_made\":true,\"npub\":\"npub1"),
    ] {
        let folder = folder();
        fs::write(folder.path().join("config.toml"), NOBODY).unwrap();
        let mut command = command(folder.path(), args);
        let mut daemon = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut said).unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(said.starts_with(begins), "{said}");
        let file = folder.path().join("data/nsec");
        let keys = Keys::parse(fs::read_to_string(&file).unwrap().trim()).unwrap();
        assert!(said.contains(&keys.public_key().to_bech32().unwrap()), "{said}");
        assert_eq!(mode(&file), 0o600);
    }
}

#[test]
fn a_file_that_is_gone_does_not_mean_the_defaults() {
    let folder = folder();
    fs::write(folder.path().join("config.toml"), NOBODY).unwrap();
    let mut command = command(folder.path(), &["daemon"]);
    let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("ready")));
    fs::remove_file(folder.path().join("config.toml")).unwrap();
    Command::new("kill").args(["-HUP", &daemon.id().to_string()]).status().unwrap();
    let told = log.find(|line| line.contains("the configuration was")).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(told.contains("the old one stays") && told.contains("cannot read ./config.toml"), "{told}");
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
fn a_folder_for_data_that_no_file_names_is_mentioned() {
    let folder = folder();
    let said = |args: &[&str]| stderr(&run(folder.path(), args, &[]));
    assert_eq!(said(&["init", "--data-dir", "here"]), "");
    assert_eq!(said(&["init", "--data-dir", "here"]), "", "it is the one that was written");
    let told = said(&["init", "--data-dir", "there"]);
    assert!(told.contains("config.toml keeps its own data_dir") && told.contains("here"), "{told}");
}

#[test]
fn a_path_may_be_any_bytes() {
    let folder = folder();
    let at = folder.path().join(OsStr::from_bytes(b"\xff"));
    fs::create_dir(&at).unwrap();
    let mut command = command(folder.path(), &["init", "--json", "--config"]);
    let output = command.arg(at.join("config.toml")).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    let told: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(told["config"].as_str().unwrap().ends_with("/config.toml"), "{told}");
    assert!(at.join("data/nsec").exists());
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
fn looking_makes_no_bot() {
    let folder = folder();
    fs::write(folder.path().join("config.toml"), NOBODY).unwrap();
    for args in [&["plan"][..], &["verify"], &["plan", "--json"], &["verify", "--json"]] {
        let output = run(folder.path(), args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("no bot in ./data yet; `grasp-mirror init`"), "{}", stderr(&output));
        let there: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(there, ["config.toml"]);
    }
}

#[test]
fn a_named_file_must_exist() {
    let folder = folder();
    let output = run(folder.path(), &["status", "--config", "gone.toml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let way_out = "cannot read gone.toml: No such file or directory (os error 2); `grasp-mirror init --config gone.toml`";
    let said = stderr(&output);
    assert!(said.contains(way_out) && said.matches("No such file").count() == 1, "{said}");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = folder();
    let at = folder.path();
    assert_eq!(run(at, &["init"], &[]).status.code(), Some(0));
    fs::write(at.join("data/events"), "in the way").unwrap();
    for command in ["status", "mirror-once"] {
        let said = stderr(&run(at, &[command], &[]));
        assert!(said.contains("data/events") && said.contains("--data-dir"), "{said}");
        assert_eq!(said.matches("os error").count(), 1, "{said}");
    }
}

#[test]
fn how_it_ended_does_not_depend_on_who_reads() {
    let folder = folder();
    assert_eq!(run(folder.path(), &["init"], &[]).status.code(), Some(0));
    for args in [&["status"][..], &["status", "--json"], &["status", "--at-risk"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = command(folder.path(), args);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(2), String::new()), "{args:?}");
    }
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(folder.path(), &["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write to standard output: No space"), "{}", stderr(&output));
}

#[test]
fn nobody_has_to_read_the_log() {
    let folder = folder();
    fs::write(folder.path().join("config.toml"), NOBODY).unwrap();
    for (args, code) in [(&["mirror-once", "-vv"][..], 0), (&["status", "--config", "gone.toml"], 1)] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        for log in [Stdio::from(writer), full.into()] {
            let output = command(folder.path(), args).stderr(log).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}");
        }
    }
}

#[test]
fn a_variable_that_is_no_text_is_not_overlooked() {
    let folder = folder();
    let mut command = command(folder.path(), &["init"]);
    let output = command.env("MIRROR_NSEC", OsStr::from_bytes(b"nsec1\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("MIRROR_NSEC: not a secret key"), "{}", stderr(&output));
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_terminal_without_colours_gets_none() {
    let folder = folder();
    assert_eq!(run(folder.path(), &["init"], &[]).status.code(), Some(0));
    let log = |no_color: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", concat!(env!("CARGO_BIN_EXE_grasp-mirror"), " status -vv"), "/dev/null"]);
        script.current_dir(folder.path()).env_remove("RUST_LOG").env("NO_COLOR", no_color);
        stdout(&script.output().unwrap())
    };
    assert!(log("").contains("\u{1b}["), "a terminal gets colours: {}", log(""));
    assert!(log("1").contains("DEBUG") && !log("1").contains('\u{1b}'), "{}", log("1"));
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
fn a_misspelt_variable_of_the_real_environment_is_told_and_its_value_is_not() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("config.toml"), NOBODY).unwrap();
    let env = [
        ("MIRROR_NPUB", "hush"),
        ("MIRROR_ALLOWED", "hush"),
        ("mirror_nsec", "hush"),
        ("MIRROR_RELAYS", "hush"),
        ("MIRRORS", "hush"),
    ];
    let output = run(at, &["mirror-once"], &env);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stderr(&output);
    for (name, meant) in [
        ("MIRROR_NPUB", "did you mean MIRROR_NPUBS?"),
        ("MIRROR_ALLOWED", "did you mean MIRROR_ALLOWED_NPUBS?"),
        ("mirror_nsec", "did you mean MIRROR_NSEC?"),
        ("MIRROR_RELAYS", "expected one of MIRROR_NSEC, MIRROR_NSEC_FILE, MIRROR_NPUBS"),
    ] {
        let line = format!("environment variable {name}: unknown variable; {meant}");
        assert!(told.contains(&line), "{line}: {told}");
    }
    assert!(!told.contains("hush") && !told.contains("MIRRORS"), "{told}");
    let quiet = run(at, &["status", "-q"], &env);
    assert_eq!(stderr(&quiet), "");
}

/// Mistakes on the command line are told before anything is made.
#[test]
fn what_is_about_a_bot_makes_none() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("config.toml"), NOBODY).unwrap();
    let nsec = Keys::generate().secret_key().to_bech32().unwrap();
    for (args, part) in [
        (&["deny", &nsec][..], "That is a secret key!"),
        (&["approve", &nsec], "That is a secret key!"),
        (&["plan", &nsec], "That is a secret key!"),
        (&["deny", ""], "\"\" is not a repository"),
        (&["deny", "hello"], "there is no bot in ./data yet; `grasp-mirror init` makes one"),
        (&["pair"], "there is no bot in ./data yet; `grasp-mirror init` makes one"),
    ] {
        let output = run(at, args, &[]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let told = stderr(&output);
        assert!(told.contains(part) && !told.contains(&nsec), "{args:?}: {told}");
        assert!(!at.join("data").exists(), "{args:?}");
    }
    // What would be sent to the bot is a command here.
    run(at, &["init"], &[]);
    for args in [["deny", "hello"], ["plan", "hello"], ["archive", "hello"]] {
        let told = stderr(&run(at, &args, &[]));
        assert!(
            told.contains("I know no repository \"hello\". Run: grasp-mirror status"),
            "{args:?}: {told}"
        );
    }
}

#[test]
fn a_key_that_is_not_there_and_one_that_cannot_be_kept_say_the_way_out() {
    let folder = folder();
    let at = folder.path();
    let told = stderr(&run(at, &["status"], &[("MIRROR_NSEC_FILE", "gone")]));
    assert!(told.contains("there is no key file gone, which MIRROR_NSEC_FILE names: put"), "{told}");
    fs::write(at.join("file"), "").unwrap();
    let told = stderr(&run(at, &["init", "--data-dir", "file/data"], &[]));
    let way_out = "choose another folder with data_dir or --data-dir";
    assert!(
        told.contains("the bot's key cannot be written in file/data") && told.contains(way_out),
        "{told}"
    );
}

/// As somebody else, which only root can try.
#[test]
fn what_is_somebody_else_s_says_so() {
    let folder = folder();
    let at = folder.path();
    run(at, &["init"], &[]);
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    let told = || {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_grasp-mirror"),
        ]);
        let output = command.current_dir(at).arg("status").env_clear().output().unwrap();
        (output.status.code(), stderr(&output))
    };
    if !Command::new("setpriv").args(["--reuid=65534", "true"]).status().is_ok_and(|done| done.success()) {
        return;
    }
    for file in [".env", "data"] {
        let (code, told) = told();
        assert_eq!(code, Some(1));
        assert!(told.contains(file) && told.contains("Permission denied"), "{file}: {told}");
        assert!(told.contains("; run as its owner"), "{file}: {told}");
        fs::remove_file(at.join(".env")).unwrap_or_default();
    }
}

#[test]
fn init_says_how_its_file_is_named_to_the_next_commands() {
    let folder = folder();
    let said = |args: &[&str]| stdout(&run(folder.path(), args, &[]));
    assert!(said(&["init"]).contains("2. grasp-mirror verify    "));
    let elsewhere = said(&["init", "--config", "etc/mirror.toml"]);
    for command in ["verify", "mirror-once", "daemon"] {
        assert!(elsewhere.contains(&format!("{command} --config etc/mirror.toml ")), "{elsewhere}");
    }
}

#[test]
fn where_nobody_is_watched_that_is_said() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("config.toml"), NOBODY).unwrap();
    let output = run(at, &["mirror-once"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("Nobody is watched: set MIRROR_NPUBS"), "{}", stdout(&output));
    assert!(!stderr(&output).contains("no server to mirror to"), "{}", stderr(&output));
    let watching = stderr(&run(at, &["plan"], &[("MIRROR_NPUBS", NPUB)]));
    assert!(watching.contains("there is no server to mirror to: name some in [servers] known"), "{watching}");
    let mut command = command(at, &["daemon"]);
    command.env("MIRROR_ALLOWED_NPUBS", NPUB);
    let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("no message can reach the bot: bot.inbox_relays is empty")));
    assert!(log.any(|line| line.contains("nobody is watched: set MIRROR_NPUBS, or send the bot: watch")));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_log_filter_that_is_not_understood_is_told() {
    let folder = folder();
    let said = |filter: &str| stderr(&run(folder.path(), &["status"], &[("RUST_LOG", filter)]));
    assert!(said("grasp_mirror=loud").contains("RUST_LOG has no effect: "), "{}", said("grasp_mirror=loud"));
    assert!(!said("grasp_mirror=debug").contains("RUST_LOG") && !said(" ").contains("RUST_LOG"));
}

#[test]
fn a_damaged_database_says_the_way_out() {
    let folder = folder();
    let at = folder.path();
    run(at, &["init"], &[]);
    fs::create_dir(at.join("data/events")).unwrap();
    fs::write(at.join("data/events/data.mdb"), "x".repeat(100_000)).unwrap();
    for command in ["status", "daemon"] {
        let output = run(at, &[command], &[]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let told = stderr(&output);
        assert!(
            told.contains("data/events: MDB_INVALID") && told.contains("move that folder away"),
            "{told}"
        );
    }
}

#[test]
fn a_folder_for_data_is_made_for_nobody_else_and_one_that_is_there_stays() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("config.toml"), NOBODY).unwrap();
    let nsec = Keys::generate().secret_key().to_bech32().unwrap();
    let once = |data_dir: &str| {
        let output = run(at, &["mirror-once", "--data-dir", data_dir], &[("MIRROR_NSEC", &nsec)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        mode(&at.join(data_dir))
    };
    assert_eq!(once("new/data"), 0o700);
    fs::create_dir(at.join("mine")).unwrap();
    fs::set_permissions(at.join("mine"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(once("mine"), 0o755);
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
