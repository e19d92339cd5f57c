//! The words of the project as types. Pure: no clock, no files, no network.

pub mod address;
pub mod advertised;
pub mod announcement;
pub mod coordinate;
pub mod draft;
pub mod placement;
pub mod policy;
pub mod refs;
pub mod replace;
pub mod roles;
pub mod server;
pub mod state;
pub mod status;
