//! `list`: who and what is watched.

use nostr::key::PublicKey;

use crate::{
    Command, ParseError, Repository, Usage, Words, clean, short,
    text::{count, lines},
};

pub(crate) const USAGE: Usage =
    Usage { name: "list", args: "", about: "whom and what I watch, and what is left alone or denied" };

/// A watched author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name in the profile, if known.
    pub name: Option<String>,
    /// The key.
    pub key: PublicKey,
    /// How many repositories are known.
    pub repos: usize,
}

/// A repository that is watched by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Single {
    /// Which one.
    pub repo: Repository,
    /// Whether anybody announces it, as far as is known.
    pub announced: bool,
}

/// What is denied, or allowed beside what the configuration allows: each as a person reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruled {
    /// Denied by the configuration.
    pub denied_by_config: Vec<String>,
    /// Denied by message.
    pub denied: Vec<String>,
    /// Allowed by message.
    pub allowed: Vec<String>,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    words.end()?;
    Ok(Command::List)
}

/// Authors first, then single repositories, what of them is `left_alone` (with the reason that the report gives), then
/// the rules.
#[must_use]
pub fn reply(
    authors: &[Author],
    repositories: &[Single],
    left_alone: &[(Repository, String)],
    ruled: &Ruled,
) -> String {
    let mut parts = Vec::new();
    if authors.is_empty() && repositories.is_empty() {
        parts.push("I watch nobody yet. Send: watch <npub>".to_owned());
    }
    if !authors.is_empty() {
        let each = authors.iter().map(|author| {
            let name = author.name.as_deref().map(|name| clean(name, 40)).filter(|name| !name.is_empty());
            let name = name.map_or(String::new(), |name| format!("{name}, "));
            format!("• {name}{}: {}", short(&author.key), count(author.repos, "repository", "repositories"))
        });
        parts.push(format!("Authors ({}):\n{}", authors.len(), lines(each, 30)));
    }
    if !repositories.is_empty() {
        let each = repositories.iter().map(|Single { repo, announced }| {
            format!("• {repo}{}", if *announced { "" } else { ": no announcement found" })
        });
        parts.push(format!("Single repositories ({}):\n{}", repositories.len(), lines(each, 30)));
    }
    if !left_alone.is_empty() {
        let each = left_alone.iter().map(|(repo, reason)| format!("• {repo}: {}", clean(reason, 200)));
        parts.push(format!("Left alone ({}):\n{}", left_alone.len(), lines(each, 30)));
    }
    for (heading, rules) in [
        ("Denied", &ruled.denied),
        ("Denied by config.toml", &ruled.denied_by_config),
        ("Allowed beside config.toml", &ruled.allowed),
    ] {
        if !rules.is_empty() {
            let each = rules.iter().map(|rule| format!("• {}", clean(rule, 120)));
            parts.push(format!("{heading} ({}):\n{}", rules.len(), lines(each, 30)));
        }
    }
    parts.join("\n")
}
