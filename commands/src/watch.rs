//! `watch <npub>`: mirror every repository this author announces, or one repository.

use crate::{Command, ParseError, Target, Usage, Words, clean, text::count};

pub(crate) const USAGE: Usage = Usage {
    name: "watch",
    args: "<npub | nprofile | naddr | nostr: URI>",
    about: "mirror every repository this author announces, or this one",
};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Now watched.
    Added {
        /// Repositories known so far.
        repos: usize,
    },
    /// Now watched, and nobody announces it, as far as is known.
    NotFound,
    /// Now watched, and nothing of it is mirrored all the same: a rule is in the way.
    Denied {
        /// The rule.
        rule: String,
    },
    /// It was watched before.
    Already,
    /// The bot itself, or one of its copies.
    Me,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let target = Target::parse(&words.required("an npub, nprofile, naddr, name@domain or link")?)?;
    words.end()?;
    Ok(Command::Watch(target))
}

/// Says what came of it.
#[must_use]
pub fn reply(target: &Target, outcome: &Watched) -> String {
    match (outcome, target) {
        (Watched::NotFound, _) => format!(
            "! Watching {target}, but I have found no announcement of it yet. Is the name right? I keep looking."
        ),
        (Watched::Added { .. }, Target::Repository(_)) => format!("Watching {target}. Mirroring starts now."),
        (Watched::Added { repos: 0 }, _) => {
            format!("Watching {target}. No repositories found yet; I keep looking.")
        }
        (Watched::Added { repos }, _) => {
            let found = count(*repos, "repository", "repositories");
            format!("Watching {target}: {found} found so far. Mirroring starts now.")
        }
        (Watched::Denied { rule }, _) => {
            format!("! Watching {target}, but nothing of it is mirrored: {}.", clean(rule, 300))
        }
        (Watched::Already, _) => format!("Already watching {target}."),
        (Watched::Me, _) => {
            "That is me: I keep copies of what others announce, and there is nothing of mine to mirror."
                .to_owned()
        }
    }
}
