//! `pause`: write nothing to any server until `resume`.

use crate::{Command, ParseError, Usage, Words};

pub(crate) const USAGE: Usage =
    Usage { name: "pause", args: "", about: "write to no server until you send: resume" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::Pause)
}

/// Says whether something changed.
#[must_use]
pub fn reply(was_paused: bool) -> String {
    let what = if was_paused { "Already paused" } else { "Paused: I write to no server now" };
    format!("{what}. Send: resume")
}
