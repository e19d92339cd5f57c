//! `resync [repo | npub]`: read every server again and send what is missing.

use crate::{
    Command, ParseError, Scope, Usage, Words,
    text::{count, sentence, span},
};

pub(crate) const USAGE: Usage = Usage {
    name: "resync",
    args: "[repo | npub]",
    about: "read every server again and send what is missing",
};

/// How far it is; the person hears of the start and of the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resync {
    /// Something is being mirrored; it begins right after that.
    Queued,
    /// It has begun.
    Started {
        /// How many repositories it is about.
        repos: usize,
    },
    /// It is over.
    Done {
        /// How many repositories it was about.
        repos: usize,
        /// How many mirrors those have.
        mirrors: usize,
        /// How many of them are in sync now.
        in_sync: usize,
        /// How many had to be sent something.
        repaired: usize,
        /// How long it took, in seconds.
        elapsed_secs: u64,
    },
    /// Nothing that is watched fits.
    Nothing,
    /// Writing is paused.
    Paused,
    /// It broke off.
    Failed {
        /// Why.
        reason: String,
    },
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let scope = words.next().map_or(Ok(Scope::All), |word| Scope::parse(&word))?;
    words.end()?;
    Ok(Command::Resync(scope))
}

/// Says how far it is.
#[must_use]
pub fn reply(scope: &Scope, outcome: Resync) -> String {
    match outcome {
        Resync::Queued => {
            format!(
                "Resync of {scope} begins as soon as the check that is running ends. I'll tell you when it is done."
            )
        }
        Resync::Started { repos } => {
            let repos = count(repos, "repository", "repositories");
            format!("Resync of {scope} started: {repos}. I'll tell you when it is done.")
        }
        Resync::Done { repos, mirrors, in_sync, repaired, elapsed_secs } => {
            let sign = if in_sync == mirrors { "✓" } else { "!" };
            let mirrors_of = count(mirrors, "mirror", "mirrors");
            let repos = count(repos, "repository", "repositories");
            let repaired = match repaired {
                0 if in_sync == mirrors => "nothing was missing".to_owned(),
                0 => "nothing repaired".to_owned(),
                repaired => format!("{repaired} repaired"),
            };
            let elapsed = span(elapsed_secs);
            format!(
                "{sign} Resync of {scope} done in {elapsed}: {in_sync} of {mirrors_of} of {repos} in sync, {repaired}."
            )
        }
        Resync::Nothing => format!("Nothing I watch fits {scope}. Send: list"),
        Resync::Paused => "I am paused, so a resync would change nothing. Send: resume".to_owned(),
        Resync::Failed { reason } => {
            format!("! Resync of {scope} failed: {}. Send it again, or: status", sentence(&reason))
        }
    }
}
