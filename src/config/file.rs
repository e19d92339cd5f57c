//! `config.toml`, key by key.

use std::{borrow::Cow, path::Path};

use toml::{Spanned, de::DeTable};

use super::{
    Config, ConfigError,
    environment::VARIABLES,
    error::nearest,
    value::{Source, Value, in_order, looks_secret, shown},
};
use crate::model::policy::{Exception, Rule, RuleError, Rules};

/// Every section and the keys in it. `[policy]` also holds one table for each exception.
pub const KEYS: &[(&str, &[&str])] = &[
    (
        "bot",
        &[
            "name",
            "data_dir",
            "relays",
            "inbox_relays",
            "index_relays",
            "cycle_interval_secs",
            "alerts",
            "answer_where_asked",
            "nip05",
        ],
    ),
    ("servers", &["known", "discover", "health_interval_secs", "publish_monitoring"]),
    ("mirror", &["placement", "copies_wanted", "archive_days", "hold_hours"]),
    ("policy", &["allow", "deny"]),
    (
        "limits",
        &[
            "transfers",
            "per_server",
            "connect_timeout_secs",
            "stall_timeout_secs",
            "total_timeout_secs",
            "retry_first_secs",
            "retry_max_secs",
            "max_repo_bytes",
            "max_refs",
            "max_repos_per_author",
            "max_events_per_repo",
            "max_response_bytes",
            "upload_bytes_per_sec",
            "events_per_minute",
            "disk_floor_bytes",
        ],
    ),
    ("http", &["listen", "hosts"]),
    ("network", &["allow_private_addresses"]),
];

/// The keys of an exception, `[policy."npub1…"]`.
const EXCEPTION_KEYS: &[&str] = &["servers", "placement", "copies_wanted", "archive_days", "max_repo_bytes"];

const DAY: u64 = 86_400;
const MONTH: u64 = 30 * DAY;
const COPIES: std::ops::RangeInclusive<u64> = 1..=1000;
const ARCHIVE_DAYS: std::ops::RangeInclusive<u64> = 1..=36_500;
const REPO_BYTES: std::ops::RangeInclusive<u64> = 1024..=1 << 50;

/// Reads `text` into `config`; what it does not mention stays as it is.
pub(super) fn read(text: &str, path: &Path, config: &mut Config) -> Result<(), ConfigError> {
    let source = Source { text, path };
    let root = DeTable::parse(text).map_err(|error| {
        let line = source.line(error.span().map_or(0, |span| span.start));
        ConfigError::Syntax { file: path.to_owned(), line, problem: syntax(text, line, error.message()) }
    })?;
    for (section, value) in in_order(root.get_ref()) {
        let name: &str = section.get_ref();
        let Some((_, keys)) = KEYS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown_section(source, section));
        };
        let value = Value { source, key: format!("[{name}]"), value };
        for (key, value) in in_order(value.table()?) {
            let value = Value { source, key: format!("{name}.{}", key.get_ref()), value };
            if name == "policy" && !keys.contains(&key.get_ref().as_ref()) {
                exception(source, key, &value, config)?;
            } else if !keys.contains(&key.get_ref().as_ref()) {
                return Err(unknown_key(source, name, key, keys));
            } else {
                set(config, name, key.get_ref(), &value)?;
            }
        }
    }
    Ok(())
}

