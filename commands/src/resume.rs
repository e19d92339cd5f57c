//! `resume`: carry on after `pause`.

use crate::{Command, ParseError, Usage, Words};

pub(crate) const USAGE: Usage = Usage { name: "resume", args: "", about: "carry on after pause" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::Resume)
}

/// Says whether something changed.
#[must_use]
pub fn reply(was_paused: bool) -> String {
    if was_paused { "Carrying on. Mirroring starts now." } else { "I was not paused." }.to_owned()
}
