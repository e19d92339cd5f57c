//! `approve <repo>`: follow the state that is held.

use crate::{Command, ParseError, RepoName, Repository, Usage, Words};

pub(crate) const USAGE: Usage =
    Usage { name: "approve", args: "<repo>", about: "follow a state that removes most of it, now" };

/// What a decision about a held state came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is written down.
    Written {
        /// How many branches and tags the state removes.
        removed: usize,
        /// How many there are.
        of: usize,
    },
    /// Nothing is held.
    Nothing,
    /// The state is being followed already.
    TooLate,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    words.end()?;
    Ok(Command::Approve(repo))
}

/// Says what came of it; `next` is what happens then, as a sentence.
#[must_use]
pub fn reply(repo: &Repository, decided: Decided, next: &str) -> String {
    match decided {
        Decided::Written { removed, of } => {
            format!("Approved: {repo} may lose {removed} of {of} branches and tags. {next}")
        }
        Decided::Nothing | Decided::TooLate => format!("Nothing of {repo} is held. Send: status"),
    }
}
