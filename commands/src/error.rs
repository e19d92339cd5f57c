//! What was not understood, told so that the next message works.

use crate::{Usage, clean};

/// Why a message is no command. Its text is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but white space.
    #[error("That was an empty message. Send: help")]
    Empty,
    /// The first word is no command.
    #[error("I don't know \"{}\".{} Send: help", clean(word, 40), did_you_mean(*nearest))]
    Unknown {
        /// The word, as it came.
        word: String,
        /// The command it most looks like.
        nearest: Option<&'static str>,
    },
    /// A needed word is not there.
    #[error("{} needs {what}. Usage: {usage}", usage.name)]
    Missing {
        /// The command.
        usage: &'static Usage,
        /// What should have come.
        what: &'static str,
    },
    /// A word will not do.
    #[error("\"{}\" is not {expected}.{}", clean(word, 40), usage.map_or(String::new(), |usage| format!(" Usage: {usage}")))]
    Bad {
        /// The command, when the word was part of one.
        usage: Option<&'static Usage>,
        /// The word, as it came.
        word: String,
        /// What would do.
        expected: &'static str,
    },
    /// More words than the command takes.
    #[error("{} takes no \"{}\". Usage: {usage} (a name with spaces goes in \"quotes\")", usage.name, clean(word, 40))]
    Extra {
        /// The command.
        usage: &'static Usage,
        /// The first word too many.
        word: String,
    },
    /// A secret key was sent where a public one belongs. It is not repeated.
    #[error(
        "That is a secret key! I need the public one (npub1…). Whoever reads this can use that key, so consider it lost."
    )]
    Secret,
}

impl ParseError {
    pub(crate) fn unknown(word: &str, known: impl Iterator<Item = &'static str>) -> Self {
        if is_secret(word) {
            return Self::Secret;
        }
        let name = word.trim_start_matches(['/', '!']).to_lowercase();
        // A message may be long; a command word is not.
        let nearest = (name.chars().count() <= 20)
            .then(|| {
                known
                    .map(|command| (strsim::damerau_levenshtein(&name, command), command))
                    .filter(|(distance, command)| *distance <= 2 && *distance < command.len().div_ceil(2))
                    .min_by_key(|(distance, _)| *distance)
            })
            .flatten();
        Self::Unknown { word: word.to_owned(), nearest: nearest.map(|(_, command)| command) }
    }

    pub(crate) fn bad(word: &str, expected: &'static str) -> Self {
        if is_secret(word) {
            Self::Secret
        } else {
            Self::Bad { usage: None, word: word.to_owned(), expected }
        }
    }

    /// The same in a message that began with `command`.
    pub(crate) fn of(self, command: &'static Usage) -> Self {
        match self {
            Self::Bad { word, expected, .. } => Self::Bad { usage: Some(command), word, expected },
            other => other,
        }
    }
}

pub(crate) fn is_secret(word: &str) -> bool {
    let word = word.to_lowercase();
    word.contains("nsec1") || word.contains("ncryptsec1")
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| format!(" Did you mean: {nearest}?"))
}
