//! Persons and repositories, as people name them.

use std::fmt;

use nostr::{
    event::Kind,
    key::PublicKey,
    nips::nip19::{FromBech32, Nip19},
    types::RelayUrl,
};

use crate::{ParseError, Words, clean, error::is_secret, link::Link, short};

/// A repository: who announced it, under which `d`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// The announcement's author.
    pub author: PublicKey,
    /// The announcement's `d`, raw: [`clean`] it before showing it.
    pub identifier: String,
}

/// A NIP-05 name, `name@domain`, in lower case. The caller asks the domain whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nip05 {
    /// Before the `@`.
    pub name: String,
    /// After it.
    pub domain: String,
}

/// What can be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything this author announces.
    Author(PublicKey),
    /// The same, by name.
    Nip05(Nip05),
    /// One repository.
    Repository(Repository),
    /// The same, by its author's name.
    Theirs {
        /// Whose it is.
        author: Nip05,
        /// Its `d`.
        identifier: String,
    },
}

/// A repository the bot knows, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoName {
    /// By `d` alone: may fit several.
    Identifier(String),
    /// Exactly one.
    Full(Repository),
    /// By its author's name.
    Nip05 {
        /// Whose it is.
        author: Nip05,
        /// Its `d`.
        identifier: String,
    },
}

/// What to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// One author's repositories.
    Author(PublicKey),
    /// The same, by name.
    Nip05(Nip05),
    /// One repository.
    Repository(RepoName),
}

/// What can be allowed and denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matter {
    /// A person, with all repositories.
    Author(PublicKey),
    /// The same, by name.
    Nip05(Nip05),
    /// One repository, named in full.
    Repository(RepoName),
    /// The address of a server, as it came.
    Server(String),
    /// The host of a server, or the `d` of a repository: whoever knows both tells them apart.
    Word(String),
}

/// The repositories that a [`RepoName`] fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This one.
    One(Repository),
    /// Several: ask which.
    Many(Vec<Repository>),
    /// None; perhaps this one was meant.
    None(Option<Repository>),
}

/// Anything that one word can name exactly.
enum Named {
    Author(PublicKey),
    Nip05(Nip05),
    /// Never by its `d` alone.
    Repository(RepoName),
}

const PERSON: &str = "an npub, nprofile, hex key or name@domain";

/// The longest name, in bytes, that is compared with others to find out what was meant: that takes as long as the product
/// of both, and anybody may have chosen them.
const COMPARED_MAX: usize = 200;

impl Named {
    fn parse(word: &str) -> Option<Self> {
        if let Some(Link { person, identifier, .. }) = Link::parse(word, is_person) {
            let person = Self::person(&person)?;
            return Some(match identifier {
                Some(identifier) => person.repository(&identifier),
                None => person,
            });
        }
        let word = strip_prefix_ignoring_case(word, "nostr:").unwrap_or(word);
        if let Some(rest) = word.strip_prefix("30617:") {
            let (author, identifier) = rest.split_once(':')?;
            return Some(Self::Author(public_key(author)?).repository(identifier));
        }
        match word.split_once('/') {
            Some((person, identifier)) if !identifier.is_empty() => match Self::person(person)? {
                // That is one already.
                Self::Repository(_) => None,
                person => Some(person.repository(identifier)),
            },
            _ => Self::person(word),
        }
    }

    fn person(word: &str) -> Option<Self> {
        if let Some(key) = public_key(word) {
            return Some(Self::Author(key));
        }
        if let Some(name) = Nip05::parse(word) {
            return Some(Self::Nip05(name));
        }
        // Phones like to write the first letter large.
        match Nip19::from_bech32(&word.to_lowercase()).ok()? {
            Nip19::Pubkey(key) => valid(key).map(Self::Author),
            Nip19::Profile(profile) => valid(profile.public_key).map(Self::Author),
            Nip19::Coordinate(naddr) if naddr.coordinate.kind == Kind::GitRepoAnnouncement => {
                let author = valid(naddr.coordinate.public_key)?;
                Some(Self::Author(author).repository(&naddr.coordinate.identifier))
            }
            _ => None,
        }
    }

    /// What is called `identifier` of this person's; what is a repository stays it.
    fn repository(self, identifier: &str) -> Self {
        let identifier = identifier.to_owned();
        Self::Repository(match self {
            Self::Author(author) => RepoName::Full(Repository { author, identifier }),
            Self::Nip05(author) => RepoName::Nip05 { author, identifier },
            Self::Repository(name) => name,
        })
    }
}

fn is_person(word: &str) -> bool {
    Named::person(word).is_some()
}

