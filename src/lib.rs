//! The walk.

pub mod git;
pub mod model;
