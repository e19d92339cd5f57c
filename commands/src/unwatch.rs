//! `unwatch <npub>`: mirror nothing more of this author. What is on the servers stays.

use crate::{Command, ParseError, Target, Usage, Words};

pub(crate) const USAGE: Usage = Usage {
    name: "unwatch",
    args: "<npub | nprofile | naddr | nostr: URI>",
    about: "stop mirroring them; what is on the servers stays",
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// No longer watched.
    Removed,
    /// It was not watched.
    Never,
    /// A repository of somebody who is watched: it is mirrored all the same.
    WithAuthor,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let target = Target::parse(&words.required("an npub, nprofile, naddr, name@domain or link")?)?;
    words.end()?;
    Ok(Command::Unwatch(target))
}

/// Says what came of it.
#[must_use]
pub fn reply(target: &Target, outcome: Unwatched) -> String {
    match outcome {
        Unwatched::Removed => format!("No longer watching {target}. What is on the servers stays."),
        Unwatched::Never => format!("I was not watching {target}. Send: list"),
        Unwatched::WithAuthor => {
            format!(
                "{target} is still mirrored, because I watch its author. Send: unwatch <the author's npub>"
            )
        }
    }
}
