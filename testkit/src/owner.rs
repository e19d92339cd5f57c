//! People: a key, what they publish, and, for an owner, a repository.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::{Keys, PublicKey},
    nips::nip19::ToBech32,
    types::Timestamp,
};

use crate::{Address, Announcement, Answer, Server, Work, look, wire};

/// Someone with a key. Every event signed is one second younger than the one before.
#[derive(Debug)]
pub struct Person {
    /// The key.
    pub keys: Keys,
    clock: AtomicU64,
}

impl Default for Person {
    fn default() -> Self {
        Self::new()
    }
}

impl Person {
    /// Someone new, whose first event is ten minutes old.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: Keys::generate(),
            clock: AtomicU64::new(Timestamp::now().as_secs() - Duration::from_secs(600).as_secs()),
        }
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// The npub.
    #[must_use]
    pub fn npub(&self) -> String {
        self.public_key().to_bech32().unwrap()
    }

    /// The nsec.
    #[must_use]
    pub fn nsec(&self) -> String {
        self.keys.secret_key().to_bech32().unwrap()
    }

    /// The next event is dated `secs` seconds from now, and each later one a second later.
    pub fn signs_in(&self, secs: u64) {
        self.clock.store(Timestamp::now().as_secs() + secs, Ordering::Relaxed);
    }

    /// The next event is dated `secs` seconds ago, and each later one a second later.
    pub fn signed_ago(&self, secs: u64) {
        self.clock.store(Timestamp::now().as_secs() - secs, Ordering::Relaxed);
    }

    /// Signs an event of any kind.
    pub fn sign(&self, kind: u16, content: &str, tags: &[&[&str]]) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()).collect();
        self.sign_tags(kind, content, tags)
    }

    fn sign_tags(&self, kind: u16, content: &str, tags: Vec<Tag>) -> Event {
        EventBuilder::new(Kind::from(kind), content)
            .tags(tags)
            .custom_created_at(Timestamp::from(self.clock.fetch_add(1, Ordering::Relaxed)))
            .finalize(&self.keys)
            .unwrap()
    }

    /// Signs an announcement (30617).
    #[must_use]
    pub fn sign_announcement(&self, announcement: Announcement) -> Event {
        self.sign_tags(30617, "", announcement.into_tags())
    }

    /// Signs a state (30618) that says what `work` holds now.
    #[must_use]
    pub fn sign_state(&self, d: &str, work: &Work) -> Event {
        let mut tags = vec![Tag::identifier(d)];
        for (name, id) in work.refs().into_iter().chain(work.peeled()) {
            tags.push(Tag::custom(name, [id]));
        }
        tags.push(Tag::custom("HEAD", [format!("ref: {}", work.head())]));
        self.sign_tags(30618, "", tags)
    }

    /// An issue (1621) on a repository.
    pub fn issue(&self, coordinate: &str, subject: &str) -> Event {
        self.sign(
            1621,
            &format!("{subject}, in more words"),
            &[&["a", coordinate], &["p", author(coordinate)], &["subject", subject]],
        )
    }

    /// A patch (1617) on a repository.
    pub fn patch(&self, coordinate: &str, text: &str) -> Event {
        self.sign(1617, text, &[&["a", coordinate], &["p", author(coordinate)], &["t", "root"]])
    }

    /// A pull request (1618): `commit`, to be had from `clone`.
    pub fn pull_request(&self, coordinate: &str, commit: &str, clone: &str) -> Event {
        self.sign(
            1618,
            "Please pull",
            &[
                &["a", coordinate],
                &["p", author(coordinate)],
                &["subject", "A change"],
                &["c", commit],
                &["clone", clone],
                &["branch-name", "change"],
            ],
        )
    }

    /// A comment (1111, NIP-22) on `parent`, in the thread that began with `root`.
    pub fn comment(&self, root: &Event, parent: &Event, text: &str) -> Event {
        let kind = |event: &Event| event.kind.as_u16().to_string();
        self.sign(
            1111,
            text,
            &[
                &["E", &root.id.to_hex(), "", &root.pubkey.to_hex()],
                &["K", &kind(root)],
                &["P", &root.pubkey.to_hex()],
                &["e", &parent.id.to_hex(), "", &parent.pubkey.to_hex()],
                &["k", &kind(parent)],
                &["p", &parent.pubkey.to_hex()],
            ],
        )
    }

    /// A status (1630 open … 1633 draft) of `root`.
    pub fn status(&self, kind: u16, coordinate: &str, root: &Event) -> Event {
        self.sign(
            kind,
            "",
            &[&["e", &root.id.to_hex(), "", "root"], &["a", coordinate], &["p", &root.pubkey.to_hex()]],
        )
    }

    /// A reaction (7) to `to`.
    pub fn reaction(&self, to: &Event, with: &str) -> Event {
        self.sign(
            7,
            with,
            &[&["e", &to.id.to_hex()], &["p", &to.pubkey.to_hex()], &["k", &to.kind.as_u16().to_string()]],
        )
    }

    /// A deletion request (5, NIP-09) for `what`.
    pub fn delete(&self, what: &Event) -> Event {
        let kind = what.kind.as_u16().to_string();
        match what.coordinate() {
            Some(coordinate) => self.sign(5, "", &[&["a", &coordinate.to_string()], &["k", &kind]]),
            None => self.sign(5, "", &[&["e", &what.id.to_hex()], &["k", &kind]]),
        }
    }
}

