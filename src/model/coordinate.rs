//! `30617:<pubkey>:<d>`, the name of a repository (NIP-01 addressable event coordinate).

use std::{fmt, str::FromStr};

use grasp_mirror_commands::is_invisible;
use nostr::prelude::{Event, Kind, PublicKey, ToBech32};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Characters a folder name may hold as they are; the rest is percent-encoded.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The longest file name common file systems take, less room for `.git`.
const FOLDER_NAME_MAX: usize = 255 - ".git".len();

/// Names one repository: who announced it, and under which `d`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Coordinate {
    /// The announcement's author.
    pub owner: PublicKey,
    /// The announcement's `d` tag, as it stands.
    pub identifier: String,
}

/// A string that is no repository coordinate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository coordinate (30617:<pubkey in hex>:<d>)")]
pub struct CoordinateError(String);

/// Why an identifier cannot be mirrored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// No `d` tag, or an empty one.
    #[error("the identifier (d tag) is empty")]
    Empty,
    /// GRASP servers keep a repository in a folder named by its identifier, so these cannot exist there.
    #[error("the identifier {0:?} is a path, which no GRASP server takes")]
    Path(String),
    /// Control and bidirectional characters make a name that lies about itself.
    #[error("the identifier {0:?} holds control or text-direction characters")]
    Invisible(String),
    /// More than a file name can hold.
    #[error("the identifier is {0} bytes long when encoded, longer than a file name may be")]
    TooLong(usize),
}

impl Coordinate {
    /// Names the repository `identifier` of `owner`.
    #[must_use]
    pub fn new(owner: PublicKey, identifier: impl Into<String>) -> Self {
        Self { owner, identifier: identifier.into() }
    }

    /// `<npub>/<d>`, as people read it.
    #[must_use]
    pub fn for_people(&self) -> String {
        format!("{}/{}", npub(&self.owner), self.identifier)
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", Kind::GitRepoAnnouncement.as_u16(), self.owner.to_hex(), self.identifier)
    }
}

impl FromStr for Coordinate {
    type Err = CoordinateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || CoordinateError(text.to_owned());
        let rest = text.strip_prefix("30617:").ok_or_else(wrong)?;
        let (owner, identifier) = rest.split_once(':').ok_or_else(wrong)?;
        Ok(Self::new(PublicKey::from_hex(owner).map_err(|_| wrong())?, identifier))
    }
}

impl TryFrom<String> for Coordinate {
    type Error = CoordinateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Coordinate> for String {
    fn from(coordinate: Coordinate) -> Self {
        coordinate.to_string()
    }
}

/// Kind, author and `d` of the addressable events that `event` names in `a` tags (NIP-01). A `d` may hold colons, at the
/// first of which `Tags::coordinates` of nostr 0.45 cuts it.
pub fn addressed(event: &Event) -> impl Iterator<Item = (Kind, PublicKey, &str)> {
    event.tags.iter().filter(|tag| tag.kind() == "a").filter_map(|tag| {
        let mut parts = tag.content()?.splitn(3, ':');
        let kind = parts.next()?.parse().ok()?;
        Some((kind, PublicKey::from_hex(parts.next()?).ok()?, parts.next()?))
    })
}

/// The public key as `npub1…` (NIP-19).
#[must_use]
pub fn npub(key: &PublicKey) -> String {
    let Ok(npub) = key.to_bech32();
    npub
}

/// One file name that stands for `identifier`, without the `.git` ending.
///
/// Two identifiers never share a name, and none can leave its parent folder: everything but ASCII letters,
/// digits, `-`, `_` and `.` is percent-encoded, and so is a leading dot.
///
/// # Errors
///
/// [`IdentifierError`] when no GRASP server could hold the repository either, or when the name would lie to
/// the people who read it.
pub fn folder_name(identifier: &str) -> Result<String, IdentifierError> {
    if identifier.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if identifier.contains(['/', '\\']) || identifier == "." || identifier == ".." {
        return Err(IdentifierError::Path(identifier.to_owned()));
    }
    if identifier.chars().any(is_invisible) {
        return Err(IdentifierError::Invisible(identifier.to_owned()));
    }
    let encoded = utf8_percent_encode(identifier, PLAIN).to_string();
    let name = match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    };
    if name.len() > FOLDER_NAME_MAX {
        return Err(IdentifierError::TooLong(name.len()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::{EventBuilder, FinalizeEvent, Tag};
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_coordinate_survives_colons_in_the_identifier() {
        let owner = nostr::prelude::Keys::generate().public_key();
        let coordinate = Coordinate::new(owner, "a:b c/ü");
        assert_eq!(coordinate.to_string().parse(), Ok(coordinate.clone()));
        let keys = nostr::prelude::Keys::generate();
        let [named, other] = [coordinate.to_string(), format!("30618:{}:", owner.to_hex())];
        let tags = [&*named, &other, "30617:nokey:d", "x:", ""].map(|text| Tag::custom("a", [text]));
        let event = EventBuilder::new(Kind::EventDeletion, "").tags(tags).finalize(&keys).unwrap();
        let addressed: Vec<_> = addressed(&event).collect();
        assert_eq!(addressed, [(Kind::GitRepoAnnouncement, owner, "a:b c/ü"), (Kind::RepoState, owner, "")]);
        assert!("30617:nokey:d".parse::<Coordinate>().is_err());
        assert!("30618:x".parse::<Coordinate>().is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a\u{202e}b", "a\nb", "a\0b"] {
            assert!(folder_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(folder_name(&"x".repeat(300)), Err(IdentifierError::TooLong(300)));
        assert_eq!(folder_name(".hidden").unwrap(), "%2Ehidden");
        assert_eq!(folder_name("Grüße an alle").unwrap(), "Gr%C3%BC%C3%9Fe%20an%20alle");
    }

    proptest! {
        #[test]
        fn folder_names_are_safe_and_tell_identifiers_apart(identifier in "\\PC{0,60}") {
            if let Ok(name) = folder_name(&identifier) {
                prop_assert!(!name.contains('/') && !name.starts_with('.') && name.is_ascii());
                prop_assert_eq!(percent_decode_str(&name).decode_utf8().unwrap(), identifier);
            }
        }
    }
}
