//! Git's smart HTTP as a client, for fetches and pushes of whole files.
//!
//! Protocols: `gitprotocol-http(5)`, `gitprotocol-v2(5)` for fetching (v0 where the server knows no
//! other), `gitprotocol-pack(5)` for pushing. Packs pass as bytes from and to files; what is in them is
//! the business of [`super::repo`]. Every answer is bounded in size and time.

mod advertisement;
mod client;
mod commands;
#[cfg(test)]
mod connection_tests;
mod error;
mod fetch;
mod fetched;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
mod pkt;
mod push;
mod report;
#[cfg(test)]
mod tests;
mod upload;
mod watch;

use std::time::Duration;

use self::upload::{Recent, UploadRate};
pub use self::{
    advertisement::{Advertisement, RemoteRefs},
    client::{ClientError, Gate, http_client, http_client_builder},
    commands::{RefUpdate, commands_to},
    error::{PushError, WireError},
    fetch::{FetchedPack, Room},
    push::Pushed,
};

/// How much of anything a server may take or send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest silence: nothing moves in either direction (config: `limits.stall_timeout_secs`).
    pub stall: Duration,
    /// Longest duration of one request.
    pub total: Duration,
    /// Most refs a server may list (config: `limits.max_refs`).
    pub max_refs: usize,
    /// Largest list of refs, in bytes.
    pub max_advertisement_bytes: u64,
    /// Bytes that all pushes together send in a second; 0 means no limit (config: `limits.upload_bytes_per_sec`).
    pub upload_bytes_per_sec: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            total: Duration::from_secs(3600),
            max_refs: 20_000,
            max_advertisement_bytes: 16 << 20,
            upload_bytes_per_sec: 0,
        }
    }
}

/// A client for git servers. Cheap to clone; clones share connections.
///
/// The connect timeout is the HTTP client's (see [`http_client`]).
#[derive(Debug, Clone)]
pub struct GitHttp {
    client: reqwest::Client,
    limits: Limits,
    upload: UploadRate,
    recent: Recent,
}

impl GitHttp {
    /// A client that sends its requests through `client`, within `limits`.
    #[must_use]
    pub fn new(client: reqwest::Client, limits: Limits) -> Self {
        Self {
            client,
            limits,
            upload: UploadRate::new(limits.upload_bytes_per_sec),
            recent: Recent::default(),
        }
    }
}

/// What this program calls itself to git servers.
const AGENT: &str = concat!("agent=grasp-mirror/", env!("CARGO_PKG_VERSION"));
