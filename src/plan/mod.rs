//! What is wanted, and the next step towards it. Pure: (events, what was last read, now) → decisions.
//!
//! [`catalog`] says what is to be mirrored and [`authority`] whose word counts; [`namespace`] says what the bot
//! itself announces; [`conversation`] which events belong to a repository; [`spread`] where each mirror goes,
//! [`placement`] how it exists there and [`wanted`] what it is to hold; [`converge`] is the next step for one mirror,
//! [`retry`] when a failed one is tried again, [`signing`] what is added to a maintainer's announcement, [`permit`]
//! what may be signed with a maintainer's key and [`to_sign`] what is, [`hold`] which states wait for people to decide; [`kinship`] says who may
//! share objects. [`identity`] is who the bot says it is, [`settings`] and [`policy`] what it was told to do, [`journal`]
//! what became of each question put to it, [`progress`] how far a running cycle is, [`targets`] which repositories an event
//! is about.

pub mod authority;
pub mod catalog;
pub mod converge;
pub mod conversation;
pub mod forget;
pub mod hold;
pub mod holdings;
pub mod identity;
pub mod journal;
pub mod kinship;
pub mod live;
pub mod namespace;
pub mod per_server;
pub mod permit;
pub mod placement;
pub mod policy;
pub mod progress;
pub mod record;
pub mod rest;
pub mod retry;
pub mod settings;
pub mod signing;
#[cfg(test)]
mod simulated;
pub mod spread;
pub mod taken_out;
pub mod targets;
#[cfg(test)]
mod testing;
pub mod to_sign;
pub mod wanted;
