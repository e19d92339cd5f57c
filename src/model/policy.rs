//! What the operator wants mirrored, and where: global wishes, rules and exceptions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use nostr::{
    event::Kind,
    key::PublicKey,
    nips::nip19::{FromBech32, Nip19},
};
use serde::{Deserialize, Serialize};

use super::{
    coordinate::{Coordinate, npub},
    server::ServerUrl,
};

/// Which servers a repository may be brought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Every known server, in the bot's namespace where the maintainers did not list it.
    #[default]
    Everywhere,
    /// Only the servers that the maintainers' announcements list.
    Listed,
}

/// What one rule is about. Written as `npub1…`, `30617:<pubkey in hex>:<d>` or `wss://host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An author, with all repositories.
    Author(PublicKey),
    /// A single repository.
    Repository(Coordinate),
    /// A server.
    Server(ServerUrl),
}

/// Text that is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an npub, a coordinate (30617:<pubkey in hex>:<d>, or naddr1…) or a server (wss://host)")]
pub struct RuleError;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(author) => f.write_str(&npub(author)),
            Self::Repository(repository) => repository.fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("nostr:").unwrap_or(text);
        if let Ok(repository) = text.parse::<Coordinate>() {
            return Ok(Self::Repository(repository));
        }
        if let Ok(author) = PublicKey::from_hex(text) {
            return author.xonly().map(|_| Self::Author(author)).map_err(|_| RuleError);
        }
        // Bech32 may be written in capitals.
        match Nip19::from_bech32(&text.to_lowercase()) {
            Ok(Nip19::Pubkey(author)) => return Ok(Self::Author(author)),
            Ok(Nip19::Profile(profile)) => return Ok(Self::Author(profile.public_key)),
            Ok(Nip19::Coordinate(naddr)) if naddr.coordinate.kind == Kind::GitRepoAnnouncement => {
                let coordinate = naddr.coordinate;
                return Ok(Self::Repository(Coordinate::new(coordinate.public_key, coordinate.identifier)));
            }
            _ => {}
        }
        // A bare word is more likely a mistyped npub than a server.
        let server = text.contains(['.', ':']).then(|| text.parse().ok()).flatten();
        server.map(Self::Server).ok_or(RuleError)
    }
}

/// A list of authors, repositories and servers, as in `[policy] allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Rules {
    /// Authors, with all their repositories.
    pub authors: BTreeSet<PublicKey>,
    /// Single repositories.
    pub repositories: BTreeSet<Coordinate>,
    /// Servers.
    pub servers: BTreeSet<ServerUrl>,
    /// What another client wrote and is not understood here; kept as it is.
    unread: BTreeSet<String>,
}

impl Rules {
    /// Whether `rule` is among them, word by word: an author's rule does not contain those of the repositories.
    #[must_use]
    pub fn contains(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Author(author) => self.authors.contains(author),
            Rule::Repository(repository) => self.repositories.contains(repository),
            Rule::Server(server) => self.servers.contains(server),
        }
    }

    /// Takes in `rule`.
    pub fn insert(&mut self, rule: Rule) {
        match rule {
            Rule::Author(author) => self.authors.insert(author),
            Rule::Repository(repository) => self.repositories.insert(repository),
            Rule::Server(server) => self.servers.insert(server),
        };
    }

    /// Drops `rule`.
    pub fn remove(&mut self, rule: &Rule) {
        match rule {
            Rule::Author(author) => self.authors.remove(author),
            Rule::Repository(repository) => self.repositories.remove(repository),
            Rule::Server(server) => self.servers.remove(server),
        };
    }

    /// Each of them: authors, repositories, servers.
    pub fn iter(&self) -> impl Iterator<Item = Rule> {
        let authors = self.authors.iter().copied().map(Rule::Author);
        let repositories = self.repositories.iter().cloned().map(Rule::Repository);
        authors.chain(repositories).chain(self.servers.iter().cloned().map(Rule::Server))
    }

    /// Whether all of them are in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|rule| other.contains(&rule))
    }
}

impl From<Vec<String>> for Rules {
    fn from(texts: Vec<String>) -> Self {
        let mut rules = Self::default();
        for text in texts {
            match text.parse() {
                Ok(rule) => rules.insert(rule),
                Err(RuleError) => {
                    rules.unread.insert(text);
                }
            }
        }
        rules
    }
}

