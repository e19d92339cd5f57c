//! What could not be done, told with a way out.

use crate::{Command, Nip05, text::sentence};

/// A NIP-05 name that leads to nobody: `reason` is why.
#[must_use]
pub fn unresolved(name: &Nip05, reason: &str) -> String {
    format!("I cannot find out whose {name} is: {}. An npub always works.", sentence(reason))
}

/// A command that failed: `reason` is why, `way_out` a sentence that says what would do.
#[must_use]
pub fn failed(command: &Command, reason: &str, way_out: &str) -> String {
    format!("! {command} failed: {}. {way_out}", sentence(reason))
}
