//! Finding and running the real programs: `ngit-grasp`, `ngit`, `git`.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const TOOLS: [(&str, &str); 3] = [
    ("ngit-grasp", "cargo install ngit-grasp --version 3.0.9 --locked --root target/tools"),
    ("ngit", "cargo install ngit --version 3.0.3 --locked --root target/tools"),
    ("git-remote-nostr", "cargo install ngit --version 3.0.3 --locked --root target/tools"),
];

/// The folder with the real servers and clients: `$GRASP_MIRROR_TOOLS`, else `target/tools/bin`.
#[must_use]
pub fn folder() -> PathBuf {
    env::var_os("GRASP_MIRROR_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools/bin"),
        PathBuf::from,
    )
}

/// The path of a real tool.
///
/// # Panics
///
/// When it is not installed: a test without its server would prove nothing. The message holds the
/// command that installs it.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let path = folder().join(name);
    if !path.is_file() {
        let install = TOOLS.iter().find(|(tool, _)| *tool == name).map_or("", |(_, install)| install);
        panic!(
            "{name} is not in {}. Run ./scripts/test, or: {install} (or point GRASP_MIRROR_TOOLS at its folder)",
            folder().display()
        );
    }
    path
}

/// The bot that was built beside the example that runs now.
///
/// # Panics
///
/// When it was not.
#[must_use]
pub fn bot() -> PathBuf {
    let example = env::current_exe().unwrap();
    let binary = example.parent().unwrap().with_file_name("grasp-mirror");
    assert!(binary.is_file(), "{} is missing: run ./scripts/demo, or cargo build first", binary.display());
    binary
}

/// `git` that knows nothing of the person at the keyboard: no configuration, no prompts, and fixed
/// author and dates, so that the same steps give the same commits on every machine.
#[must_use]
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir);
    isolate(&mut command, dir);
    command
}

/// Lets `command` (`ngit`, or `git` on a `nostr://` URL) find the real `ngit`, and makes `relay` the only
/// address that this asks beside the repository's own; else it would turn to public relays.
pub fn with_ngit(command: &mut Command, relay: &str) {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tool("git-remote-nostr").parent().unwrap().to_owned());
    command.env("PATH", env::join_paths(folders.chain(env::split_paths(&path))).unwrap());
    for set in ["DEFAULT", "ANNOUNCEMENT_INDEXER", "BLASTER", "SIGNER_FALLBACK"] {
        command.env(format!("NGIT_RELAY_{set}_SET"), relay);
    }
}

/// `ngit` in the repository `dir`, as isolated as [`git`].
#[must_use]
pub fn ngit(dir: &Path, relay: &str) -> Command {
    let mut command = Command::new(tool("ngit"));
    command.current_dir(dir);
    isolate(&mut command, &dir.join(".git"));
    with_ngit(&mut command, relay);
    command
}

/// nostr-tools as a client of the bot, which asks and prints the answers: see `testkit/node/dm.mjs`. Its key,
/// in hex, belongs in the variable `NSEC_HEX`.
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn nostr_tools(args: &[&str]) -> Command {
    let installed = node_folder("nostr-tools");
    // From standard input, because a module looks for others beside itself.
    let script = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("node/dm.mjs")).unwrap();
    let mut command = Command::new("node");
    isolate(&mut command, &installed);
    command.current_dir(&installed).args(["--input-type=module", "-"]).args(args).stdin(script);
    command
}

/// The folder in which the packages of `testkit/node` are installed, `package` among them.
///
/// # Panics
///
/// When it is not.
#[must_use]
pub fn node_folder(package: &str) -> PathBuf {
    let installed = folder().parent().unwrap().join("node");
    assert!(
        installed.join("node_modules").join(package).is_dir(),
        "{package} is not in {}. Run ./scripts/test, or in a copy of testkit/node there: npm ci --ignore-scripts",
        installed.display()
    );
    installed
}

/// A Chromium: `$CHROMIUM`, else the one in `PATH`.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn chromium() -> PathBuf {
    if let Some(chosen) = env::var_os("CHROMIUM") {
        return chosen.into();
    }
    in_path(&["chromium", "chromium-browser", "google-chrome"]).expect(
        "Chromium is missing; the dashboard is tested in it. Debian, Ubuntu: sudo apt-get install chromium \
         (or let CHROMIUM name one)",
    )
}

/// nginx.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn nginx() -> PathBuf {
    in_path(&["nginx"]).expect(
        "nginx is missing; servers are tested behind it. Debian, Ubuntu: sudo apt-get install nginx-light",
    )
}

/// The first of these programs that is there, also where Debian has those of the system, which is not in everybody's `PATH`.
fn in_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut found = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    found.find(|program| program.is_file())
}

/// Cuts `command` off from the user's environment; `home` becomes its home folder.
pub fn isolate(command: &mut Command, home: &Path) {
    command.env_clear().envs(env::vars_os().filter(|(key, _)| {
        ["PATH", "TMPDIR", "LANG", "RUST_LOG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"]
            .iter()
            .any(|kept| key == kept)
    }));
    command
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000");
}

/// Runs `command` to its end on a thread of its own, so that relays and proxies of this process go on.
pub async fn run(mut command: Command) -> Output {
    let name = format!("{command:?}");
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"))
}

/// Runs `command` and returns what it printed.
///
/// # Panics
///
/// When it fails; the message holds all it said.
pub async fn must(command: Command) -> String {
    let name = format!("{command:?}");
    let output = run(command).await;
    assert!(
        output.status.success(),
        "{name} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
