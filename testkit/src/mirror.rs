//! The real `grasp-mirror` binary, in a folder of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nostr::{
    key::{Keys, PublicKey},
    nips::nip19::ToBech32,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Address, Person, Server, TestRelay, tools};

/// How often a running child's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// `/proc/<pid>/stat` counts in these (`USER_HZ`, the same on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// The bot: its key, its configuration, its data folder.
#[derive(Debug)]
pub struct Mirror {
    binary: PathBuf,
    home: TempDir,
    /// The bot's key.
    pub keys: Keys,
    known: Vec<String>,
    relays: Vec<String>,
    watched: Vec<String>,
    settings: Vec<(String, toml::Value)>,
    env: Vec<(String, String)>,
    limit: Duration,
}

/// How one run of the binary ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The arguments.
    pub args: Vec<String>,
    /// The exit code; -1 when killed by a signal or the time limit.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// Wall clock.
    pub elapsed: Duration,
    /// User and system CPU time (Linux; zero elsewhere).
    pub cpu: Duration,
    /// Peak resident memory in KiB (Linux; zero elsewhere).
    pub peak_rss_kib: u64,
    /// Whether it had to be killed for taking too long.
    pub timed_out: bool,
}

impl Run {
    /// Stops the test unless the binary exited with `code`.
    ///
    /// # Panics
    ///
    /// With everything it printed.
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.code == code && !self.timed_out,
            "grasp-mirror {} ended with {}{} after {:?}, wanted {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.args.join(" "),
            self.code,
            if self.timed_out { " (killed: too slow)" } else { "" },
            self.elapsed,
            self.stdout,
            self.stderr
        );
        self
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    ///
    /// When it is not JSON; with everything it printed.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("not JSON: {error}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
        })
    }
}