fn author(coordinate: &str) -> &str {
    coordinate.split(':').nth(1).unwrap_or_default()
}

/// The two events that say a repository exists and what it holds.
#[derive(Debug, Clone)]
pub struct Published {
    /// Kind 30617.
    pub announcement: Event,
    /// Kind 30618.
    pub state: Event,
}

/// A maintainer and a repository.
#[derive(Debug)]
pub struct Owner {
    person: Person,
    /// The repository's identifier.
    pub d: String,
    /// The repository on the owner's own disk.
    pub work: Work,
    homes: Vec<String>,
}

impl Deref for Owner {
    type Target = Person;

    fn deref(&self) -> &Person {
        &self.person
    }
}

impl Owner {
    /// Someone new with the repository `d`: one commit on `main`.
    #[must_use]
    pub fn new(d: &str) -> Self {
        Self { person: Person::new(), d: d.to_owned(), work: Work::new(), homes: Vec::new() }
    }

    /// Announcements go to this relay as well.
    #[must_use]
    pub fn at_home_on(mut self, relay: impl Address) -> Self {
        self.homes.push(relay.ws());
        self
    }

    /// `30617:<pubkey>:<d>`.
    #[must_use]
    pub fn coordinate(&self) -> String {
        format!("30617:{}:{}", self.public_key().to_hex(), self.d)
    }

    /// The clone URL at a server.
    #[must_use]
    pub fn url_at(&self, server: &Server) -> String {
        server.repo_url(&self.public_key(), &self.d)
    }

    /// An announcement to fill in.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement::new(self.public_key(), &self.d)
    }

    /// Signs `announcement` and sends it to `to` and to the relays the owner is at home on.
    ///
    /// # Panics
    ///
    /// When one of them refuses it.
    pub async fn announce(&self, announcement: Announcement, to: impl Address) -> (Event, Answer) {
        let event = self.sign_announcement(announcement);
        let answer = wire::send(&event, to).await.expect_accepted();
        for home in &self.homes {
            wire::send(&event, home).await.expect_accepted();
        }
        (event, answer)
    }

    /// Signs a state of what the work repository holds now.
    #[must_use]
    pub fn state(&self) -> Event {
        self.sign_state(&self.d, &self.work)
    }

    /// Announces the repository, then signs and pushes its state to `server` as [`Owner::update`] does.
    pub async fn publish(&self, announcement: Announcement, server: &Server) -> Published {
        let (announcement, _) = self.announce(announcement, server).await;
        let state = self.update(server).await;
        look::wait_until("the server serves the announcement", async || {
            look::serves(server, &announcement).await
        })
        .await;
        Published { announcement, state }
    }

    /// Signs the state of now, pushes all heads and tags, and waits until `server` serves the state.
    ///
    /// # Panics
    ///
    /// When the server refuses either. It does so when a state deletes the branch that `HEAD` named before:
    /// git itself will not let a push delete the current branch.
    pub async fn update(&self, server: &Server) -> Event {
        let state = self.state();
        let answer = wire::send(&state, server).await.expect_accepted();
        if answer.message.contains("purgatory") {
            let url = server.past_nginx(&self.url_at(server));
            self.work.push_all(&url).await.unwrap_or_else(|words| panic!("push: {words}"));
        }
        look::wait_until("the server serves the state", async || look::serves(server, &state).await).await;
        state
    }
}
