//! The walk.

pub mod git;
pub mod model;
pub mod plan;
pub mod relay;
pub mod store;
