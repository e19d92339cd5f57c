//! The announcement (kind 30617) of a repository, as its maintainer writes it.

use nostr::{event::Tag, key::PublicKey, nips::nip19::ToBech32};

use crate::Server;

/// Collects what an announcement says; [`crate::Owner::announce`] signs it.
#[derive(Debug, Clone)]
pub struct Announcement {
    author: PublicKey,
    d: String,
    clone: Vec<String>,
    relays: Vec<String>,
    maintainers: Vec<String>,
    tags: Vec<Vec<String>>,
}

impl Announcement {
    /// The repository `d` of `author`, listed nowhere yet.
    #[must_use]
    pub fn new(author: PublicKey, d: &str) -> Self {
        Self {
            author,
            d: d.to_owned(),
            clone: Vec::new(),
            relays: Vec::new(),
            maintainers: Vec::new(),
            tags: vec![
                vec!["name".to_owned(), d.to_owned()],
                vec!["description".to_owned(), format!("A repository called {d}")],
            ],
        }
    }

    /// Lists a server: its clone URL and its relay.
    #[must_use]
    pub fn at(self, server: &Server) -> Self {
        let clone = server.repo_url(&self.author, &self.d);
        self.clone_url(&clone).relay(&server.url())
    }

    /// One more clone URL, as it is.
    #[must_use]
    pub fn clone_url(mut self, url: &str) -> Self {
        self.clone.push(url.to_owned());
        self
    }

    /// One more relay, as it is.
    #[must_use]
    pub fn relay(mut self, url: &str) -> Self {
        self.relays.push(url.to_owned());
        self
    }

    /// Names a co-maintainer in the (old) `maintainers` tag.
    #[must_use]
    pub fn maintainer(mut self, who: &PublicKey) -> Self {
        self.maintainers.push(who.to_hex());
        self
    }

    /// Names the lead in an `M` tag.
    #[must_use]
    pub fn lead(self, who: &PublicKey) -> Self {
        self.tag(&["M", &who.to_hex()])
    }

    /// Names a co-maintainer in an `m` tag.
    #[must_use]
    pub fn co_maintainer(self, who: &PublicKey) -> Self {
        self.tag(&["m", &who.to_hex()])
    }

    /// Marks the repository private.
    #[must_use]
    pub fn private(self) -> Self {
        self.tag(&["private", "true"])
    }

    /// Says something else of the repository than what every announcement here says.
    #[must_use]
    pub fn described(mut self, name: &str, description: &str) -> Self {
        self.tags.retain(|tag| tag[0] != "name" && tag[0] != "description");
        self.tag(&["name", name]).tag(&["description", description])
    }

    /// Any other tag.
    #[must_use]
    pub fn tag(mut self, tag: &[&str]) -> Self {
        self.tags.push(tag.iter().map(|&value| value.to_owned()).collect());
        self
    }

    /// The author's npub.
    #[must_use]
    pub fn npub(&self) -> String {
        self.author.to_bech32().unwrap()
    }

    pub(crate) fn into_tags(self) -> Vec<Tag> {
        let mut tags = vec![vec!["d".to_owned(), self.d]];
        tags.extend(self.tags);
        for (name, values) in
            [("clone", self.clone), ("relays", self.relays), ("maintainers", self.maintainers)]
        {
            if !values.is_empty() {
                tags.push(std::iter::once(name.to_owned()).chain(values).collect());
            }
        }
        tags.into_iter().map(|tag| Tag::parse(tag).unwrap()).collect()
    }
}
