//! The world around the bot, for tests and for the demo: real GRASP servers, ordinary relays,
//! maintainers with real git repositories, faults on the wire, and the real `grasp-mirror` binary.
//!
//! Nothing in here knows the bot's own code: it is started as a child process, and what it did is
//! looked up on the servers.
//!
//! ```no_run
//! # async fn story(binary: &str) {
//! use grasp_mirror_testkit::{Mirror, Owner, Server, TestRelay, look};
//!
//! let (a, b, relay) = (Server::start().await, Server::start().await, TestRelay::start().await);
//! let owner = Owner::new("hello").at_home_on(&relay);
//! let listing = owner.announcement().at(&a).at(&b);
//! owner.publish(listing, &a).await;
//!
//! let mirror = Mirror::new(binary).knows(&a).knows(&b).uses(&relay).watches(&owner);
//! mirror.once().await.expect_code(0);
//! assert_eq!(look::refs(&owner.url_at(&b)).await, owner.work.refs());
//! # }
//! ```
//!
//! Everything panics with the reason when the world itself does not behave: a missing tool, a server
//! that does not start, an event of the owner that is not accepted.

// A test stops at the first surprise, and so does its kit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod announcement;
mod browser;
mod bulk;
mod chance;
mod chat;
mod daemon;
pub mod look;
mod mirror;
mod nginx;
mod owner;
mod process;
mod proxy;
mod relay;
mod run;
mod scene;
mod server;
mod sink;
mod site;
mod sniff;
pub mod tools;
mod wire;
mod work;

pub use announcement::Announcement;
pub use browser::Browser;
pub use bulk::noise_text;
pub use bulk::{Noise, sources};
pub use chance::Chance;
pub use chat::{Chat, Heard, Protocol, Question, junk};
pub use daemon::Daemon;
pub use mirror::Mirror;
pub use nginx::{Authority, Nginx};
pub use owner::{Owner, Person, Published};
pub use process::{Cost, cost_of_children, cpu, own_cpu, own_memory, peak_rss, rss, stopped, tree_cpu};
pub use proxy::{Fault, Proxy, Seen};
pub use relay::TestRelay;
pub use run::Run;
pub use scene::Scene;
pub use server::{Server, ServerBuilder, free_port};
pub use sink::{Sink, Taken};
pub use site::{Events, Reply, Site};
pub use wire::{Answer, Line, fetch, send};
pub use work::Work;

/// An address at which Nostr is spoken: a GRASP server or an ordinary relay.
pub trait Address {
    /// The address as `ws://host:port`.
    fn ws(&self) -> String;
}

impl Address for str {
    fn ws(&self) -> String {
        self.to_owned()
    }
}

impl Address for String {
    fn ws(&self) -> String {
        self.clone()
    }
}

impl<T: Address + ?Sized> Address for &T {
    fn ws(&self) -> String {
        (**self).ws()
    }
}
