//! The variables `MIRROR_…`, from the real environment or from `.env`.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nostr::key::{PublicKey, SecretKey};
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, error::nearest, folder_of};

/// Every variable there is.
pub(super) const VARIABLES: [&str; 5] =
    ["MIRROR_NSEC", "MIRROR_NSEC_FILE", "MIRROR_NPUBS", "MIRROR_ALLOWED_NPUBS", "MIRROR_SIGNER"];

/// What all of them begin with.
const PREFIX: &str = "MIRROR_";

/// What the environment says, checked.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Where the bot's own key is.
    pub key: KeyFrom,
    /// `MIRROR_NPUBS`: the authors to watch.
    pub watched: Vec<PublicKey>,
    /// `MIRROR_ALLOWED_NPUBS`: who may command the bot.
    pub allowed: Vec<PublicKey>,
    /// `MIRROR_SIGNER`: maintainers' keys or remote signers.
    pub signers: Vec<SecretString>,
    /// The mode of `.env`, where it holds secrets and others may read it.
    pub exposed: Option<u32>,
}

/// Where the bot's own key is.
#[derive(Clone, Debug, Default)]
pub enum KeyFrom {
    /// In the data folder, made there when it is missing.
    #[default]
    DataDir,
    /// `MIRROR_NSEC`.
    Value(SecretString),
    /// `MIRROR_NSEC_FILE`.
    File(PathBuf),
}

/// One variable that is set, and where.
struct Set {
    name: &'static str,
    value: SecretString,
    /// File and line, when it is not the real environment.
    place: Option<(PathBuf, usize)>,
}

impl Set {
    /// `problem` must not hold the value.
    fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        let (problem, variable) = (problem.into(), self.name.to_owned());
        match self.place.clone() {
            Some((file, line)) => ConfigError::Key { file, line, key: variable, problem },
            None => ConfigError::Variable { variable, problem },
        }
    }

    fn is_key(&self) -> bool {
        matches!(self.name, "MIRROR_NSEC" | "MIRROR_NSEC_FILE")
    }

    fn is_secret(&self) -> bool {
        matches!(self.name, "MIRROR_NSEC" | "MIRROR_SIGNER")
    }

    fn is_empty(&self) -> bool {
        self.value.expose_secret().trim().is_empty()
    }

    fn is_real(&self) -> bool {
        self.place.is_none()
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &str)> {
        let parts = self.value.expose_secret().split([',', '\n']).map(str::trim);
        parts.filter(|part| !part.is_empty()).enumerate().map(|(index, part)| (index + 1, part))
    }

    fn npubs(&self) -> Result<Vec<PublicKey>, ConfigError> {
        let mut keys = Vec::new();
        for (number, entry) in self.entries() {
            // Bech32 may be written in capitals, and so may hex.
            let entry = entry.to_lowercase();
            let key = PublicKey::parse(&entry).ok().filter(|key| key.xonly().is_ok()).ok_or_else(|| {
                let secret = if entry.contains("nsec1") { " (it is a secret key)" } else { "" };
                self.wrong(format!("entry {number} is no npub, nprofile or public key in hex{secret}"))
            })?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn signers(&self) -> Result<Vec<SecretString>, ConfigError> {
        self.entries()
            .map(|(number, entry)| {
                if is_bunker(entry) || SecretKey::parse(entry).is_ok() {
                    return Ok(SecretString::from(entry));
                }
                Err(self.wrong(format!(
                    "entry {number} (not shown) is neither an nsec nor bunker://<pubkey in hex>?relay=wss://…"
                )))
            })
            .collect()
    }
}

/// The look of a NIP-46 bunker URI: the signer's key and at least one relay.
fn is_bunker(text: &str) -> bool {
    let Ok(uri) = url::Url::parse(text) else { return false };
    let relay = uri
        .query_pairs()
        .any(|(key, value)| key == "relay" && value.parse::<nostr::types::RelayUrl>().is_ok());
    uri.scheme() == "bunker" && relay && uri.host_str().is_some_and(|host| PublicKey::from_hex(host).is_ok())
}

impl Environment {
    /// Reads `env`, then what only `dotenv` sets. A missing file is fine; empty means unset.
    pub(super) fn load(dotenv: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let (mut from_file, mode) = read(dotenv)?;
        let holds_secrets = from_file.values().any(|set| set.is_secret() && !set.is_empty());
        let set = VARIABLES.into_iter().filter_map(|name| {
            let real = env(name).map(|value| Set { name, value: value.into(), place: None });
            real.or_else(|| from_file.remove(name)).filter(|set| !set.is_empty())
        });

        let mut set: Vec<Set> = set.collect();
        // The bot's key is one thing that two variables can say.
        if set.iter().any(|set| set.is_key() && set.is_real()) {
            set.retain(|set| !set.is_key() || set.is_real());
        }

        let mut environment = Self { exposed: mode.filter(|_| holds_secrets), ..Self::default() };
        for set in set {
            match set.name {
                "MIRROR_NSEC" => {
                    if SecretKey::parse(set.value.expose_secret().trim()).is_err() {
                        return Err(
                            set.wrong("not a secret key (not shown); expected nsec1… or 64 hex digits")
                        );
                    }
                    environment.key = KeyFrom::Value(set.value.expose_secret().trim().into());
                }
                "MIRROR_NSEC_FILE" => {
                    if matches!(environment.key, KeyFrom::Value(_)) {
                        return Err(set.wrong("MIRROR_NSEC is set too; set one of the two"));
                    }
                    let file = PathBuf::from(set.value.expose_secret().trim());
                    // From `.env`, relative means beside it; from a shell, where the shell is.
                    let file = if set.place.is_some() { folder_of(dotenv).join(file) } else { file };
                    environment.key = KeyFrom::File(file);
                }
                "MIRROR_NPUBS" => environment.watched = set.npubs()?,
                "MIRROR_ALLOWED_NPUBS" => environment.allowed = set.npubs()?,
                _ => environment.signers = set.signers()?,
            }
        }
        Ok(environment)
    }
}

/// The mode of `file` where it lets others read it, or write to it.
///
/// What systemd hands over (`LoadCredential`) shows the mask of an ACL as its mode, and nobody else may enter the folder.
pub(crate) fn mode_for_others(file: &Path, metadata: &Metadata) -> Option<u32> {
    let is_credential =
        std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| file.starts_with(folder));
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0 && !is_credential).then_some(mode)
}

