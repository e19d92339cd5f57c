//! `why <repo> [server]`: why a repository is, or is not, on the servers.

use crate::{
    Command, ParseError, RepoName, Repository, Usage, Words, ago, clean,
    status::{Problem, REASON, brief},
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
    /// There is none, and is not to be.
    LeftOut {
        /// Host, port and path.
        server: String,
        /// The rule.
        rule: String,
    },
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    let server = words.next();
    words.end()?;
    Ok(Command::Why { repo, server })
}

/// One line a mirror at `now`; `server` is what the person asked for, `notes` what else there is to know.
#[must_use]
pub fn reply(
    repo: &Repository,
    server: Option<&str>,
    mirrors: &[Mirror],
    notes: &[String],
    now: u64,
) -> String {
    let notes = notes.iter().take(5).map(|note| format!("\n{}", clean(note, 200))).collect::<String>();
    if mirrors.is_empty() {
        return match server {
            Some(server) => format!("{repo} has no mirror on {}. Send: servers{notes}", clean(server, 60)),
            None => format!("{repo} has no mirrors.{notes}"),
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
        Mirror::Not(problem) => format!("! {}", brief(problem, now, REASON)),
        Mirror::LeftOut { server, rule } => {
            format!("- {}: no mirror: {}", clean(server, 60), clean(rule, REASON))
        }
    });
    format!("{repo}\n{}{notes}", lines(each, 20))
}
