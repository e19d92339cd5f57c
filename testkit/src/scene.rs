//! Where most stories of the daemon take place.

use std::path::PathBuf;

use crate::{Mirror, Owner, Server, TestRelay, look};

/// Two servers and a relay, and the repository `hello`, which its owner announced on the relay and published on the
/// first server.
#[derive(Debug)]
pub struct Scene {
    /// Listed by the owner, and holds the repository.
    pub a: Server,
    /// Known to the bot alone.
    pub b: Server,
    /// For everything that is not git.
    pub relay: TestRelay,
    /// Who owns `hello`.
    pub owner: Owner,
}

impl Scene {
    /// Sets it up.
    pub async fn set() -> Self {
        let (a, b, relay) = tokio::join!(Server::start(), Server::start(), TestRelay::start());
        let owner = Owner::new("hello").at_home_on(&relay);
        owner.publish(owner.announcement().at(&a), &a).await;
        Self { a, b, relay, owner }
    }

    /// A bot that knows both servers and the relay, and watches nobody yet.
    #[must_use]
    pub fn mirror(&self, binary: impl Into<PathBuf>) -> Mirror {
        Mirror::new(binary).knows(&self.a).knows(&self.b).uses(&self.relay)
    }

    /// Whether the bot's copy on the second server holds exactly what the owner has.
    pub async fn is_copied_by(&self, mirror: &Mirror) -> bool {
        look::refs(&mirror.url_at(&self.b, &self.owner.d)).await == self.owner.work.refs()
    }
}
