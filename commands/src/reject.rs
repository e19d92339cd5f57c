//! `reject <repo>`: do not follow the state that is held.

use crate::{Command, ParseError, RepoName, Repository, Usage, Words, approve::Decided};

pub(crate) const USAGE: Usage =
    Usage { name: "reject", args: "<repo>", about: "do not follow that state; wait for a newer one" };

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    words.end()?;
    Ok(Command::Reject(repo))
}

/// Says what came of it.
#[must_use]
pub fn reply(repo: &Repository, decided: Decided) -> String {
    match decided {
        Decided::Written { removed, of } => format!(
            "Rejected: {repo} keeps the {removed} of {of} branches and tags until there is a newer state. To take \
             this back, send: approve"
        ),
        Decided::Nothing => format!("Nothing of {repo} is held. Send: status"),
        Decided::TooLate => {
            format!("Too late: {repo} is following that state. What it lost is kept here; send: archive")
        }
    }
}
