//! `help [command]`: what the bot understands.

use crate::{Command, ParseError, Usage, Words, find, usages};

pub(crate) const USAGE: Usage = Usage { name: "help", args: "[command]", about: "what I understand" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let topic = words.next().map(|word| find(&word)).transpose()?;
    words.end()?;
    Ok(Command::Help(topic.map(|(usage, _)| usage)))
}

/// All commands, or the one asked about.
#[must_use]
pub fn reply(topic: Option<&Usage>) -> String {
    match topic {
        Some(usage) => format!("{usage}\n{}", usage.about),
        None => usages().map(|usage| format!("{usage}: {}", usage.about)).collect::<Vec<_>>().join("\n"),
    }
}