fn set(config: &mut Config, section: &str, key: &str, value: &Value<'_>) -> Result<(), ConfigError> {
    let Config { bot, servers, mirror, policy, limits, http, network, .. } = config;
    match (section, key) {
        ("bot", "name") => value.name()?.clone_into(&mut bot.name),
        ("bot", "data_dir") => bot.data_dir = value.folder()?.into(),
        ("bot", "relays") => bot.relays = value.relays()?,
        ("bot", "inbox_relays") => bot.inbox_relays = value.relays()?,
        ("bot", "index_relays") => bot.index_relays = value.relays()?,
        ("bot", "cycle_interval_secs") => bot.cycle_interval = value.seconds(1..=MONTH)?,
        ("bot", "alerts") => bot.alerts = value.flag()?,
        ("bot", "answer_where_asked") => bot.answer_where_asked = value.flag()?,
        ("bot", "nip05") => bot.nip05 = value.nip05()?,
        ("servers", "known") => {
            servers.known = value.servers()?;
            servers.known_is_default = false;
        }
        ("servers", "discover") => servers.discover = value.flag()?,
        ("servers", "publish_monitoring") => servers.publish_monitoring = value.flag()?,
        ("servers", "health_interval_secs") => servers.health_interval = value.seconds(1..=MONTH)?,
        ("mirror", "placement") => mirror.reach = value.reach()?,
        ("mirror", "copies_wanted") => mirror.copies_wanted = Some(value.number(COPIES)?),
        ("mirror", "archive_days") => mirror.archive_days = value.number(ARCHIVE_DAYS)?,
        ("mirror", "hold_hours") => mirror.hold = value.hours(8_760)?,
        ("policy", "allow") => policy.allow = rules(value, &policy.deny, "deny")?,
        ("policy", "deny") => policy.deny = rules(value, &policy.allow, "allow")?,
        ("limits", "transfers") => limits.transfers = value.number(1..=256)?,
        ("limits", "per_server") => limits.per_server = value.number(1..=64)?,
        ("limits", "connect_timeout_secs") => limits.connect_timeout = value.seconds(1..=300)?,
        ("limits", "stall_timeout_secs") => limits.stall_timeout = value.seconds(1..=3600)?,
        ("limits", "total_timeout_secs") => limits.total_timeout = value.seconds(1..=DAY)?,
        ("limits", "retry_first_secs") => limits.retry_first = value.seconds(1..=DAY)?,
        ("limits", "retry_max_secs") => limits.retry_max = value.seconds(1..=DAY)?,
        ("limits", "max_repo_bytes") => limits.max_repo_bytes = value.number(REPO_BYTES)?,
        ("limits", "max_refs") => limits.max_refs = value.number(1..=1_000_000)?,
        ("limits", "max_repos_per_author") => limits.max_repos_per_author = value.number(1..=1_000_000)?,
        ("limits", "max_events_per_repo") => limits.max_events_per_repo = value.number(1..=10_000_000)?,
        ("limits", "max_response_bytes") => limits.max_response_bytes = value.number(1024..=1 << 40)?,
        ("limits", "upload_bytes_per_sec") => limits.upload_bytes_per_sec = upload(value)?,
        ("limits", "events_per_minute") => limits.events_per_minute = value.number(1..=100_000)?,
        ("limits", "disk_floor_bytes") => limits.disk_floor_bytes = value.number(0..=1 << 60)?,
        ("http", "listen") => http.listen = value.listen()?,
        ("http", "hosts") => http.hosts = value.hosts()?,
        ("network", "allow_private_addresses") => network.allow_private_addresses = value.flag()?,
        _ => return Err(value.wrong("no such key")),
    }
    Ok(())
}

/// Less than a kibibyte a second would look like silence to a server.
fn upload(value: &Value<'_>) -> Result<u32, ConfigError> {
    match value.number::<u32>(0..=u64::from(u32::MAX))? {
        few @ 1..1024 => Err(value.wrong(format!("expected 0 (no cap) or at least 1024, found {few}"))),
        cap => Ok(cap),
    }
}

/// `allow` and `deny`: authors, repositories and servers in one list, told apart by their look. What is in `others`,
/// the list called `name`, cannot be in this one, too.
fn rules(value: &Value<'_>, others: &Rules, name: &str) -> Result<Rules, ConfigError> {
    let mut rules = Rules::default();
    for value in value.list("npubs, coordinates and servers")? {
        let text = value.text()?;
        let rule: Rule = text.parse().map_err(|RuleError| {
            value.wrong(format!(
                "expected an npub, a coordinate (30617:<pubkey in hex>:<d>, or naddr1…) or a server (wss://host), \
                 found {}",
                shown(text)
            ))
        })?;
        if others.contains(&rule) {
            let found = shown(text);
            return Err(value.wrong(format!("{found} is in policy.{name}, too; take it out of one of them")));
        }
        rules.insert(rule);
    }
    Ok(rules)
}

