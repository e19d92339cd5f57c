//! What a person may say to the bot by direct message, and what it answers. No I/O.
//!
//! ```text
//! message  = [ "/" | "!" ] command { word }       in any case, surrounded by any white space
//! command  = help | watch | unwatch | list | status | resync | servers | why | allow | deny | approve
//!          | reject | archive | forget | pair | pause | resume | version
//! word     = anything without white space, or "anything in quotes"
//! person   = npub1… | nprofile1… | 64 hex digits | name@domain (NIP-05)        each also after nostr:
//! repo     = <d> | person "/" <d> | naddr1… | 30617:<hex>:<d> | link
//! link     = nostr://<person>/[relay/]<d> | https://<server>/<npub>/<d>.git | https://<site>/<person>/[relay/]<d>
//! server   = wss://host[:port][/path] | host
//! ```
//!
//! One command a file: its usage, its [`parse`], its `reply`. Help is made from the usages. A `reply` is a
//! pure function of what happened, in plain text for a phone; text that came from outside goes through
//! [`clean`] first. What needs the network (NIP-05 names) or the bot's memory (repositories by `d`) is
//! returned as a name for the caller to resolve.

pub mod allow;
pub mod approve;
pub mod archive;
pub mod deny;
pub mod failure;
pub mod forget;
pub mod help;
pub mod list;
pub mod pair;
pub mod pause;
pub mod reject;
pub mod resume;
pub mod resync;
pub mod servers;
pub mod status;
pub mod unwatch;
pub mod version;
pub mod watch;
pub mod why;

mod error;
mod link;
mod text;
mod who;
mod words;

use std::fmt;

use nostr::key::PublicKey;

pub use self::{
    error::ParseError,
    text::{ago, clean, count, is_invisible, moment, short, span, until, with_causes},
    who::{Found, Matter, Nip05, RepoName, Repository, Scope, Target, hints},
    words::Words,
};

/// How a command is used; help is made from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The word it begins with.
    pub name: &'static str,
    /// What follows, empty for nothing.
    pub args: &'static str,
    /// What it does, in half a line.
    pub about: &'static str,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.args.is_empty() { Ok(()) } else { write!(f, " {}", self.args) }
    }
}

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// All commands, or one.
    Help(Option<&'static Usage>),
    /// Mirror what this author announces, or this repository.
    Watch(Target),
    /// No longer.
    Unwatch(Target),
    /// Who and what is watched.
    List,
    /// How the mirrors are: in all, or those of one repository.
    Status(Option<RepoName>),
    /// Read every server again and send what is missing.
    Resync(Scope),
    /// The GRASP servers and how they are.
    Servers,
    /// Why a repository is, or is not, on the servers (or on one).
    Why {
        /// Which repository.
        repo: RepoName,
        /// The server, as the person names it.
        server: Option<String>,
    },
    /// Mirror it again.
    Allow(Matter),
    /// Do not mirror it, or to it.
    Deny(Matter),
    /// Follow the state that is held.
    Approve(RepoName),
    /// Do not.
    Reject(RepoName),
    /// What is kept of deleted and rewritten branches and tags.
    Archive(RepoName),
    /// Mirror it no more, whoever asks.
    Forget {
        /// Which repository.
        repo: RepoName,
        /// Whether that is taken back.
        undo: bool,
    },
    /// Let a remote signer add servers to announcements.
    Pair,
    /// Write nothing to any server until `resume`.
    Pause,
    /// Carry on.
    Resume,
    /// Which software this is.
    Version,
}

impl Command {
    /// The name in it that somebody has to look up before it can be carried out.
    #[must_use]
    pub fn nip05(&self) -> Option<&Nip05> {
        match self {
            Self::Watch(Target::Nip05(name) | Target::Theirs { author: name, .. })
            | Self::Unwatch(Target::Nip05(name) | Target::Theirs { author: name, .. })
            | Self::Resync(Scope::Nip05(name) | Scope::Repository(RepoName::Nip05 { author: name, .. }))
            | Self::Status(Some(RepoName::Nip05 { author: name, .. }))
            | Self::Why { repo: RepoName::Nip05 { author: name, .. }, .. }
            | Self::Allow(Matter::Nip05(name) | Matter::Repository(RepoName::Nip05 { author: name, .. }))
            | Self::Deny(Matter::Nip05(name) | Matter::Repository(RepoName::Nip05 { author: name, .. }))
            | Self::Approve(RepoName::Nip05 { author: name, .. })
            | Self::Reject(RepoName::Nip05 { author: name, .. })
            | Self::Archive(RepoName::Nip05 { author: name, .. })
            | Self::Forget { repo: RepoName::Nip05 { author: name, .. }, .. } => Some(name),
            _ => None,
        }
    }

