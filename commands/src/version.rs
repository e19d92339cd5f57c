//! `version`: which software this is.

use crate::{Command, ParseError, Usage, Words, ago};

pub(crate) const USAGE: Usage = Usage { name: "version", args: "", about: "which software I am" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::Version)
}

/// `version` is the daemon's; it runs since `started_at` (Unix seconds).
#[must_use]
pub fn reply(version: &str, started_at: u64, now: u64) -> String {
    format!("grasp-mirror {version}, started {}.", ago(now, started_at))
}
