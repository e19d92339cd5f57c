//! Names and values of git refs as a signed state may hold them.

use std::{borrow::Borrow, collections::BTreeMap, fmt, str::FromStr};

/// The name of an object: SHA-1, the only format GRASP servers speak.
pub use gix_hash::ObjectId;

/// Heads and tags with the object each one points at.
pub type Refs = BTreeMap<RefName, ObjectId>;

/// A full ref name under `refs/heads/` or `refs/tags/`, valid by git's own rules.
///
/// Rules: `git-check-ref-format(1)`. Everything else a state may carry (`HEAD`, peeled
/// `refs/tags/v1^{}`, `refs/nostr/…`) is not a ref to mirror.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

/// Why a string is no ref to mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefNameError {
    /// Not a branch and not a tag.
    #[error("{0:?} is neither under refs/heads/ nor under refs/tags/")]
    Outside(String),
    /// Git itself would refuse the name.
    #[error("{name:?} is not a ref name git accepts: {reason}")]
    Malformed {
        /// The name as it came.
        name: String,
        /// Git's rule that it breaks.
        reason: String,
    },
}

impl RefName {
    /// The full name, `refs/heads/…` or `refs/tags/…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this names a branch (else it names a tag).
    #[must_use]
    pub fn is_branch(&self) -> bool {
        self.0.starts_with("refs/heads/")
    }
}

impl FromStr for RefName {
    type Err = RefNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
            return Err(RefNameError::Outside(name.to_owned()));
        }
        match gix_validate::reference::name(name.into()) {
            Ok(_) => Ok(Self(name.to_owned())),
            Err(error) => Err(RefNameError::Malformed { name: name.to_owned(), reason: error.to_string() }),
        }
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RefName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_branches_and_tags_are_refs() {
        for good in ["refs/heads/main", "refs/tags/v1.0", "refs/heads/feature/ü"] {
            assert_eq!(good.parse::<RefName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "HEAD",
            "refs/nostr/abc",
            "refs/tags/v1^{}",
            "refs/heads/",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/x.lock",
            "refs/heads/../../etc",
            "refs/heads/a\u{7f}b",
            "refs/heads//x",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad}");
        }
    }
}
