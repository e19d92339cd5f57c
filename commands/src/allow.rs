//! `allow <npub | repo | server>`: take back what was denied by message.

use crate::{Command, Matter, ParseError, Usage, Words, clean};

pub(crate) const USAGE: Usage = Usage {
    name: "allow",
    args: "<npub | repo | server>",
    about: "mirror them again, after deny; what config.toml denies stays denied",
};

/// What came of it. The texts are rules, as they are written in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The denial is taken back.
    TakenBack,
    /// It is mirrored beside those that the configuration allows.
    Beside,
    /// Nothing was in the way.
    Already,
    /// The configuration denies it.
    ByConfig,
    /// Itself it is allowed; this other rule of the configuration denies it.
    StillByConfig(String),
    /// Itself it is allowed; this other rule, made by message, denies it.
    StillByMessage(String),
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let matter = Matter::parse(&words.required("an npub, a repository or a server")?)?;
    words.end()?;
    Ok(Command::Allow(matter))
}

/// Says what came of it for `what`, the rule as a person reads it.
#[must_use]
pub fn reply(what: &str, outcome: &Allowed) -> String {
    match outcome {
        Allowed::TakenBack => format!("Allowed again: {what}. Mirroring starts now, as far as I watch it."),
        Allowed::Beside => format!("Allowed: {what}, beside those that config.toml allows."),
        Allowed::Already => format!("{what} is not denied. Send: list"),
        Allowed::ByConfig => {
            format!(
                "! {what} stays denied: [policy] deny in config.toml names it, and no message can change that."
            )
        }
        Allowed::StillByConfig(rule) => {
            let rule = clean(rule, 100);
            format!(
                "! {what} stays denied: [policy] deny in config.toml names {rule}, and no message can change that."
            )
        }
        Allowed::StillByMessage(rule) => {
            let rule = clean(rule, 100);
            format!("! {what} stays denied, because {rule} is. Send: allow {rule}")
        }
    }
}
