//! The walk.

pub mod config;
pub mod git;
pub mod key;
pub mod model;
pub mod plan;
pub mod relay;
pub mod store;
