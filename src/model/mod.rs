//! The words of the project as types. Pure: no clock, no files, no network.

pub mod policy;
pub mod refs;
pub mod server;
