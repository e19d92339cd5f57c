//! How a mirror may exist on a server.

use serde::{Deserialize, Serialize};

/// The ways a (repository, server) pair can be mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// A maintainer's announcement names the server: everything the maintainers signed is enough.
    Listed,
    /// The bot's namespace, governed by the lead's own state: the bot signs none.
    Lead,
    /// The bot's namespace, with a state the bot signed as a copy of the authoritative one.
    Namespace,
    /// Listed because the bot had it signed so: with a maintainer's key in a maintainer's announcement, or, as a
    /// maintainer itself, in its own.
    Signed,
}

impl Placement {
    /// The contract's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Lead => "lead",
            Self::Namespace => "namespace",
            Self::Signed => "signed",
        }
    }
}
