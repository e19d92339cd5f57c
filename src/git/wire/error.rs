//! Why talking to a git server failed, and the server's words made fit for showing.

use std::{io, time::Duration};

use grasp_mirror_commands::{clean, with_causes};
use url::Url;

use crate::model::address::shown;

/// Longest text of a server that is kept, in characters.
const MAX_WORDS: usize = 500;

/// Why a request to a git server failed. Every variant names the repository's URL there.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection came about: name not found, connection refused, TLS, or the connect timeout.
    #[error("{at} cannot be reached: {}", with_causes(source), at = shown(url))]
    Unreachable {
        /// The repository there.
        url: Url,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The connection broke.
    #[error("the connection to {at} broke while {doing}, after {sent_bytes} bytes sent: {}", with_causes(source), at = shown(url))]
    Broken {
        /// The repository there.
        url: Url,
        /// What was being done.
        doing: &'static str,
        /// How much of the request's body had been sent, in bytes.
        sent_bytes: u64,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// Nothing moved for too long, or the whole took too long.
    #[error("{at} did not finish {doing} within {limit:?}{}", if *stalled { " of silence" } else { "" }, at = shown(url))]
    TimedOut {
        /// The repository there.
        url: Url,
        /// What was being done.
        doing: &'static str,
        /// The limit that was passed.
        limit: Duration,
        /// Whether it was the limit for silence (else the one for the whole request).
        stalled: bool,
    },
    /// The server was sent a whole push and did not answer: it may have carried it out, and it may not.
    #[error("{problem} (the whole push was sent; a look tells what became of it)")]
    Unanswered {
        /// The repository there.
        url: Url,
        /// What happened instead of an answer.
        problem: Box<WireError>,
    },
    /// The server does not have the repository (404).
    #[error("{at} does not exist on that server", at = shown(url))]
    RepositoryUnknown {
        /// The repository there.
        url: Url,
    },
    /// An HTTP status that is no answer.
    #[error("{at} answered HTTP {status}: {reason}", at = shown(url))]
    Status {
        /// The repository there.
        url: Url,
        /// The status.
        status: u16,
        /// The start of the answer's text, cleaned.
        reason: String,
        /// For how long it wants to be left alone, in seconds (`Retry-After`).
        retry_after_secs: Option<u64>,
    },
    /// The server said no. For a push: nothing may be taken as changed before the refs are read again.
    #[error("{at} refused {doing}: {reason}", at = shown(url))]
    Refused {
        /// The repository there.
        url: Url,
        /// What it refused.
        doing: &'static str,
        /// Its own words, cleaned.
        reason: String,
    },
    /// An answer that is not git's protocol.
    #[error("{at} sent an answer that cannot be read: {reason}", at = shown(url))]
    Malformed {
        /// The repository there.
        url: Url,
        /// What is wrong with it.
        reason: String,
    },
    /// An answer over a configured limit.
    #[error("{at} sent more than {limit} {unit}; raise {setting} in the configuration if that is expected", at = shown(url))]
    TooLarge {
        /// The repository there.
        url: Url,
        /// The limit.
        limit: u64,
        /// What it counts.
        unit: &'static str,
        /// The setting it comes from.
        setting: &'static str,
    },
    /// A pack that the disk has no room for.
    #[error("{at} sends more than the {room_bytes} bytes that the disk has above limits.disk_floor_bytes", at = shown(url))]
    NoRoom {
        /// The repository there.
        url: Url,
        /// What there was room for.
        room_bytes: u64,
    },
    /// A file on this machine could not be read or written.
    #[error("{doing} with {at}: {source}", at = shown(url))]
    Local {
        /// The repository there.
        url: Url,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl WireError {
    /// Whether the server is there and left what it was asked for without an answer.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Unanswered { problem, .. } => problem.is_silence(),
            _ => false,
        }
    }
}

/// Why a push failed.
pub type PushError = WireError;

/// A server's words as one line to show: no control or direction-changing characters, at most 500
/// characters.
pub(super) fn words(bytes: &[u8]) -> String {
    // A character takes at most four bytes; more need not be looked at.
    let bytes = bytes.get(..MAX_WORDS * 8).unwrap_or(bytes);
    clean(&String::from_utf8_lossy(bytes), MAX_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_become_one_harmless_line() {
        assert_eq!(words(b"ERR  no\r\n\x1b[31mway\n"), "ERR no [31mway");
        assert_eq!(words("a\u{202e}b\u{200b}c".as_bytes()), "abc");
        assert_eq!(words(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = words("ü".repeat(5000).as_bytes());
        assert_eq!(long.chars().count(), 500);
        assert!(long.ends_with('…'));
    }
}