impl From<Rules> for Vec<String> {
    fn from(rules: Rules) -> Self {
        let known = rules.iter().map(|rule| rule.to_string());
        known.chain(rules.unread.iter().cloned()).collect()
    }
}

/// The rules that were made by message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What is mirrored beside what the configuration allows; restricts nothing by itself.
    #[serde(default)]
    pub allow: Rules,
    /// What is not.
    #[serde(default)]
    pub deny: Rules,
}

impl Said {
    /// Whether `after` leaves anything less to mirror.
    #[must_use]
    pub fn loses_by(&self, after: &Self) -> bool {
        !after.deny.is_subset(&self.deny) || !self.allow.is_subset(&after.allow)
    }
}

/// Settings of one author or repository that differ from the global ones; `None` means "as usual".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exception {
    /// The servers to mirror to, instead of all known ones.
    pub servers: Option<BTreeSet<ServerUrl>>,
    /// How far to spread.
    pub reach: Option<Reach>,
    /// On how many servers to keep a copy.
    pub copies_wanted: Option<u32>,
    /// How long rewound and deleted refs are kept.
    pub archive_days: Option<u32>,
    /// The largest repository taken.
    pub max_repo_bytes: Option<u64>,
}

/// The `[policy]` section, and what was said since by message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// When it names authors or repositories, only those are mirrored; when it names servers, only to those.
    pub allow: Rules,
    /// Never mirrored, never mirrored to. Wins over `allow`.
    pub deny: Rules,
    /// By message.
    pub said: Said,
    /// Exceptions for all repositories of one author.
    pub authors: BTreeMap<PublicKey, Exception>,
    /// Exceptions for single repositories; they win over their author's.
    pub repositories: BTreeMap<Coordinate, Exception>,
}

/// The rule of the operator that keeps something from being mirrored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Named in `deny`.
    #[error("[policy] deny names {0}")]
    Denied(Box<Rule>),
    /// Denied by message.
    #[error("denied by message: {0} (to take it back, send: allow {0})")]
    Said(Box<Rule>),
    /// `allow` names others only.
    #[error("[policy] allow does not name {0}")]
    NotAllowed(Box<Rule>),
}

impl Policy {
    /// The same with other rules by message.
    #[must_use]
    pub fn obeying(&self, said: &Said) -> Self {
        Self { said: said.clone(), ..self.clone() }
    }

    /// Whether `rule` itself is denied.
    ///
    /// # Errors
    ///
    /// The rule that does so.
    pub fn denies(&self, rule: &Rule) -> Result<(), Blocked> {
        if self.deny.contains(rule) {
            return Err(Blocked::Denied(Box::new(rule.clone())));
        }
        if self.said.deny.contains(rule) { Err(Blocked::Said(Box::new(rule.clone()))) } else { Ok(()) }
    }

