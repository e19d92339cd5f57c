//! What is told to people and programs: the status document, and the tables, answers, alerts and lines made from it. Pure.

pub mod alerts;
pub mod answers;
pub mod audit;
pub mod document;
pub mod health;
pub mod history;
pub mod line;
pub mod metrics;
pub mod monitoring;
pub mod page;
pub mod picture;
pub mod scoreboard;
pub mod tables;

pub use document::{Report, ReportedRepository, ReportedServer};
