//! Git on this machine and on the wire.

mod checksum;
mod error;
pub mod pack;
pub mod repo;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;

pub use self::{
    error::GitError,
    pack::{Pack, PackError},
    repo::{Archived, Consolidated, Ingested, Past, RefChanges, Repository},
};