    /// The same command with `author` in place of the name that [`Self::nip05`] gave.
    #[must_use]
    pub fn resolved(self, author: PublicKey) -> Self {
        match self {
            Self::Watch(target) => Self::Watch(target.resolved(author)),
            Self::Unwatch(target) => Self::Unwatch(target.resolved(author)),
            Self::Status(repo) => Self::Status(repo.map(|repo| repo.resolved(author))),
            Self::Resync(scope) => Self::Resync(scope.resolved(author)),
            Self::Why { repo, server } => Self::Why { repo: repo.resolved(author), server },
            Self::Allow(matter) => Self::Allow(matter.resolved(author)),
            Self::Deny(matter) => Self::Deny(matter.resolved(author)),
            Self::Approve(repo) => Self::Approve(repo.resolved(author)),
            Self::Reject(repo) => Self::Reject(repo.resolved(author)),
            Self::Archive(repo) => Self::Archive(repo.resolved(author)),
            Self::Forget { repo, undo } => Self::Forget { repo: repo.resolved(author), undo },
            other => other,
        }
    }

    /// The word it begins with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let usage = match self {
            Self::Help(_) => help::USAGE,
            Self::Watch(_) => watch::USAGE,
            Self::Unwatch(_) => unwatch::USAGE,
            Self::List => list::USAGE,
            Self::Status(_) => status::USAGE,
            Self::Resync(_) => resync::USAGE,
            Self::Servers => servers::USAGE,
            Self::Why { .. } => why::USAGE,
            Self::Allow(_) => allow::USAGE,
            Self::Deny(_) => deny::USAGE,
            Self::Approve(_) => approve::USAGE,
            Self::Reject(_) => reject::USAGE,
            Self::Archive(_) => archive::USAGE,
            Self::Forget { .. } => forget::USAGE,
            Self::Pair => pair::USAGE,
            Self::Pause => pause::USAGE,
            Self::Resume => resume::USAGE,
            Self::Version => version::USAGE,
        };
        usage.name
    }
}

/// The command as a person would say it, for showing.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Help(Some(usage)) => write!(f, " {}", usage.name),
            Self::Watch(target) | Self::Unwatch(target) => write!(f, " {target}"),
            Self::Status(Some(repo))
            | Self::Why { repo, server: None }
            | Self::Approve(repo)
            | Self::Reject(repo)
            | Self::Archive(repo)
            | Self::Forget { repo, undo: false } => write!(f, " {repo}"),
            Self::Forget { repo, undo: true } => write!(f, " {repo} undo"),
            Self::Why { repo, server: Some(server) } => write!(f, " {repo} on {}", clean(server, 60)),
            Self::Resync(scope) => write!(f, " of {scope}"),
            Self::Allow(matter) | Self::Deny(matter) => write!(f, " {matter}"),
            _ => Ok(()),
        }
    }
}

type Parser = fn(&mut Words) -> Result<Command, ParseError>;

/// Every command, in the order of help.
const COMMANDS: [(&Usage, Parser); 18] = [
    (&help::USAGE, help::parse),
    (&watch::USAGE, watch::parse),
    (&unwatch::USAGE, unwatch::parse),
    (&list::USAGE, list::parse),
    (&status::USAGE, status::parse),
    (&resync::USAGE, resync::parse),
    (&servers::USAGE, servers::parse),
    (&why::USAGE, why::parse),
    (&allow::USAGE, allow::parse),
    (&deny::USAGE, deny::parse),
    (&approve::USAGE, approve::parse),
    (&reject::USAGE, reject::parse),
    (&archive::USAGE, archive::parse),
    (&forget::USAGE, forget::parse),
    (&pair::USAGE, pair::parse),
    (&pause::USAGE, pause::parse),
    (&resume::USAGE, resume::parse),
    (&version::USAGE, version::parse),
];

/// The usages of all commands.
pub fn usages() -> impl Iterator<Item = &'static Usage> {
    COMMANDS.into_iter().map(|(usage, _)| usage)
}

/// Reads one message.
///
/// # Errors
///
/// The error's text is the answer to send: it says which word was not understood and what would do.
pub fn parse(message: &str) -> Result<Command, ParseError> {
    let mut words = Words::new(message);
    let word = words.next().ok_or(ParseError::Empty)?;
    let (usage, parser) = find(&word)?;
    words.usage = Some(usage);
    parser(&mut words).map_err(|error| error.of(usage))
}

fn find(word: &str) -> Result<(&'static Usage, Parser), ParseError> {
    let name = word.trim_start_matches(['/', '!']).to_lowercase();
    COMMANDS
        .into_iter()
        .find(|(usage, _)| usage.name == name)
        .ok_or_else(|| ParseError::unknown(word, usages().map(|usage| usage.name)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