/// The variables that `dotenv` sets, and its mode where that lets others in. A name set twice keeps its first value, as
/// dotenvy has it.
fn read(dotenv: &Path) -> Result<(HashMap<&'static str, Set>, Option<u32>), ConfigError> {
    let read = fs::metadata(dotenv).and_then(|metadata| Ok((fs::read_to_string(dotenv)?, metadata)));
    let (text, metadata) = match read {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((HashMap::new(), None)),
        Err(source) => return Err(ConfigError::Unreadable { file: dotenv.to_owned(), source }),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut variables = HashMap::new();
    for item in dotenvy::from_read_iter(text.as_bytes()) {
        let (name, value) = item.map_err(|error| syntax(dotenv, text, &error))?;
        let line = line_of(text, &name);
        match VARIABLES.into_iter().find(|known| *known == name) {
            Some(known) => {
                let place = Some((dotenv.to_owned(), line));
                variables.entry(known).or_insert(Set { name: known, value: value.into(), place });
            }
            None if name.to_ascii_uppercase().starts_with("MIRROR") => {
                let problem = unknown(&name);
                return Err(ConfigError::Key { file: dotenv.to_owned(), line, key: name, problem });
            }
            // Others, such as RUST_LOG, are not ours.
            None => {}
        }
    }
    Ok((variables, mode_for_others(dotenv, &metadata)))
}

/// What is wrong with each of `names` that looks like one of the variables and is none. Unlike those in `.env` it may be
/// meant for another program.
pub fn strange(names: impl IntoIterator<Item = String>) -> Vec<ConfigError> {
    let ours =
        |name: &String| name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let strange = names.into_iter().filter(|name| ours(name) && !VARIABLES.contains(&name.as_str()));
    strange.map(|variable| ConfigError::Variable { problem: unknown(&variable), variable }).collect()
}

fn unknown(name: &str) -> String {
    // What all of them begin with makes none of them likelier.
    let rest = |name: &str| {
        name.to_ascii_uppercase().trim_start_matches("MIRROR").trim_start_matches('_').to_owned()
    };
    let known = VARIABLES.map(rest);
    match nearest(&rest(name), known.iter().map(String::as_str)) {
        Some(known) => format!("unknown variable; did you mean {PREFIX}{known}?"),
        None => format!("unknown variable; expected one of {}", VARIABLES.join(", ")),
    }
}

/// The line, from 1, that sets `name`.
fn line_of(text: &str, name: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(sets).map_or(1, |index| index + 1)
}

/// dotenvy's own error text quotes the line, and with it the secret; this one does not.
fn syntax(dotenv: &Path, text: &str, error: &dotenvy::Error) -> ConfigError {
    // The rest of the line from where it stopped making sense.
    let bad = match error {
        dotenvy::Error::LineParse(rest, _) => rest.lines().next().unwrap_or_default().trim_end(),
        _ => "",
    };
    let mut lines = text.lines().enumerate();
    let found = lines.find(|(_, line)| !line.trim_start().starts_with('#') && line.trim_end().ends_with(bad));
    let (index, line) = found.unwrap_or_default();
    let name = line.split('=').next().unwrap_or_default().trim().trim_start_matches("export ").trim();
    let name =
        VARIABLES.into_iter().find(|known| *known == name).map_or(String::new(), |name| format!("{name}: "));
    let problem = format!("{name}expected NAME=value, with quotes around a value that holds spaces or #");
    ConfigError::Syntax { file: dotenv.to_owned(), line: index + 1, problem }
}
