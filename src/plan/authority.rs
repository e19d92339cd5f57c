//! Who may sign a repository's state: only *confirmed* maintainers.
//!
//! Being listed is an invitation. It becomes membership when the invited author's own announcement of the same
//! `d` lists a confirmed maintainer back; the set is the fixpoint of that rule, grown from one root. The root
//! is the selected announcement's author, or the lead that active `M` entries point to. A path of leads that
//! is missing, ambiguous or circular gives nobody authority, as on the servers (NIP-34).

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::PublicKey;

use crate::model::announcement::Announcement;

/// The newest announcement of every author who announced one `d`.
pub type Family<'a> = BTreeMap<PublicKey, &'a Announcement>;

/// Who speaks for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Where the walk started: the lead, or the selected author where nobody leads.
    pub root: PublicKey,
    /// Everyone whose state counts, the root included.
    pub confirmed: BTreeSet<PublicKey>,
    /// Listed, but their own announcement does not list a confirmed maintainer back (yet).
    pub invited: BTreeSet<PublicKey>,
}

/// Why nobody speaks for a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// There is no announcement to start from.
    #[error("no announcement by {0}")]
    NoAnnouncement(PublicKey),
    /// The selected author's own entry has ended and nobody leads.
    #[error("the author {0} has left the repository")]
    AuthorLeft(PublicKey),
    /// The lead's announcement names no lead itself, or is not known.
    #[error("the lead {0} has no announcement that names a lead")]
    LeadUnknown(PublicKey),
    /// Several leads at once.
    #[error("the announcement by {0} names several leads")]
    SeveralLeads(PublicKey),
    /// Leads that point at each other.
    #[error("the leads point in a circle through {0}")]
    LeadCircle(PublicKey),
}

/// Resolves who may sign the state of the repository that `selected` announced.
///
/// # Errors
///
/// [`AuthorityError`] says where the path to the root broke; then no state is to be followed.
pub fn resolve(selected: PublicKey, family: &Family<'_>) -> Result<Authority, AuthorityError> {
    let root = root_of(selected, family)?;
    let mut confirmed = BTreeSet::from([root]);
    loop {
        let listed: BTreeSet<PublicKey> = confirmed
            .iter()
            .filter_map(|member| family.get(member))
            .flat_map(|announcement| announcement.roles.listed.iter().copied())
            .filter(|key| !confirmed.contains(key))
            .collect();
        let newcomers: Vec<PublicKey> =
            listed.iter().copied().filter(|key| lists_back(key, &confirmed, family)).collect();
        if newcomers.is_empty() {
            let invited = listed
                .into_iter()
                .filter(|key| family.get(key).is_none_or(|announcement| announcement.roles.author_active))
                .collect();
            return Ok(Authority { root, confirmed, invited });
        }
        confirmed.extend(newcomers);
    }
}

fn lists_back(candidate: &PublicKey, confirmed: &BTreeSet<PublicKey>, family: &Family<'_>) -> bool {
    family.get(candidate).is_some_and(|announcement| {
        announcement.roles.author_active && !announcement.roles.listed.is_disjoint(confirmed)
    })
}