/// Where the nprofile, the naddr or the link in `message` says that more is found.
#[must_use]
pub fn hints(message: &str) -> Vec<RelayUrl> {
    let within = |word: &str| match Nip19::from_bech32(&word.to_lowercase()).ok()? {
        Nip19::Profile(profile) => Some(profile.relays),
        Nip19::Coordinate(naddr) => Some(naddr.relays),
        _ => None,
    };
    let relays = |word: String| match Link::parse(&word, is_person) {
        Some(link) => Some([link.relays, within(&link.person).unwrap_or_default()].concat()),
        None => within(strip_prefix_ignoring_case(&word, "nostr:").unwrap_or(&word)),
    };
    Words::new(message).find_map(relays).unwrap_or_default()
}

fn public_key(hex: &str) -> Option<PublicKey> {
    PublicKey::from_hex(hex).ok().and_then(valid)
}

/// Not every 32 bytes are a key.
fn valid(key: PublicKey) -> Option<PublicKey> {
    key.xonly().is_ok().then_some(key)
}

fn strip_prefix_ignoring_case<'a>(word: &'a str, prefix: &str) -> Option<&'a str> {
    let start = word.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| word.get(prefix.len()..))?
}

impl Nip05 {
    /// Reads `name@domain`; `None` when it is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        let (name, domain) = word.split_once('@')?;
        let plain =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let dotted = domain.split('.').count() > 1 && domain.split('.').all(|label| !label.is_empty());
        let fits = plain(name) && plain(domain) && !name.is_empty() && dotted && word.len() <= 253;
        fits.then(|| Self { name: name.to_owned(), domain: domain.to_owned() })
    }
}

impl Target {
    pub(crate) fn resolved(self, author: PublicKey) -> Self {
        match self {
            Self::Nip05(_) => Self::Author(author),
            Self::Theirs { identifier, .. } => Self::Repository(Repository { author, identifier }),
            Self::Author(_) | Self::Repository(_) => self,
        }
    }

    pub(crate) fn parse(word: &str) -> Result<Self, ParseError> {
        match Named::parse(word) {
            Some(Named::Author(author)) => Ok(Self::Author(author)),
            Some(Named::Nip05(name)) => Ok(Self::Nip05(name)),
            Some(Named::Repository(RepoName::Full(repository))) => Ok(Self::Repository(repository)),
            Some(Named::Repository(RepoName::Nip05 { author, identifier })) => {
                Ok(Self::Theirs { author, identifier })
            }
            Some(Named::Repository(RepoName::Identifier(_))) | None => {
                Err(ParseError::bad(word, "an npub, nprofile, naddr, hex key, name@domain or link"))
            }
        }
    }
}

impl RepoName {
    pub(crate) fn resolved(self, author: PublicKey) -> Self {
        match self {
            Self::Nip05 { identifier, .. } => Self::Full(Repository { author, identifier }),
            other => other,
        }
    }

    /// Reads one word.
    ///
    /// # Errors
    ///
    /// The error's text says what would do.
    pub fn parse(word: &str) -> Result<Self, ParseError> {
        match Named::parse(word) {
            Some(Named::Repository(name)) => return Ok(name),
            Some(Named::Author(_)) => {
                return Err(ParseError::bad(word, "a repository but a person: add /<repository>"));
            }
            Some(Named::Nip05(_)) | None => {}
        }
        if let Some((person, _)) = word.split_once('/').filter(|(_, identifier)| !identifier.is_empty()) {
            let person = strip_prefix_ignoring_case(person, "nostr:").unwrap_or(person);
            if is_bech32(person) {
                return Err(ParseError::bad(person, PERSON));
            }
        }
        // A mistyped npub is no repository's name.
        if is_bech32(word) || word.is_empty() {
            return Err(ParseError::bad(word, "a repository: its name, npub/name, or naddr"));
        }
        Ok(Self::Identifier(word.to_owned()))
    }

    /// Which of `known` is meant: exactly, else in any case.
    ///
    /// A NIP-05 name must have become [`RepoName::Full`] before ([`crate::Command::resolved`]); until then it
    /// fits nothing.
    #[must_use]
    pub fn find<'a>(&self, known: impl IntoIterator<Item = &'a Repository>) -> Found {
        let known: Vec<&Repository> = known.into_iter().collect();
        let (author, name) = match self {
            Self::Identifier(name) => (None, name),
            Self::Full(repository) => (Some(repository.author), &repository.identifier),
            Self::Nip05 { .. } => return Found::None(None),
        };
        let of = |repository: &&&Repository| author.is_none_or(|author| repository.author == author);
        let lower = name.to_lowercase();
        let mut fitting: Vec<_> = known.iter().filter(of).filter(|one| one.identifier == *name).collect();
        if fitting.is_empty() {
            fitting = known.iter().filter(of).filter(|one| one.identifier.to_lowercase() == lower).collect();
        }
        match fitting.as_slice() {
            [one] => Found::One((**one).clone()),
            [] => {
                let likeness = |one: &&&Repository| {
                    strsim::normalized_levenshtein(&one.identifier.to_lowercase(), &lower)
                };
                let is_short = |name: &str| name.len() <= COMPARED_MAX;
                let near =
                    known.iter().filter(of).filter(|one| is_short(&lower) && is_short(&one.identifier));
                let near = near.filter(|one| likeness(one) > 0.5);
                let best = near.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
                // A repository with several maintainers is known under one of them.
                let elsewhere = || known.iter().find(|one| one.identifier.to_lowercase() == lower);
                Found::None(best.or_else(elsewhere).map(|best| (*best).clone()))
            }
            many => Found::Many(many.iter().map(|one| (**one).clone()).collect()),
        }
    }
}

