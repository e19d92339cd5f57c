//! One value of `config.toml`, read as the type its key wants.

use std::{borrow::Cow, net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use grasp_mirror_commands::Nip05;
use nostr::types::RelayUrl;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::ConfigError;
use crate::model::{policy::Reach, server::ServerUrl};

/// The text being read, for naming places in it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

impl Source<'_> {
    /// The line, from 1, that holds the byte at `offset`.
    pub(super) fn line(self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    pub(super) fn wrong(self, offset: usize, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Key {
            file: self.path.to_owned(),
            line: self.line(offset),
            key: if looks_secret(key) { "something secret (not shown)".to_owned() } else { key.to_owned() },
            problem: problem.into(),
        }
    }
}

/// A value with its key, which every error names.
pub(super) struct Value<'a> {
    pub(super) source: Source<'a>,
    pub(super) key: String,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub(super) fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        self.source.wrong(self.value.span().start, &self.key, problem)
    }

    fn mistyped(&self, expected: &str) -> ConfigError {
        self.wrong(format!("expected {expected}, found {}", self.met()))
    }

    /// What stands there, for people; text is shown only as far as it cannot be a secret.
    fn met(&self) -> String {
        match self.value.get_ref() {
            DeValue::String(text) => shown(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::Datetime(_) => "a date".to_owned(),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.mistyped("text in quotes"))
    }

    /// Text that is not empty.
    pub(super) fn name(&self) -> Result<&'a str, ConfigError> {
        let text = self.text()?;
        let bad = text.trim().is_empty() || text.contains(char::is_control);
        if bad { Err(self.wrong("expected text that is not empty, on one line")) } else { Ok(text) }
    }

    /// A path. No shell reads it, so `~` would become a folder of that name.
    pub(super) fn folder(&self) -> Result<&'a str, ConfigError> {
        match self.name()? {
            home if home == "~" || home.starts_with("~/") => {
                Err(self.wrong("~ means nothing here; write the whole path"))
            }
            path => Ok(path),
        }
    }

    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.mistyped("true or false"))
    }

    /// A whole number within `range`.
    pub(super) fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, ConfigError> {
        let number = self
            .value
            .get_ref()
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            self.mistyped(&format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn seconds(&self, range: RangeInclusive<u64>) -> Result<Duration, ConfigError> {
        self.number(range).map(Duration::from_secs)
    }

    /// Hours up to `most`; half an hour is `0.5`.
    pub(super) fn hours(&self, most: u32) -> Result<Duration, ConfigError> {
        let hours: Option<f64> = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => self.number(0..=u64::from(most)).ok().map(|hours: u32| f64::from(hours)),
        };
        let hours = hours.filter(|hours| (0.0..=f64::from(most)).contains(hours));
        let hold = hours.and_then(|hours| Duration::try_from_secs_f64((hours * 3_600.0).ceil()).ok());
        hold.ok_or_else(|| self.mistyped(&format!("a number of hours from 0 to {most}")))
    }

    pub(super) fn reach(&self) -> Result<Reach, ConfigError> {
        match self.text()? {
            "everywhere" => Ok(Reach::Everywhere),
            "listed" => Ok(Reach::Listed),
            _ => Err(self.mistyped("\"everywhere\" or \"listed\"")),
        }
    }

    pub(super) fn listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => text.parse(),
        };
        address
            .map(Some)
            .map_err(|_| self.mistyped("an IP address and port such as \"127.0.0.1:7335\" (\"\" = off)"))
    }

    /// A NIP-05 name; `None` for an empty one.
    pub(super) fn nip05(&self) -> Result<Option<Nip05>, ConfigError> {
        match self.text()? {
            "" => Ok(None),
            text => Nip05::parse(text)
                .map(Some)
                .ok_or_else(|| self.mistyped("a name such as \"mirror@example.org\" (\"\" = none)")),
        }
    }

    /// Names of hosts, without ports.
    pub(super) fn hosts(&self) -> Result<Vec<String>, ConfigError> {
        let host = |value: Value<'a>| {
            let text = value.text()?.to_lowercase();
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            match !text.is_empty() && text.chars().all(fits) {
                true => Ok(text),
                false => Err(value.mistyped("the name of a host, without a port")),
            }
        };
        self.list("names of hosts")?.into_iter().map(host).collect()
    }

    /// The entries of a list, each with this key and its own line.
    pub(super) fn list(&self, of: &str) -> Result<Vec<Value<'a>>, ConfigError> {
        let array =
            self.value.get_ref().as_array().ok_or_else(|| self.mistyped(&format!("a list of {of}")))?;
        Ok(array.iter().map(|value| Value { source: self.source, key: self.key.clone(), value }).collect())
    }

    pub(super) fn table(&self) -> Result<&'a DeTable<'a>, ConfigError> {
        self.value.get_ref().as_table().ok_or_else(|| self.mistyped("a table"))
    }

    pub(super) fn server(&self) -> Result<ServerUrl, ConfigError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.mistyped("a server such as \"wss://host\" or \"wss://host/path\""))
    }

    pub(super) fn servers(&self) -> Result<Vec<ServerUrl>, ConfigError> {
        let mut servers = Vec::new();
        for value in self.list("servers")? {
            let server = value.server()?;
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    pub(super) fn relays(&self) -> Result<Vec<RelayUrl>, ConfigError> {
        let mut relays = Vec::new();
        for value in self.list("relays")? {
            // Relays and servers are written alike; what a server refuses (a query) no relay has either.
            let relay = value.text()?.parse::<ServerUrl>();
            let relay = relay.map_err(|_| value.mistyped("a relay such as \"wss://host\""))?;
            if !relays.contains(relay.relay_url()) {
                relays.push(relay.relay_url().clone());
            }
        }
        Ok(relays)
    }
}

/// `text` in quotes for an error; long text is cut, and what looks like a secret is left out.
pub(super) fn shown(text: &str) -> String {
    if looks_secret(text) {
        return "something secret (not shown)".to_owned();
    }
    if text.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
        return "an address with a name or password in it (not shown)".to_owned();
    }
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("{:?}", short + "…") } else { format!("{short:?}") }
}

/// Whether a key or signer may have slipped into the wrong place.
pub(super) fn looks_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    ["nsec1", "ncryptsec1", "bunker:", "secret="].iter().any(|mark| text.contains(mark))
}

/// The entries of `table` as they stand in the text, so that the first mistake is the first one told.
pub(super) fn in_order<'a>(
    table: &'a DeTable<'a>,
) -> Vec<(&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