impl Mirror {
    /// A bot with a new key that knows nothing yet. In a test `binary` is
    /// `env!("CARGO_BIN_EXE_grasp-mirror")`.
    ///
    /// Private addresses are allowed, because every server of a test is on loopback.
    ///
    /// # Panics
    ///
    /// When there is no temporary folder to be had.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            home: tempfile::tempdir().unwrap(),
            keys: Keys::generate(),
            known: Vec::new(),
            relays: Vec::new(),
            watched: Vec::new(),
            settings: vec![("network.allow_private_addresses".to_owned(), true.into())],
            env: Vec::new(),
            limit: Duration::from_secs(120),
        }
    }

    /// Adds a GRASP server to the known ones.
    #[must_use]
    pub fn knows(self, server: &Server) -> Self {
        self.knows_url(&server.url())
    }

    /// Adds a known server by its address.
    #[must_use]
    pub fn knows_url(mut self, url: &str) -> Self {
        self.known.push(url.to_owned());
        self
    }

    /// Adds an ordinary relay: for everything (its own events, its inbox, the index).
    #[must_use]
    pub fn uses(mut self, relay: &TestRelay) -> Self {
        self.relays.push(relay.ws());
        self
    }

    /// Watches a person.
    #[must_use]
    pub fn watches(mut self, who: &Person) -> Self {
        self.watched.push(who.npub());
        self
    }

    /// Sets a key of `config.toml` by its dotted name, for example `limits.connect_timeout_secs`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Kills a run that takes longer (default: two minutes).
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Continues with `key` on an empty disk: what a bot does whose machine was lost.
    #[must_use]
    pub fn on_a_new_machine(mut self) -> Self {
        self.home = tempfile::tempdir().unwrap();
        self
    }

    /// The bot's public key.
    #[must_use]
    pub fn bot_pubkey(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// The bot's npub.
    #[must_use]
    pub fn npub(&self) -> String {
        self.bot_pubkey().to_bech32().unwrap()
    }

    /// The folder of `config.toml`.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The bot's data folder.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.home().join("config.toml")
    }

    /// The clone URL of the bot's own copy of `d` at `server`.
    #[must_use]
    pub fn url_at(&self, server: &Server, d: &str) -> String {
        server.repo_url(&self.bot_pubkey(), d)
    }

    /// Writes `config.toml` as the settings are now.
    pub fn write_config(&self) {
        let mut config = toml::Table::new();
        put(&mut config, "bot.name", "test bot".into());
        put(&mut config, "bot.data_dir", self.data_dir().display().to_string().into());
        for key in ["bot.relays", "bot.inbox_relays", "bot.index_relays"] {
            put(&mut config, key, self.relays.clone().into());
        }
        put(&mut config, "servers.known", self.known.clone().into());
        put(&mut config, "http.listen", "".into());
        for (key, value) in &self.settings {
            put(&mut config, key, value.clone());
        }
        fs::write(self.config_file(), config.to_string()).unwrap();
    }

    /// The environment the binary gets beside the usual.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut env = vec![
            ("MIRROR_NSEC".to_owned(), self.keys.secret_key().to_bech32().unwrap()),
            ("MIRROR_NPUBS".to_owned(), self.watched.join(",")),
        ];
        env.extend(self.env.iter().cloned());
        env
    }

    /// The binary with `args` and this bot's configuration, not started yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.write_config();
        let mut command = Command::new(&self.binary);
        tools::isolate(&mut command, self.home());
        command
            .current_dir(self.home())
            .args(args)
            .arg("--config")
            .arg(self.config_file())
            .envs(self.environment());
        command
    }

    /// Runs the binary with `args` to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn run(&self, args: &[&str]) -> Run {
        let mut command = self.command(args);
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| self.home().join(name));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let limit = self.limit;
        let binary = self.binary.clone();
        // Whoever stops waiting for the run ends it.
        let guard = Guard::default();
        let abandoned = Arc::clone(&guard.0);
        let mut run = tokio::task::spawn_blocking(move || measured(command, limit, &abandoned))
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary.display()));
        run.args = args.iter().map(|&arg| arg.to_owned()).collect();
        run.stdout = fs::read_to_string(stdout).unwrap_or_default();
        run.stderr = fs::read_to_string(stderr).unwrap_or_default();
        run
    }

    /// One cycle: `mirror-once`.
    pub async fn once(&self) -> Run {
        self.run(&["mirror-once"]).await
    }

    /// `plan`.
    pub async fn plan(&self) -> Run {
        self.run(&["plan"]).await
    }

    /// `verify`.
    pub async fn verify(&self) -> Run {
        self.run(&["verify"]).await
    }

    /// `status`.
    pub async fn status(&self) -> Run {
        self.run(&["status"]).await
    }

    /// The status document: `status --json`.
    pub async fn status_json(&self) -> Value {
        self.run(&["status", "--json"]).await.json()
    }

    /// What the status document says about a repository.
    ///
    /// # Panics
    ///
    /// When it does not name it.
    pub async fn status_of(&self, coordinate: &str) -> Value {
        let status = self.status_json().await;
        status["repos"]
            .as_array()
            .and_then(|repos| repos.iter().find(|repo| repo["a"] == coordinate))
            .unwrap_or_else(|| panic!("{coordinate} is not in the status: {status:#}"))
            .clone()
    }
}

/// Says, when dropped, that nobody waits any more.
#[derive(Debug, Default)]
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn put(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner =
                table.entry(section).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
            put(inner, rest, value);
        }
    }
}

/// Runs `command` while watching its memory. Its last CPU figure is read when it has ended but has not yet
/// been waited for, so it is exact.
fn measured(mut command: Command, limit: Duration, abandoned: &AtomicBool) -> std::io::Result<Run> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let pid = child.id();
    let (mut cpu, mut peak_rss_kib, mut timed_out) = (Duration::ZERO, 0, false);
    loop {
        peak_rss_kib = peak_rss(pid).unwrap_or(peak_rss_kib);
        let ended = match stat(pid) {
            Some((used, ended)) => {
                cpu = used;
                ended
            }
            None => child.try_wait()?.is_some(),
        };
        if ended {
            break;
        }
        if start.elapsed() > limit || abandoned.load(Ordering::Relaxed) {
            timed_out = true;
            child.kill()?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let elapsed = start.elapsed();
    let code = child.wait()?.code().unwrap_or(-1);
    Ok(Run {
        args: Vec::new(),
        code,
        stdout: String::new(),
        stderr: String::new(),
        elapsed,
        cpu,
        peak_rss_kib,
        timed_out,
    })
}

fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time used so far, and whether the process has ended.
fn stat(pid: u32) -> Option<(Duration, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((TICK * ticks, fields.first() == Some(&"Z")))
}