fn root_of(selected: PublicKey, family: &Family<'_>) -> Result<PublicKey, AuthorityError> {
    let mut at = selected;
    let mut visited = BTreeSet::new();
    loop {
        if !visited.insert(at) {
            return Err(AuthorityError::LeadCircle(at));
        }
        let followed_a_lead = visited.len() > 1;
        let Some(announcement) = family.get(&at) else {
            return Err(if followed_a_lead {
                AuthorityError::LeadUnknown(at)
            } else {
                AuthorityError::NoAnnouncement(at)
            });
        };
        let mut leads = announcement.roles.leads.iter();
        match (leads.next(), leads.next()) {
            (Some(lead), None) if *lead == at => return Ok(at),
            (Some(lead), None) => at = *lead,
            (Some(_), Some(_)) => return Err(AuthorityError::SeveralLeads(at)),
            (None, _) if followed_a_lead => return Err(AuthorityError::LeadUnknown(at)),
            (None, _) if announcement.roles.author_active => return Ok(at),
            (None, _) => return Err(AuthorityError::AuthorLeft(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use nostr::prelude::{EventBuilder, FinalizeEvent, Keys, Kind, Tag};
    use proptest::prelude::*;

    use super::*;

    /// An announcement of `d` by `keys` with the given role tags.
    fn announce(keys: &Keys, tags: &[Vec<String>]) -> Announcement {
        let event = EventBuilder::new(Kind::GitRepoAnnouncement, "")
            .tag(Tag::identifier("d"))
            .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
            .finalize(keys)
            .unwrap();
        Announcement::read(event).unwrap()
    }

    fn role(letter: &str, key: &Keys, times: &[&str]) -> Vec<String> {
        let mut tag = vec![letter.to_owned(), key.public_key().to_hex()];
        tag.extend(times.iter().map(|time| (*time).to_owned()));
        tag
    }

    fn of(selected: &Keys, announcements: &[Announcement]) -> Result<BTreeSet<PublicKey>, AuthorityError> {
        let family = announcements.iter().map(|a| (a.author(), a)).collect();
        resolve(selected.public_key(), &family).map(|authority| authority.confirmed)
    }

    fn set(keys: &[&Keys]) -> BTreeSet<PublicKey> {
        keys.iter().map(|keys| keys.public_key()).collect()
    }

    #[test]
    fn an_invitation_counts_only_when_it_is_returned() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let invites = announce(&alice, &[role("maintainers", &bob, &[])]);
        assert_eq!(of(&alice, std::slice::from_ref(&invites)), Ok(set(&[&alice])));
        let silent = announce(&bob, &[]);
        assert_eq!(of(&alice, &[invites.clone(), silent]), Ok(set(&[&alice])));
        let accepts = announce(&bob, &[role("maintainers", &alice, &[])]);
        assert_eq!(of(&alice, &[invites, accepts]), Ok(set(&[&alice, &bob])));
    }

    #[test]
    fn membership_reaches_along_a_chain_but_not_into_a_stranger_clique() {
        let [alice, bob, carol, eve, mallory] = [(); 5].map(|()| Keys::generate());
        let all = [
            announce(&alice, &[role("m", &bob, &[])]),
            announce(&bob, &[role("m", &alice, &[]), role("m", &carol, &[])]),
            announce(&carol, &[role("m", &bob, &[])]),
            announce(&eve, &[role("m", &mallory, &[]), role("m", &alice, &[])]),
            announce(&mallory, &[role("m", &eve, &[])]),
        ];
        assert_eq!(of(&alice, &all), Ok(set(&[&alice, &bob, &carol])));
    }

    #[test]
    fn ended_roles_grant_nothing_and_who_left_has_left() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        let ended = announce(&alice, &[role("m", &bob, &["1", "2"])]);
        let accepts = announce(&bob, &[role("m", &alice, &[])]);
        assert_eq!(of(&alice, &[ended, accepts.clone()]), Ok(set(&[&alice])));
        let invites = announce(&alice, &[role("m", &bob, &[])]);
        let left = announce(&bob, &[role("m", &alice, &[]), role("m", &bob, &["1", "2"])]);
        assert_eq!(of(&alice, &[invites, left.clone()]), Ok(set(&[&alice])));
        assert_eq!(of(&bob, &[left]), Err(AuthorityError::AuthorLeft(bob.public_key())));
    }

    #[test]
    fn leads_are_followed_and_broken_paths_give_nobody_authority() {
        let (alice, bob, carol) = (Keys::generate(), Keys::generate(), Keys::generate());
        let follows = announce(&alice, &[role("M", &bob, &[])]);
        let leads = announce(&bob, &[role("M", &bob, &[]), role("m", &alice, &[])]);
        assert_eq!(of(&alice, &[follows.clone(), leads]), Ok(set(&[&alice, &bob])));
        assert_eq!(
            of(&alice, std::slice::from_ref(&follows)),
            Err(AuthorityError::LeadUnknown(bob.public_key()))
        );
        let leads_nobody = announce(&bob, &[role("m", &alice, &[])]);
        assert_eq!(
            of(&alice, &[follows.clone(), leads_nobody]),
            Err(AuthorityError::LeadUnknown(bob.public_key()))
        );
        let back = announce(&bob, &[role("M", &alice, &[])]);
        assert_eq!(of(&alice, &[follows, back]), Err(AuthorityError::LeadCircle(alice.public_key())));
        let two = announce(&alice, &[role("M", &bob, &[]), role("M", &carol, &[])]);
        assert_eq!(of(&alice, &[two]), Err(AuthorityError::SeveralLeads(alice.public_key())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the graph of listings: the set is closed, and everyone but the root is linked both ways.
        #[test]
        fn everyone_confirmed_lists_and_is_listed(edges in proptest::collection::btree_set((0..6usize, 0..6usize), 0..24)) {
            let keys: Vec<Keys> = (0..6).map(|_| Keys::generate()).collect();
            let all: Vec<Announcement> = keys.iter().enumerate().map(|(from, author)| {
                let tags: Vec<_> = edges.iter().filter(|(f, t)| *f == from && t != f)
                    .map(|(_, to)| role("m", &keys[*to], &[])).collect();
                announce(author, &tags)
            }).collect();
            let family: Family<'_> = all.iter().map(|a| (a.author(), a)).collect();
            let authority = resolve(keys[0].public_key(), &family).unwrap();
            for member in &authority.confirmed {
                if *member != authority.root {
                    prop_assert!(!family[member].roles.listed.is_disjoint(&authority.confirmed));
                    prop_assert!(authority.confirmed.iter().any(|other| family[other].roles.listed.contains(member)));
                }
            }
            prop_assert!(authority.invited.is_disjoint(&authority.confirmed));
        }
    }
}
