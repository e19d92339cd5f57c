//! Who an announcement says may speak for the repository: `M`, `m`, `o` and the older `maintainers` tag.
//!
//! NIP-34 role tags are `["M"|"m"|"o", <pubkey>, <start>, <end>, …]`: alternating Unix seconds. An entry is
//! active when it has no times or ends on a start. The letter `M` names the lead, `m` a co-maintainer, `o` a
//! moderator, who has no authority over the state.

use std::collections::BTreeSet;

use nostr::prelude::{Event, PublicKey};

/// What one announcement says about maintainers, as of now; ended and malformed entries are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Active leads, the author included when it names itself.
    pub leads: BTreeSet<PublicKey>,
    /// Everyone listed as a maintainer in either form, the author left out.
    pub listed: BTreeSet<PublicKey>,
    /// Whether the author claims a role. An ended entry about oneself means the author has left.
    pub author_active: bool,
}

impl Roles {
    /// Reads the role tags of an announcement (kind 30617).
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let mut leads = BTreeSet::new();
        let mut active = BTreeSet::new();
        let mut legacy = BTreeSet::new();
        let (mut has_role_tags, mut author_is_named) = (false, false);
        for tag in event.tags.iter() {
            match tag.as_slice() {
                [name, keys @ ..] if name == "maintainers" => {
                    legacy.extend(keys.iter().filter_map(|key| PublicKey::from_hex(key).ok()));
                }
                [letter, rest @ ..] if matches!(letter.as_str(), "M" | "m" | "o") => {
                    has_role_tags = true;
                    let Some((Ok(key), times)) =
                        rest.split_first().map(|(key, times)| (PublicKey::from_hex(key), times))
                    else {
                        continue;
                    };
                    author_is_named |= key == event.pubkey;
                    if letter != "o" && is_active(times) {
                        active.insert(key);
                        if letter == "M" {
                            leads.insert(key);
                        }
                    }
                }
                _ => {}
            }
        }
        let author_active = !author_is_named || active.contains(&event.pubkey);
        // The role tags replace the deprecated `maintainers` tag wherever there is one.
        let mut listed = if has_role_tags { active } else { legacy };
        listed.remove(&event.pubkey);
        Self { leads, listed, author_active }
    }
}

/// Whether a role with these boundaries holds today. `defer` may only stand for the last end.
fn is_active(boundaries: &[String]) -> bool {
    let last = boundaries.len().saturating_sub(1);
    let well_formed = boundaries.iter().enumerate().all(|(index, boundary)| {
        if boundary == "defer" { index % 2 == 1 && index == last } else { boundary.parse::<u64>().is_ok() }
    });
    well_formed && (boundaries.is_empty() || boundaries.len() % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::is_active;

    #[test]
    fn a_role_holds_while_its_last_boundary_is_a_start() {
        let active = |times: &[&str]| is_active(&times.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert!(active(&[]));
        assert!(active(&["100"]));
        assert!(active(&["100", "200", "300"]));
        assert!(!active(&["100", "200"]));
        assert!(!active(&["100", "defer"]));
        assert!(!active(&["defer"]));
        assert!(!active(&["soon"]));
    }
}
