//! `deny <npub | repo | server>`: nothing more is fetched from or sent to them. What is on the servers stays.

use crate::{Command, Matter, ParseError, Usage, Words};

pub(crate) const USAGE: Usage = Usage {
    name: "deny",
    args: "<npub | repo | server>",
    about: "never mirror them, or to them; what is on the servers stays",
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// From now on.
    Added {
        /// Repositories known so far that are not mirrored any more; `None` for a server.
        repos: Option<usize>,
    },
    /// It was denied by message before.
    Already,
    /// The configuration denies it.
    ByConfig,
    /// There are too many rules.
    TooMany,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let matter = Matter::parse(&words.required("an npub, a repository or a server")?)?;
    words.end()?;
    Ok(Command::Deny(matter))
}

/// Says what came of it for `what`, the rule as a person reads it; `written` is the rule as it can be sent back.
#[must_use]
pub fn reply(what: &str, written: &str, outcome: Denied) -> String {
    match outcome {
        Denied::Added { repos: None } => format!(
            "Denied: {what}. I send nothing there any more; what it has stays. To take this back, send: allow {written}"
        ),
        Denied::Added { repos: Some(repos) } => {
            let about = match repos {
                0 | 1 => "Nothing of it is".to_owned(),
                many => format!("None of its {many} repositories is"),
            };
            format!(
                "Denied: {what}. {about} fetched or sent any more; what is on the servers stays. To take this back, \
                 send: allow {written}"
            )
        }
        Denied::Already => format!("{what} is denied already."),
        Denied::ByConfig => format!("{what} is denied already: [policy] deny in config.toml names it."),
        Denied::TooMany => {
            "! I keep no more rules than that. Take some back with allow, or write them into config.toml, [policy] deny."
                .to_owned()
        }
    }
}
