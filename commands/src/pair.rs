//! `pair`: let a remote signer of a maintainer's (NIP-46) sign announcements.

use nostr::key::PublicKey;

use crate::{Command, ParseError, Usage, Words, clean, short, span};

pub(crate) const USAGE: Usage =
    Usage { name: "pair", args: "", about: "let a maintainer's remote signer list more servers" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::Pair)
}

/// The address to show to the signer, which may be used for `seconds`.
#[must_use]
pub fn reply(address: &str, seconds: u64) -> String {
    format!(
        "Give this to the maintainer's signer within {}. It lets me ask for two things: to add servers to announcements, \
         and to say the current state again.\n\n{address}\n\nI'll tell you when it has answered.",
        span(seconds)
    )
}

/// It answered.
#[must_use]
pub fn paired(user: &PublicKey) -> String {
    format!("Paired with the signer of {}. I ask it from the next cycle on.", short(user))
}

/// It did not.
#[must_use]
pub fn failed(reason: &str) -> String {
    format!("Not paired: {}. Send again: pair", clean(reason, 200))
}
