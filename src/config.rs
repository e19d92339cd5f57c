//! TOML, `.env` and flags, checked once and made one [`Config`].
//!
//! `config.toml` holds what must stay local, `.env` beside it the keys; a real environment variable
//! wins over `.env`, a flag over both. Nothing here changes the process's environment. Unknown keys and
//! bad values are errors that name file, line and key and say what would do; values that may be
//! secret appear in none of them.

mod environment;
mod error;
mod file;
mod value;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use grasp_mirror_commands::Nip05;
use nostr::types::RelayUrl;
use serde::{Deserialize, Serialize};

pub(crate) use self::environment::mode_for_others;
pub use self::{
    environment::{Environment, KeyFrom, strange as strange_variables},
    error::ConfigError,
    file::KEYS,
};
use crate::model::{
    policy::{Policy, Reach},
    server::ServerUrl,
};

/// Where the configuration is looked for when no `--config` says otherwise.
pub const DEFAULT_PATH: &str = "./config.toml";

/// What the command line says about the configuration.
#[derive(Clone, Debug)]
pub struct Overrides {
    /// The TOML file.
    pub config_path: PathBuf,
    /// Whether a person named it: then it must exist.
    pub config_explicit: bool,
    /// `--data-dir`, as given: relative to the current directory.
    pub data_dir: Option<PathBuf>,
}

impl Default for Overrides {
    fn default() -> Self {
        Self { config_path: DEFAULT_PATH.into(), config_explicit: false, data_dir: None }
    }
}

/// Everything the operator can set, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file this came from (it may not exist).
    pub path: PathBuf,
    /// `[bot]`
    pub bot: Bot,
    /// `[servers]`
    pub servers: Servers,
    /// `[mirror]`
    pub mirror: Mirror,
    /// `[policy]`
    pub policy: Policy,
    /// `[limits]`
    pub limits: Limits,
    /// `[http]`
    pub http: Http,
    /// `[network]`
    pub network: Network,
    /// What came from the environment or `.env`.
    pub environment: Environment,
}

/// Where the bot meets others, as the operator wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The key `relays`.
    pub relays: Vec<RelayUrl>,
    /// The key `inbox_relays`.
    pub inbox_relays: Vec<RelayUrl>,
}

/// `[bot]`: who the bot is and where it meets others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// The name in its profile.
    pub name: String,
    /// Where events, git data and the key live; as used, flag and config folder applied.
    pub data_dir: PathBuf,
    /// What the operator wrote of the next two, which may hold more: what the bot's own lists name.
    pub written: Places,
    /// Where it publishes its lists and reports.
    pub relays: Vec<RelayUrl>,
    /// Where direct messages reach it (NIP-17).
    pub inbox_relays: Vec<RelayUrl>,
    /// Where profiles and relay lists of everybody are found.
    pub index_relays: Vec<RelayUrl>,
    /// From the start of one cycle to the start of the next.
    pub cycle_interval: Duration,
    /// Whether those who may command the bot are told by direct message when something goes wrong.
    pub alerts: bool,
    /// Whether somebody without inbox relays (kind 10050, NIP-17) is answered on the relay that brought the
    /// question. Without, such an answer is not sent.
    pub answer_where_asked: bool,
    /// Its NIP-05 name; the domain has to pass `/.well-known/nostr.json` on to `[http] listen`.
    pub nip05: Option<Nip05>,
}

impl Bot {
    /// Whether it is met at `places`.
    #[must_use]
    pub fn is_met_at(&self, places: &Places) -> bool {
        self.relays == places.relays && self.inbox_relays == places.inbox_relays
    }

    /// Is met at `places` from now on.
    pub fn meet_at(&mut self, places: Places) {
        (self.relays, self.inbox_relays) = (places.relays, places.inbox_relays);
    }
}

/// `[servers]`: the GRASP servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// The servers to mirror to, no two alike.
    pub known: Vec<ServerUrl>,
    /// Whether `known` is what comes with the program, because the file does not name any.
    pub known_is_default: bool,
    /// Whether to use servers that watched authors name, too.
    pub discover: bool,
    /// Between two looks at a server's NIP-11 document.
    pub health_interval: Duration,
    /// Whether to publish how they are (NIP-66).
    pub publish_monitoring: bool,
}

/// `[mirror]`: what to keep, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The key `placement`.
    pub reach: Reach,
    /// On how many servers each repository should be; `None` means all.
    pub copies_wanted: Option<u32>,
    /// How long rewound and deleted refs are kept.
    pub archive_days: u32,
    /// How long a state that removes most of a repository is held (`hold_hours`); 0 = not at all.
    pub hold: Duration,
}

