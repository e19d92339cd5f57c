//! `forget <repo> [undo]`: mirror it no more, whoever asks. The one command that its own maintainers may send, too.

use crate::{Command, ParseError, RepoName, Repository, Usage, Words, clean, short};
use nostr::key::PublicKey;

pub(crate) const USAGE: Usage = Usage {
    name: "forget",
    args: "<repo> [undo]",
    about: "mirror it no more, whoever asks, and delete my announcements of it (its maintainers may say so, too)",
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// From now on.
    Now {
        /// Whether the bot is paused: what is to be deleted is deleted later.
        paused: bool,
    },
    /// It was before.
    Already,
    /// It is mirrored again.
    Undone,
    /// It was not.
    Never,
    /// A maintainer said so, and only a maintainer can take it back.
    Theirs(PublicKey),
    /// A maintainer's mute list names the bot (NIP-51), and only that list can take it back.
    Muted(PublicKey),
    /// There are too many.
    TooMany,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    let undo = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("undo") => true,
        Some(word) => return Err(ParseError::bad(&word, "undo, and nothing else may follow the repository")),
    };
    words.end()?;
    Ok(Command::Forget { repo, undo })
}

/// Says what came of it.
#[must_use]
pub fn reply(repo: &Repository, outcome: Forgotten) -> String {
    match outcome {
        Forgotten::Now { paused } => {
            let when = if paused { ", as soon as I am told to resume" } else { "" };
            format!(
                "Forgotten: {repo}. I mirror it no more, whoever asks me to, and delete my own announcements of it from \
                 the servers{when}. To take this back, send: forget {} undo",
                repo.full()
            )
        }
        Forgotten::Already => {
            format!("{repo} is forgotten already. To take that back, send: forget {} undo", repo.full())
        }
        Forgotten::Undone => format!("Taken back: {repo} is mirrored again, as far as it is watched."),
        Forgotten::Never => format!("{repo} is not forgotten."),
        Forgotten::Theirs(who) => {
            format!(
                "! {repo} stays forgotten: {} wants it so, who maintains it, and only its maintainers can take that back.",
                short(&who)
            )
        }
        Forgotten::Muted(who) => {
            format!(
                "! {repo} stays forgotten: {}, who maintains it, has me on the mute list, and only that list can take it back.",
                short(&who)
            )
        }
        Forgotten::TooMany => {
            "! I can remember no more of these. Put me on your mute list: that counts for all you maintain."
                .to_owned()
        }
    }
}

/// What is said of a repository that is left alone, for the `reason` the report gives.
#[must_use]
pub fn left_alone(repo: &Repository, reason: &str) -> String {
    format!("I leave {repo} alone: {}", clean(reason, 200))
}

/// What a maintainer is told who names nothing of their own.
#[must_use]
pub fn not_yours(name: &RepoName) -> String {
    format!("I mirror nothing called {name} that this key maintains.")
}
