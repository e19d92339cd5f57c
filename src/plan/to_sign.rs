//! What is to be signed next for a repository with a maintainer's key: what [`signing`](super::signing) asks for, and
//! [`permit`](super::permit) lets through.

use std::collections::BTreeSet;

use nostr::prelude::{PublicKey, Timestamp};

use super::{
    catalog::Repository,
    per_server::{Mirrors, Places},
    permit::{Forbidden, Permitted, Purpose, permit},
    signing::{Signing, amended, said_again, signable},
};
use crate::model::{announcement::Announcement, server::ServerUrl};

/// Events that one maintainer is to sign together.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// Whose signature.
    pub by: PublicKey,
    /// The announcement, where it is to list more, and the state, where it is to be said again; in this order.
    pub events: Vec<Permitted>,
    /// The servers that the announcement lists more than before.
    pub servers: BTreeSet<ServerUrl>,
    /// All that it lists then.
    pub listed: BTreeSet<ServerUrl>,
    /// Those for which the state is said again.
    pub given_back: BTreeSet<ServerUrl>,
    /// The server that has to take the announcement before anybody else sees it.
    pub first_shown_to: Option<ServerUrl>,
}

/// What is to be signed next with one of `keys`, where the mirrors belong to `places` and stand as `mirrors`. Servers that
/// hold a copy come first; while there are none, one that refuses the copy is shown the announcement that lists it.
///
/// `afresh` says whether somebody wants everything looked at anew.
///
/// # Errors
///
/// The rule that forbids it.
pub fn to_sign(
    repository: &Repository,
    signing: &Signing,
    keys: &BTreeSet<PublicKey>,
    places: &Places,
    mirrors: &Mirrors,
    afresh: bool,
    now: Timestamp,
) -> Result<Option<ToSign>, Forbidden> {
    let Some(said) = signable(repository, keys).filter(|_| repository.obstacle.is_none()) else {
        return Ok(None);
    };
    let state = repository.state_id();
    let mut servers = signing.to_be_listed(places, mirrors);
    let given_back = signing.to_be_given_back(state, places, mirrors, afresh, now);
    let mut events = listing(repository, said, &servers, &given_back, places)?;
    let mut first_shown_to = None;
    if events.is_empty() {
        first_shown_to = signing.to_be_shown(repository, places, mirrors, afresh, now);
        servers = first_shown_to.iter().cloned().collect();
        let announcement = amended(said, &servers);
        let announcement = announcement.map(|event| permit(event, repository, &Purpose::List(&servers)));
        events.extend(announcement.transpose()?);
    }
    if events.is_empty() {
        return Ok(None);
    }
    let listed = servers.iter().cloned().chain(said.servers()).collect();
    Ok(Some(ToSign { by: said.author(), events, servers, listed, given_back, first_shown_to }))
}

/// What is to be signed by the author of `said`, so that `servers` are listed there, and every path has its refs, also those
/// on servers to which the state is `given_back`: all of it, or nothing.
fn listing(
    repository: &Repository,
    said: &Announcement,
    servers: &BTreeSet<ServerUrl>,
    given_back: &BTreeSet<ServerUrl>,
    places: &Places,
) -> Result<Vec<Permitted>, Forbidden> {
    let announcement = amended(said, servers);
    // It has the maintainers' state already, where the copy has their name, and would leave the path empty.
    let has_state = |server| {
        places.get(server).is_some_and(|place| place.path.identifier == repository.coordinate.identifier)
    };
    let demanded = announcement.is_some() && servers.iter().any(has_state) || !given_back.is_empty();
    let state = said_again(repository, said.author()).filter(|_| demanded);
    let wanted = [(announcement, Purpose::List(servers)), (state, Purpose::GiveBack)];
    let wanted = wanted.into_iter().filter_map(|(event, purpose)| Some((event?, purpose)));
    wanted.map(|(event, purpose)| permit(event, repository, &purpose)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::{Keys, Kind};

    use super::{
        super::{
            placement::Place,
            record::MirrorRecord,
            testing::{catalogued, event, server},
        },
        *,
    };
    use crate::model::{coordinate::Coordinate, placement::Placement, status::MirrorStatus};

    #[test]
    fn who_holds_a_copy_is_listed_first_and_then_who_refuses_it_is_shown_the_list() {
        let (owner, bot) = (Keys::generate(), Keys::generate().public_key());
        let (listed, clone) = (server("a"), server("a").clone_url(&owner.public_key(), "d"));
        let (clone, relays) = (["clone", clone.as_str()], ["relays", &listed.to_string()]);
        let repository = catalogued(
            &owner,
            &[
                event(&owner, 30617, 10, &[&["d", "d"], &clone, &relays]),
                event(&owner, 30618, 10, &[&["d", "d"], &["refs/heads/main", &"a".repeat(40)]]),
            ],
        );
        let place = |name: &str| Place {
            placement: Placement::Namespace,
            path: Coordinate::new(bot, name),
            takes_pushes: true,
            own: true,
        };
        let places: Places =
            [(server("b"), place("d")), (server("c"), place("d-2")), (server("e"), place("d"))].into();
        let mirrors = |statuses: [MirrorStatus; 3]| -> Mirrors {
            let all = places.keys().cloned().zip(statuses.map(MirrorRecord::sample));
            all.collect()
        };
        let mut signing = Signing::default();
        let keys = BTreeSet::from([owner.public_key()]);
        let next = |signing: &Signing, keys: &BTreeSet<PublicKey>, statuses| {
            let now = Timestamp::from_secs(500);
            to_sign(&repository, signing, keys, &places, &mirrors(statuses), false, now).unwrap()
        };
        let kinds = |next: &ToSign| next.events.iter().map(|one| one.event().kind).collect::<Vec<_>>();

        let (good, no) = (MirrorStatus::InSync, MirrorStatus::Refused);
        assert!(next(&signing, &BTreeSet::from([bot]), [good; 3]).is_none(), "no maintainer's key");
        let first = next(&signing, &keys, [good, good, no]).unwrap();
        assert_eq!((first.by, &first.first_shown_to), (owner.public_key(), &None));
        assert_eq!(first.servers, [server("b"), server("c")].into());
        assert_eq!(first.listed, [server("a"), server("b"), server("c")].into());
        // The copy on b has the owner's name.
        assert_eq!(kinds(&first), [Kind::GitRepoAnnouncement, Kind::RepoState]);
        let other_name = next(&signing, &keys, [MirrorStatus::Failing, good, no]).unwrap();
        assert_eq!(kinds(&other_name), [Kind::GitRepoAnnouncement]);

        let shown = next(&signing, &keys, [MirrorStatus::Failing, MirrorStatus::Failing, no]).unwrap();
        assert_eq!(shown.first_shown_to, Some(server("e")));
        assert_eq!((kinds(&shown), shown.servers), (vec![Kind::GitRepoAnnouncement], [server("e")].into()));
        signing.decline(&server("e"), "no", Timestamp::from_secs(400));
        assert!(next(&signing, &keys, [MirrorStatus::Failing, MirrorStatus::Failing, no]).is_none());
    }
}