/// `[limits]`: how much of this machine, and of others, the bot may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Repositories whose git data is fetched at a time.
    pub transfers: usize,
    /// Large pushes at a time to one server; a server holds what it is sent in memory.
    pub per_server: usize,
    /// To connect.
    pub connect_timeout: Duration,
    /// Without a single byte moving.
    pub stall_timeout: Duration,
    /// For one transfer in all.
    pub total_timeout: Duration,
    /// How long a mirror waits for its second try; doubled with every failure.
    pub retry_first: Duration,
    /// How long it waits at most.
    pub retry_max: Duration,
    /// The largest repository taken, counted while streaming.
    pub max_repo_bytes: u64,
    /// The most refs of one repository.
    pub max_refs: usize,
    /// The most repositories of one author.
    pub max_repos_per_author: usize,
    /// The most events around one repository.
    pub max_events_per_repo: usize,
    /// The longest answer that is not a pack.
    pub max_response_bytes: u64,
    /// Bytes sent in a second, all pushes together; 0 means as fast as it goes.
    pub upload_bytes_per_sec: u32,
    /// Events written to one server in a minute (servers cut off at 60).
    pub events_per_minute: u32,
    /// Free disk space below which nothing new is fetched.
    pub disk_floor_bytes: u64,
}

/// `[http]`: the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `None` means off.
    pub listen: Option<SocketAddr>,
    /// Names under which a reverse proxy on this machine may pass requests on, in lower case.
    pub hosts: Vec<String>,
}

/// `[network]`: where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Whether addresses that only events name may be private ones.
    pub allow_private_addresses: bool,
}

/// Checked by a test to be addresses; a typing error here must not stop the bot, so it is skipped.
fn addresses<T: std::str::FromStr>(known: &[&str]) -> Vec<T> {
    known.iter().filter_map(|address| address.parse().ok()).collect()
}

const SERVERS: [&str; 9] = [
    "wss://relay.ngit.dev",
    "wss://gitnostr.com",
    "wss://git.orangesync.tech",
    "wss://ngit.danconwaydev.com",
    "wss://git.shakespeare.diy",
    "wss://git.upleb.uk",
    "wss://grasp.budabit.club",
    "wss://git.uid.ovh",
    "wss://git.vps.satsnode.xyz",
];
const RELAYS: [&str; 3] = ["wss://relay.damus.io", "wss://nos.lol", "wss://relay.primal.net"];
const INBOX_RELAYS: [&str; 2] = ["wss://auth.nostr1.com", "wss://relay.damus.io"];
const INDEX_RELAYS: [&str; 3] =
    ["wss://purplepag.es", "wss://index.hzrd149.com", "wss://indexer.coracle.social"];

impl Default for Bot {
    fn default() -> Self {
        Self {
            name: "grasp-mirror".to_owned(),
            data_dir: "./data".into(),
            written: Places { relays: addresses(&RELAYS), inbox_relays: addresses(&INBOX_RELAYS) },
            relays: addresses(&RELAYS),
            inbox_relays: addresses(&INBOX_RELAYS),
            index_relays: addresses(&INDEX_RELAYS),
            cycle_interval: Duration::from_secs(3600),
            alerts: true,
            answer_where_asked: true,
            nip05: None,
        }
    }
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            known: addresses(&SERVERS),
            known_is_default: true,
            discover: false,
            health_interval: Duration::from_secs(900),
            publish_monitoring: false,
        }
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            reach: Reach::Everywhere,
            copies_wanted: None,
            archive_days: 90,
            hold: Duration::from_secs(24 * 3_600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 8,
            per_server: 2,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(1800),
            retry_first: Duration::from_secs(30),
            retry_max: Duration::from_secs(3600),
            max_repo_bytes: 2 << 30,
            max_refs: 20_000,
            max_repos_per_author: 1000,
            max_events_per_repo: 20_000,
            max_response_bytes: 16 << 20,
            upload_bytes_per_sec: 0,
            events_per_minute: 55,
            disk_floor_bytes: 1 << 30,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 7335))), hosts: Vec::new() }
    }
}

impl Config {
    /// Reads everything the operator has set.
    ///
    /// `env` looks up one variable of the real environment (`|name| std::env::var(name).ok()`).
    /// A missing default file means the defaults; a missing file that was named is an error.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names file, line and key of the first thing that is wrong, and what would do.
    pub fn load(overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let path = &overrides.config_path;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !overrides.config_explicit => {
                String::new()
            }
            Err(error) => return Err(ConfigError::Unreadable { file: path.clone(), source: error }),
        };
        let folder = folder_of(path);
        let mut config = Self::from_toml(&text, path)?;
        config.environment = Environment::load(&folder.join(".env"), env)?;
        config.bot.data_dir = match &overrides.data_dir {
            Some(data_dir) => data_dir.clone(),
            // "./data" beside "./config.toml" is "./data", not "././data".
            None => folder.join(config.bot.data_dir.strip_prefix(".").unwrap_or(&config.bot.data_dir)),
        };
        Ok(config)
    }

    /// Checks the text of a `config.toml`; `path` is its name in errors.
    ///
    /// `data_dir` is left as written, and the environment empty.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self { path: path.to_owned(), ..Self::default() };
        file::read(text, path, &mut config)?;
        config.bot.written =
            Places { relays: config.bot.relays.clone(), inbox_relays: config.bot.inbox_relays.clone() };
        Ok(config)
    }
}

/// The folder that `config` lies in; `.env` lies there too, and relative paths in it begin there.
#[must_use]
pub fn folder_of(config: &Path) -> &Path {
    match config.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
