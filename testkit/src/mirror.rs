//! The real `grasp-mirror` binary, in a folder of its own.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nostr::{
    key::{Keys, PublicKey},
    nips::nip19::ToBech32,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Address, Chat, Daemon, Person, Run, Server, tools};

/// A run that takes longer is killed.
const RUNS_WITHIN: Duration = Duration::from_secs(300);

/// The bot: its key, its configuration, its data folder.
#[derive(Debug)]
pub struct Mirror {
    binary: PathBuf,
    /// Shared with the daemons that run in it.
    home: Arc<TempDir>,
    /// The bot's key.
    pub keys: Keys,
    known: Vec<String>,
    relays: Vec<String>,
    inboxes: Vec<String>,
    watched: Vec<String>,
    allowed: Vec<String>,
    settings: Vec<(String, toml::Value)>,
    env: Vec<(String, String)>,
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
            home: Arc::new(tempfile::tempdir().unwrap()),
            keys: Keys::generate(),
            known: Vec::new(),
            relays: Vec::new(),
            inboxes: Vec::new(),
            watched: Vec::new(),
            allowed: Vec::new(),
            settings: vec![("network.allow_private_addresses".to_owned(), true.into())],
            env: Vec::new(),
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

    /// Adds an ordinary relay: for everything (its own events, the index, and its inbox when there is no other).
    #[must_use]
    pub fn uses(mut self, relay: impl Address) -> Self {
        self.relays.push(relay.ws());
        self
    }

    /// Adds a relay that is only an inbox; the others are none then.
    #[must_use]
    pub fn inbox(mut self, relay: impl Address) -> Self {
        self.inboxes.push(relay.ws());
        self
    }

    /// Watches a person.
    #[must_use]
    pub fn watches(mut self, who: &Person) -> Self {
        self.watched.push(who.npub());
        self
    }

    /// Lets a person command the bot.
    #[must_use]
    pub fn obeys(mut self, who: &Person) -> Self {
        self.allowed.push(who.npub());
        self
    }

    /// Lets someone new command the bot, who talks to it at `relay`.
    pub async fn commanded_at(self, relay: impl Address) -> (Self, Chat) {
        let chat = Chat::at(&self, relay).await;
        (self.obeys(&chat), chat)
    }

    /// Lets nobody command the bot any more.
    #[must_use]
    pub fn obeys_nobody(mut self) -> Self {
        self.allowed.clear();
        self
    }

    /// Takes from the operator's settings whom to watch and which servers to use; the bot's own lists remain.
    #[must_use]
    pub fn without_seeds(mut self) -> Self {
        self.watched.clear();
        self.known.clear();
        self
    }

    /// Sets a key of `config.toml` by its dotted name, for example `limits.connect_timeout_secs`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    /// Shows how it stands by HTTP, on a port of its own.
    #[must_use]
    pub fn shows(self) -> Self {
        self.set("http.listen", "127.0.0.1:0")
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Continues with `key` on an empty disk: what a bot does whose machine was lost.
    #[must_use]
    pub fn on_a_new_machine(mut self) -> Self {
        self.home = Arc::new(tempfile::tempdir().unwrap());
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

    /// The file beside it, with keys and people.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.home().join(".env")
    }

    /// The clone URL of the bot's own copy of `d` at `server`.
    #[must_use]
    pub fn url_at(&self, server: &Server, d: &str) -> String {
        server.repo_url(&self.bot_pubkey(), d)
    }

    /// Writes `config.toml` and `.env` as the settings are now.
    ///
    /// # Panics
    ///
    /// When they cannot be written.
    pub fn write_config(&self) {
        let mut config = toml::Table::new();
        put(&mut config, "bot.name", "test bot".into());
        put(&mut config, "bot.data_dir", self.data_dir().display().to_string().into());
        let inboxes = if self.inboxes.is_empty() { &self.relays } else { &self.inboxes };
        for (key, relays) in
            [("bot.relays", &self.relays), ("bot.inbox_relays", inboxes), ("bot.index_relays", &self.relays)]
        {
            put(&mut config, key, relays.clone().into());
        }
        put(&mut config, "servers.known", self.known.clone().into());
        put(&mut config, "http.listen", "".into());
        for (key, value) in &self.settings {
            put(&mut config, key, value.clone());
        }
        replace(&self.config_file(), &config.to_string());
        let env = format!(
            "MIRROR_NSEC={}\nMIRROR_NPUBS={}\nMIRROR_ALLOWED_NPUBS={}\n",
            self.keys.secret_key().to_bech32().unwrap(),
            self.watched.join(","),
            self.allowed.join(",")
        );
        replace(&self.env_file(), &env);
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
            .envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs the binary with `args` to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args), args, self.home(), RUNS_WITHIN).await
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it is not ready in time; with its log.
    pub async fn daemon(&self) -> Daemon {
        let mut daemon = self.start_daemon();
        daemon.wait_ready().await;
        daemon
    }

    /// Starts the daemon, on the data folder as it is.
    #[must_use]
    pub fn start_daemon(&self) -> Daemon {
        Daemon::start(self.command(&["daemon"]), Arc::clone(&self.home))
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

/// Puts `text` in place of a file at once, so that a daemon that reads it meanwhile finds the one or the other.
fn replace(path: &Path, text: &str) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let new = path.with_added_extension(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    // Keys are for nobody else's eyes.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&new).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::rename(new, path).unwrap();
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
