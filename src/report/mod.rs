//! What is told to people and programs: the status document and the tables made from it. Pure.

pub mod document;
pub mod tables;

pub use document::{Report, ReportedRepository, ReportedServer};
