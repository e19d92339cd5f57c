//! The walk.

pub mod config;
pub mod cycle;
pub mod daemon;
pub mod git;
pub mod key;
pub mod model;
pub mod plan;
pub mod relay;
pub mod report;
pub mod store;
pub mod transfer;