fn exception(
    source: Source<'_>,
    key: &Spanned<Cow<'_, str>>,
    value: &Value<'_>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    let Some(named) = key.get_ref().parse().ok().filter(|rule| !matches!(rule, Rule::Server(_))) else {
        let hint = match nearest(key.get_ref(), ["allow", "deny"]) {
            Some(known) => format!("unknown key; did you mean `{known}`?"),
            None => "unknown key; expected allow, deny, or a table for an npub or coordinate such as \
                     [policy.\"npub1…\"] or [policy.\"30617:…\"]"
                .to_owned(),
        };
        return Err(source.wrong(key.span().start, &value.key, hint));
    };
    let mut exception = Exception::default();
    for (name, entry) in in_order(value.table()?) {
        let entry =
            Value { source, key: format!("policy.\"{}\".{}", key.get_ref(), name.get_ref()), value: entry };
        match name.get_ref().as_ref() {
            "servers" => exception.servers = Some(entry.servers()?.into_iter().collect()),
            "placement" => exception.reach = Some(entry.reach()?),
            "copies_wanted" => exception.copies_wanted = Some(entry.number(COPIES)?),
            "archive_days" => exception.archive_days = Some(entry.number(ARCHIVE_DAYS)?),
            "max_repo_bytes" => exception.max_repo_bytes = Some(entry.number(REPO_BYTES)?),
            _ => {
                return Err(source.wrong(
                    name.span().start,
                    &entry.key,
                    unknown(name.get_ref(), EXCEPTION_KEYS),
                ));
            }
        }
    }
    // The same author may be written as npub and in hex; two tables for one would silently lose one.
    let taken = match named {
        Rule::Author(author) => config.policy.authors.insert(author, exception).is_some(),
        Rule::Repository(repository) => config.policy.repositories.insert(repository, exception).is_some(),
        Rule::Server(_) => false,
    };
    if taken {
        return Err(source.wrong(key.span().start, &value.key, "already has a table above; make it one"));
    }
    Ok(())
}

fn unknown(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(known) => format!("unknown key; did you mean `{known}`?"),
        None => format!("unknown key; expected one of {}", known.join(", ")),
    }
}

fn unknown_key(source: Source<'_>, section: &str, key: &Spanned<Cow<'_, str>>, keys: &[&str]) -> ConfigError {
    let word: &str = key.get_ref();
    let elsewhere = KEYS.iter().find(|(_, keys)| keys.contains(&word));
    let hint = match (elsewhere, variable(word)) {
        (Some((other, _)), _) => format!("unknown key; `{word}` belongs in [{other}]"),
        (None, Some(hint)) => hint,
        (None, None) => unknown(word, keys),
    };
    source.wrong(key.span().start, &format!("{section}.{word}"), hint)
}

/// Keys and people are set elsewhere, and are looked for here by name.
fn variable(word: &str) -> Option<String> {
    let name = word.to_ascii_uppercase();
    let known =
        VARIABLES.iter().find(|known| **known == name || known.strip_prefix("MIRROR_") == Some(&name))?;
    Some(format!("not a key of this file; set {known} in .env beside it"))
}

fn unknown_section(source: Source<'_>, section: &Spanned<Cow<'_, str>>) -> ConfigError {
    let word: &str = section.get_ref();
    let sections: Vec<&str> = KEYS.iter().map(|(section, _)| *section).collect();
    let hint = if let Some((owner, _)) = KEYS.iter().find(|(_, keys)| keys.contains(&word)) {
        format!("unknown key; `{word}` belongs in [{owner}]")
    } else if let Some(hint) = variable(word) {
        hint
    } else {
        match nearest(word, sections.iter().copied()) {
            Some(known) => format!("unknown section; did you mean [{known}]?"),
            None => format!("unknown section; expected one of [{}]", sections.join("], [")),
        }
    };
    source.wrong(section.span().start, word, hint)
}

/// The parser's words for a syntax error, with the key of the line where there is one.
fn syntax(text: &str, line: usize, message: &str) -> String {
    let met = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key = met.split_once('=').map(|(key, _)| key.trim()).filter(|key| {
        !key.is_empty()
            && !looks_secret(key)
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"'))
    });
    let section =
        Some(met.trim()).filter(|met| met.starts_with('[') && met.ends_with(']') && !looks_secret(met));
    match key.or(section) {
        Some(key) => format!("{key}: not TOML: {message}"),
        None => format!("not TOML: {message}"),
    }
}
