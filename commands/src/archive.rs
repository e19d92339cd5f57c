//! `archive <repo>`: what is kept of rewound and deleted branches and tags.

use crate::{
    Command, ParseError, RepoName, Repository, Usage, Words, clean,
    text::{lines, moment},
};

pub(crate) const USAGE: Usage = Usage {
    name: "archive",
    args: "<repo>",
    about: "what is kept of deleted and rewritten branches and tags",
};

/// An old tip. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When it was replaced or deleted here.
    pub at: u64,
    /// The ref, `refs/heads/…` or `refs/tags/…`.
    pub name: String,
    /// What it pointed at, in hex.
    pub tip: String,
    /// Until when it is kept.
    pub until: u64,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = RepoName::parse(&words.required("a repository")?)?;
    words.end()?;
    Ok(Command::Archive(repo))
}

/// One line an old tip, in the order given; no more than `max`.
#[must_use]
pub fn reply(repo: &Repository, kept: &[Kept], max: usize) -> String {
    if kept.is_empty() {
        return format!("{repo}: nothing was deleted or rewritten lately, so nothing is kept.");
    }
    let each = kept.iter().map(|kept| {
        let name = ["refs/heads/", "refs/tags/"].iter().find_map(|start| kept.name.strip_prefix(start));
        let kind = if kept.name.starts_with("refs/tags/") { "tag " } else { "" };
        let tip: String = kept.tip.chars().take(12).collect();
        let (at, until) = (moment(kept.at), moment(kept.until));
        format!("{at} {kind}{}: was {tip}, kept until {until}", clean(name.unwrap_or(&kept.name), 60))
    });
    format!("{repo}\n{}", lines(each, max))
}
