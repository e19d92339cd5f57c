//! How a mirror stands, in the words of the report.

use serde::{Deserialize, Serialize};

/// The status of one (repository, server) pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorStatus {
    /// The server itself serves what it should.
    InSync,
    /// Sent, not yet read back.
    Pending,
    /// Went wrong; there is a next try.
    Failing,
    /// The server said no for good.
    Refused,
    /// The operator's own policy keeps it away.
    Blocked,
    /// Waiting for a maintainer's signature.
    AwaitingSignature,
    /// The server is down.
    Unreachable,
}

impl MirrorStatus {
    /// The contract's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Pending => "pending",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::AwaitingSignature => "awaiting_signature",
            Self::Unreachable => "unreachable",
        }
    }
}