    /// Whether `repository` may be mirrored at all.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn admits(&self, repository: &Coordinate) -> Result<(), Blocked> {
        self.admits_all(std::slice::from_ref(repository))
    }

    /// Whether a repository may be mirrored whose maintainers call it so, the owner first: a rule holds whoever of
    /// them it is called after.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn admits_all(&self, names: &[Coordinate]) -> Result<(), Blocked> {
        let Some(own) = names.first() else { return Ok(()) };
        for name in names {
            self.denies(&Rule::Repository(name.clone()))?;
        }
        self.denies(&Rule::Author(own.owner))?;
        let open = self.allow.authors.is_empty() && self.allow.repositories.is_empty();
        let named = [&self.allow, &self.said.allow].into_iter().any(|allow| {
            allow.authors.contains(&own.owner) || names.iter().any(|name| allow.repositories.contains(name))
        });
        if open || named { Ok(()) } else { Err(Blocked::NotAllowed(Box::new(Rule::Repository(own.clone())))) }
    }

    /// Whether anything may be mirrored to `server`.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn admits_server(&self, server: &ServerUrl) -> Result<(), Blocked> {
        let rule = Rule::Server(server.clone());
        self.denies(&rule)?;
        let open = self.allow.servers.is_empty();
        if open || self.allow.contains(&rule) || self.said.allow.contains(&rule) {
            Ok(())
        } else {
            Err(Blocked::NotAllowed(Box::new(rule)))
        }
    }

    /// What differs for `repository`: its own exception first, then its author's.
    #[must_use]
    pub fn exception(&self, repository: &Coordinate) -> Exception {
        let own = self.repositories.get(repository).cloned().unwrap_or_default();
        let author = self.authors.get(&repository.owner).cloned().unwrap_or_default();
        Exception {
            servers: own.servers.or(author.servers),
            reach: own.reach.or(author.reach),
            copies_wanted: own.copies_wanted.or(author.copies_wanted),
            archive_days: own.archive_days.or(author.archive_days),
            max_repo_bytes: own.max_repo_bytes.or(author.max_repo_bytes),
        }
    }

    /// The table of the configuration, such as `[policy."npub1…"]`, that [`Self::exception`] has something from that
    /// `sets` finds; `None` where that is as usual.
    #[must_use]
    pub fn table(&self, repository: &Coordinate, sets: impl Fn(&Exception) -> bool) -> Option<String> {
        if self.repositories.get(repository).is_some_and(&sets) {
            return Some(table(&Rule::Repository(repository.clone())));
        }
        let author = self.authors.get(&repository.owner).is_some_and(&sets);
        author.then(|| table(&Rule::Author(repository.owner)))
    }

    /// All exceptions, with what they are for.
    pub fn exceptions(&self) -> impl Iterator<Item = (Rule, &Exception)> {
        let authors = self.authors.iter().map(|(author, one)| (Rule::Author(*author), one));
        let repositories = self.repositories.iter().map(|(name, one)| (Rule::Repository(name.clone()), one));
        authors.chain(repositories)
    }

    /// The servers that exceptions name.
    pub fn excepted_servers(&self) -> impl Iterator<Item = &ServerUrl> {
        self.exceptions().filter_map(|(_, exception)| exception.servers.as_ref()).flatten()
    }
}

