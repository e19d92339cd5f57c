//! `why <repo> [server]`: why a repository is, or is not, on the servers.

use crate::{
    Command, ParseError, RepoName, Repository, Usage, Words, ago, clean,
    status::{Problem, brief},
    text::lines,
};

pub(crate) const USAGE: Usage =
    Usage { name: "why", args: "<repo> [server]", about: "why it is, or is not, on the servers" };

/// One mirror, and the reason for its state. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// As wanted when last read back.
    InSync {
        /// Host, port and path.
        server: String,
        /// How it is placed there, as in the design: `listed`, `namespace`, …
        placement: String,
        /// When it was read back.
        read_at: u64,
    },
    /// Not as wanted.
    Not(Problem),
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    let server = words.next();
    words.end()?;
    Ok(Command::Why { repo, server })
}

/// One line a mirror at `now`; `server` is what the person asked for.
#[must_use]
pub fn reply(repo: &Repository, server: Option<&str>, mirrors: &[Mirror], now: u64) -> String {
    if mirrors.is_empty() {
        return match server {
            Some(server) => format!("{repo} is not meant for {}. Send: servers", clean(server, 60)),
            None => format!("{repo} is not meant for any server."),
        };
    }
    let each = mirrors.iter().map(|mirror| match mirror {
        Mirror::InSync { server, placement, read_at } => {
            format!(
                "✓ {}: in sync ({}), read back {}",
                clean(server, 60),
                clean(placement, 20),
                ago(now, *read_at)
            )
        }
        Mirror::Not(problem) => format!("! {}", brief(problem, now)),
    });
    format!("{repo}\n{}", lines(each, 20))
}
