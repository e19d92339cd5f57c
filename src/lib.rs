//! grasp-mirror: a bot that keeps git repositories published over Nostr (NIP-34) alive on GRASP servers.
//!
//! # The walk
//!
//! ```text
//! relays, servers ─▶ store ─▶ catalog ─▶ wanted ─▶ next step ─▶ events and git on servers ─▶ read back ─▶ record ─▶ report
//! ```
//!
//! [`cycle`] walks it once over all repositories; [`daemon`] does so whenever it is time, and the [`bot`] beside it
//! hears and answers. What is decided is pure: [`plan`] over the words of [`model`], and [`report`]. What touches the
//! world stands at the edge: [`store`] (events and records), [`relay`], [`git`], [`transfer`], which carries out the
//! plan's steps, and [`http`], which shows how it stands; [`tls`] says whom to believe, and [`disk`] how much room there is. [`config`] and [`key`] are read at the door.
//!
//! The page `ARCHITECTURE.md` says why it is like this.

pub mod bot;
pub mod config;
pub mod cycle;
pub mod daemon;
pub mod disk;
pub mod git;
pub mod http;
pub mod key;
pub mod model;
pub mod plan;
pub mod relay;
pub mod report;
pub mod store;
pub mod tls;
pub mod transfer;

/// Doors for `fuzz/` to parsers that are private, and stay so: nobody else is to build on them. Each takes what came
/// from outside as bytes, and panics where what must always hold does not.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::git::{
        pack::fuzzing::index_pack,
        wire::fuzzing::{pack_answer, push_answer, ref_lists},
    };
}