/// The heading of the table for `rule` in the configuration.
#[must_use]
pub fn table(rule: &Rule) -> String {
    format!("[policy.\"{rule}\"]")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::key::Keys;
    use proptest::prelude::*;

    use super::*;

    fn server(name: &str) -> ServerUrl {
        format!("wss://{name}.example").parse().unwrap()
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        let alice = Keys::generate().public_key();
        for rule in [
            Rule::Author(alice),
            Rule::Repository(Coordinate::new(alice, "a: b/ü")),
            Rule::Server("wss://git.example:444/path".parse().unwrap()),
        ] {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        for name in [alice.to_hex(), alice.to_hex().to_uppercase(), npub(&alice).to_uppercase()] {
            assert_eq!(name.parse(), Ok(Rule::Author(alice)), "{name}");
        }
        for bad in ["", "word", "npub1zzz", "30617:x:y", "ftp://a.example"] {
            assert_eq!(bad.parse::<Rule>(), Err(RuleError), "{bad}");
        }
        // What another client wrote is kept, understood or not.
        let json = format!(r#"["{}","a word"]"#, npub(&alice));
        let rules: Rules = serde_json::from_str(&json).unwrap();
        assert!(rules.contains(&Rule::Author(alice)));
        assert_eq!(serde_json::to_string(&rules).unwrap(), json);
    }

    #[test]
    fn deny_wins_over_allow() {
        let (alice, bob) = (Keys::generate().public_key(), Keys::generate().public_key());
        let (kept, dropped) = (Coordinate::new(alice, "kept"), Coordinate::new(alice, "dropped"));
        let mut policy = Policy::default();
        assert_eq!(policy.admits(&kept), Ok(()));

        policy.allow.authors.insert(alice);
        policy.deny.repositories.insert(dropped.clone());
        assert_eq!(policy.admits(&kept), Ok(()));
        assert_eq!(policy.admits(&dropped), Err(Blocked::Denied(Rule::Repository(dropped.clone()).into())));
        assert!(matches!(policy.admits(&Coordinate::new(bob, "kept")), Err(Blocked::NotAllowed(_))));
        // Called after another maintainer it is still the same repository.
        assert!(policy.admits_all(&[kept.clone(), dropped]).is_err());

        assert_eq!(policy.admits_server(&server("a")), Ok(()));
        policy.allow.servers.insert(server("b"));
        assert!(matches!(policy.admits_server(&server("a")), Err(Blocked::NotAllowed(_))));
    }

    /// One of a few rules about two authors with two repositories each, and two servers.
    fn rule(keys: &[PublicKey; 2], number: usize) -> Rule {
        let [a, b] = *keys;
        match number % 8 {
            0 => Rule::Author(a),
            1 => Rule::Author(b),
            2 => Rule::Repository(Coordinate::new(a, "x")),
            3 => Rule::Repository(Coordinate::new(a, "y")),
            4 => Rule::Repository(Coordinate::new(b, "x")),
            5 => Rule::Repository(Coordinate::new(b, "y")),
            6 => Rule::Server(server("a")),
            _ => Rule::Server(server("b")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever is allowed, by whom and in what order: what is denied, itself or with its author, is not
        /// mirrored; what is not denied is, if nothing or something of it is on the operator's list.
        #[test]
        fn deny_wins_whatever_is_allowed(allow: u8, deny: u8, said_allow: u8, said_deny: u8) {
            let keys = [Keys::generate().public_key(), Keys::generate().public_key()];
            let some = |bits: u8| {
                let mut rules = Rules::default();
                (0..8).filter(|n| bits >> n & 1 == 1).for_each(|n| rules.insert(rule(&keys, n)));
                rules
            };
            let said = Said { allow: some(said_allow), deny: some(said_deny) };
            let policy = Policy { allow: some(allow), deny: some(deny), ..Policy::default() }.obeying(&said);
            for number in 2..6 {
                let Rule::Repository(repository) = rule(&keys, number) else { unreachable!() };
                let about = [rule(&keys, number), Rule::Author(repository.owner)];
                let any = |rules: &Rules| about.iter().any(|one| rules.contains(one));
                let denied = any(&policy.deny) || any(&said.deny);
                let restricted = allow & 0b0011_1111 != 0;
                let allowed = any(&policy.allow) || any(&said.allow);
                prop_assert_eq!(policy.admits(&repository).is_ok(), !denied && (!restricted || allowed));
            }
            for number in 6..8 {
                let about = rule(&keys, number);
                let Rule::Server(server) = &about else { unreachable!() };
                let denied = policy.deny.contains(&about) || said.deny.contains(&about);
                let restricted = allow & 0b1100_0000 != 0;
                let allowed = policy.allow.contains(&about) || said.allow.contains(&about);
                prop_assert_eq!(policy.admits_server(server).is_ok(), !denied && (!restricted || allowed));
            }
        }

        /// Key by key: the repository's own exception, else its author's, else as usual.
        #[test]
        fn a_repository_wins_over_its_author_and_both_over_what_is_usual(own: u8, author: u8) {
            let alice = Keys::generate().public_key();
            let repository = Coordinate::new(alice, "x");
            let exception = |bits: u8, from: u32| {
                let set = |bit: u8| bits >> bit & 1 == 1;
                Exception {
                    servers: set(0).then(|| BTreeSet::from([server(&format!("s{from}"))])),
                    reach: set(1).then_some(if from == 1 { Reach::Listed } else { Reach::Everywhere }),
                    copies_wanted: set(2).then_some(from),
                    archive_days: set(3).then_some(from),
                    max_repo_bytes: set(4).then_some(u64::from(from)),
                }
            };
            let mut policy = Policy::default();
            policy.authors.insert(alice, exception(author, 1));
            policy.repositories.insert(repository.clone(), exception(own, 2));
            let from = |bit: u8| if own >> bit & 1 == 1 { Some(2) } else { (author >> bit & 1 == 1).then_some(1) };
            let found = policy.exception(&repository);
            prop_assert_eq!(found.servers, from(0).map(|from| BTreeSet::from([server(&format!("s{from}"))])));
            prop_assert_eq!(found.reach, from(1).map(|from| if from == 1 { Reach::Listed } else { Reach::Everywhere }));
            prop_assert_eq!(found.copies_wanted, from(2));
            prop_assert_eq!(found.archive_days, from(3));
            prop_assert_eq!(found.max_repo_bytes, from(4).map(u64::from));
            prop_assert_eq!(policy.exception(&Coordinate::new(alice, "y")), exception(author, 1));
            let stranger = Coordinate::new(Keys::generate().public_key(), "x");
            prop_assert_eq!(policy.exception(&stranger), Exception::default());
            let table = policy.table(&repository, |one| one.copies_wanted.is_some());
            prop_assert_eq!(table.map(|table| if table.contains("30617:") { 2 } else { 1 }), from(2));
        }
    }
}