impl Found {
    /// The answer when it is not exactly one.
    #[must_use]
    pub fn reply(&self, name: &RepoName) -> String {
        match self {
            Self::One(repository) => repository.to_string(),
            Self::Many(candidates) => {
                let lines = crate::text::lines(candidates.iter().map(|one| format!("• {}", one.full())), 8);
                format!("Several repositories are called {name}. Which one?\n{lines}")
            }
            Self::None(Some(nearest)) => format!("I know no repository {name}. Did you mean {nearest}?"),
            Self::None(None) => format!("I know no repository {name}. Send: list"),
        }
    }
}

impl Scope {
    pub(crate) fn resolved(self, author: PublicKey) -> Self {
        match self {
            Self::Nip05(_) => Self::Author(author),
            Self::Repository(name) => Self::Repository(name.resolved(author)),
            Self::All | Self::Author(_) => self,
        }
    }

    pub(crate) fn parse(word: &str) -> Result<Self, ParseError> {
        match Named::parse(word) {
            Some(Named::Author(author)) => Ok(Self::Author(author)),
            Some(Named::Nip05(name)) => Ok(Self::Nip05(name)),
            Some(Named::Repository(name)) => Ok(Self::Repository(name)),
            None if word.eq_ignore_ascii_case("all") => Ok(Self::All),
            None => RepoName::parse(word).map(Self::Repository),
        }
    }
}

impl Matter {
    pub(crate) fn resolved(self, author: PublicKey) -> Self {
        match self {
            Self::Nip05(_) => Self::Author(author),
            Self::Repository(name) => Self::Repository(name.resolved(author)),
            other => other,
        }
    }

    /// Reads one word.
    ///
    /// # Errors
    ///
    /// The error's text says what would do.
    pub fn parse(word: &str) -> Result<Self, ParseError> {
        match Named::parse(word) {
            Some(Named::Author(author)) => return Ok(Self::Author(author)),
            Some(Named::Nip05(name)) => return Ok(Self::Nip05(name)),
            Some(Named::Repository(name)) => return Ok(Self::Repository(name)),
            None => {}
        }
        let lower = word.to_lowercase();
        if ["wss://", "ws://", "https://", "http://"].iter().any(|scheme| lower.starts_with(scheme)) {
            return if is_secret(word) { Err(ParseError::Secret) } else { Ok(Self::Server(word.to_owned())) };
        }
        Ok(match RepoName::parse(word)? {
            RepoName::Identifier(word) => Self::Word(word),
            name => Self::Repository(name),
        })
    }
}

impl Repository {
    /// `npub1…/d` with the whole npub, to be sent back as it stands.
    #[must_use]
    pub fn full(&self) -> String {
        let Ok(npub) = nostr::nips::nip19::ToBech32::to_bech32(&self.author);
        format!("{npub}/{}", clean(&self.identifier, 60))
    }
}

fn is_bech32(word: &str) -> bool {
    let word = word.to_lowercase();
    ["npub1", "nprofile1", "naddr1", "nevent1", "note1", "nsec1", "ncryptsec1"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", clean(&self.identifier, 60), short(&self.author))
    }
}

impl fmt::Display for Nip05 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = clean(&self.domain, 80);
        // Whose the domain is goes by its name alone (NIP-05).
        if self.name == "_" { f.write_str(&domain) } else { write!(f, "{}@{domain}", clean(&self.name, 60)) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(author) => f.write_str(&short(author)),
            Self::Nip05(name) => name.fmt(f),
            Self::Repository(repository) => repository.fmt(f),
            Self::Theirs { author, identifier } => write!(f, "{} by {author}", clean(identifier, 60)),
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identifier(identifier) => write!(f, "\"{}\"", clean(identifier, 60)),
            Self::Full(repository) => repository.fmt(f),
            Self::Nip05 { author, identifier } => write!(f, "{} by {author}", clean(identifier, 60)),
        }
    }
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(author) => f.write_str(&short(author)),
            Self::Nip05(name) => name.fmt(f),
            Self::Repository(name) => name.fmt(f),
            Self::Server(word) | Self::Word(word) => f.write_str(&clean(word, 100)),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Author(author) => f.write_str(&short(author)),
            Self::Nip05(name) => name.fmt(f),
            Self::Repository(name) => name.fmt(f),
        }
    }
}
