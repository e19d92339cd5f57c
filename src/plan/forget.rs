//! Repositories that are left alone because their maintainers want it so: by message, or by a mute list that names the
//! bot (kind 10000, NIP-51). Whoever may command the bot may say so by message, too, but not take it back from a
//! maintainer.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::forget::Forgotten;
use nostr::prelude::{Event, EventId, Kind, PublicKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::catalog::Repository;
use crate::model::{
    announcement::Announcement,
    coordinate::{Coordinate, npub},
    draft::Draft,
    replace::wins,
};

/// As much as is remembered by message, in bytes: it goes into one event, encrypted, and relays take 64 KiB.
const MAX_BYTES: usize = 30_000;

/// What a wish takes beside its coordinate, in bytes.
const WISH_BYTES: usize = 130;

/// Who said that a repository is to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Who.
    pub by: PublicKey,
    /// Whether they maintained it then. If not, they may command the bot.
    pub maintainer: bool,
    /// When, Unix seconds.
    pub at: u64,
}

/// What was said by message, by the watched owner's coordinate.
pub type Wishes = BTreeMap<Coordinate, Wish>;

/// Whether `coordinate` can be remembered beside `wishes`.
#[must_use]
pub fn have_room(wishes: &Wishes, coordinate: &Coordinate) -> bool {
    let bytes = |one: &Coordinate| one.to_string().len() + WISH_BYTES;
    wishes.keys().map(bytes).sum::<usize>() + bytes(coordinate) <= MAX_BYTES
}

/// A repository that is watched and left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOut {
    /// Every confirmed maintainer's coordinate.
    pub coordinates: Vec<Coordinate>,
    /// Who maintains it.
    pub maintainers: BTreeSet<PublicKey>,
    /// What was said by message.
    pub said: Option<Wish>,
    /// The maintainer whose mute list names the bot.
    pub muted: Option<PublicKey>,
}

impl OptOut {
    /// Why, for people.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.said, &self.muted) {
            (Some(Wish { by, maintainer: true, .. }), _) => {
                format!("its maintainer {} said: forget", npub(by))
            }
            (_, Some(by)) => format!("its maintainer {} has this bot on the mute list", npub(by)),
            (Some(Wish { by, .. }), None) => format!("{} said: forget", npub(by)),
            (None, None) => "its maintainers want it so".to_owned(),
        }
    }
}

/// Whose newest mute list among `events` names `bot` in the open. What is encrypted in it nobody else can read.
#[must_use]
pub fn muters(events: &[Event], bot: &PublicKey) -> BTreeSet<PublicKey> {
    let mut newest: BTreeMap<PublicKey, &Event> = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == Kind::MuteList) {
        let known = newest.entry(event.pubkey).or_insert(event);
        if wins(event, known) {
            *known = event;
        }
    }
    newest.into_values().filter(|list| names(list, bot)).map(|list| list.pubkey).collect()
}

/// Whether a mute list names `bot` in the open.
#[must_use]
pub fn names(list: &Event, bot: &PublicKey) -> bool {
    list.tags.public_keys().any(|key| key == *bot)
}

/// Who maintains `repository`: its owner, and all whose state counts.
#[must_use]
pub fn maintainers(repository: &Repository) -> BTreeSet<PublicKey> {
    let confirmed = repository.authority.iter().flat_map(|authority| authority.confirmed.iter().copied());
    confirmed.chain([repository.coordinate.owner]).collect()
}

/// Why `repository` is left alone; `None` when it is mirrored. What is said of one maintainer's coordinate counts for
/// the others': they name the same thing.
#[must_use]
pub fn opt_out(repository: &Repository, wishes: &Wishes, muters: &BTreeSet<PublicKey>) -> Option<OptOut> {
    let maintainers = maintainers(repository);
    let coordinates = repository.coordinates();
    let said = coordinates.iter().find_map(|coordinate| wishes.get(coordinate)).copied();
    let muted = maintainers.iter().find(|key| muters.contains(*key)).copied();
    (said.is_some() || muted.is_some()).then_some(OptOut { coordinates, maintainers, said, muted })
}

/// What becomes of what was said of a repository when somebody says it again or takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to remember from now on; `None`: nothing.
    pub wish: Option<Wish>,
    /// What to answer.
    pub outcome: Forgotten,
}

/// What comes of `forget` (or of taking it back, `undo`), said by `new`, where `before` was said. `muted` names the
/// maintainer whose mute list names the bot, `room` says whether one more can be remembered.
#[must_use]
pub fn decide(before: Option<Wish>, new: Wish, undo: bool, muted: Option<PublicKey>, room: bool) -> Decision {
    match (before, undo) {
        (None, false) if !room => Decision { wish: None, outcome: Forgotten::TooMany },
        (None, false) => Decision { wish: Some(new), outcome: Forgotten::Now { paused: false } },
        // A maintainer's word is harder to take back.
        (Some(old), false) if new.maintainer && !old.maintainer => {
            Decision { wish: Some(new), outcome: Forgotten::Already }
        }
        (Some(old), false) => Decision { wish: Some(old), outcome: Forgotten::Already },
        (Some(old), true) if old.maintainer && !new.maintainer => {
            Decision { wish: Some(old), outcome: Forgotten::Theirs(old.by) }
        }
        (Some(_), true) => {
            Decision { wish: None, outcome: muted.map_or(Forgotten::Undone, Forgotten::Muted) }
        }
        (None, true) => Decision { wish: None, outcome: muted.map_or(Forgotten::Never, Forgotten::Muted) },
    }
}

/// Whether the bot's own `announcement` is of a repository that goes by one of `coordinates`: a copy says so itself
/// (`u`); one that the bot maintains with others has the same name and lists its owner.
#[must_use]
pub fn is_of(announcement: &Announcement, coordinates: &BTreeSet<Coordinate>) -> bool {
    let name = &announcement.coordinate.identifier;
    let lists =
        |key: &PublicKey| announcement.roles.listed.contains(key) || announcement.roles.leads.contains(key);
    match &announcement.upstream {
        Some(upstream) => coordinates.contains(upstream),
        None => coordinates.iter().any(|one| one.identifier == *name && lists(&one.owner)),
    }
}

/// The deletion request (NIP-09) for the bot's own `announcement` and the `states` beside it, for all versions until
/// `now`.
#[must_use]
pub fn deletion(announcement: &Announcement, states: &[EventId], now: Timestamp) -> Draft {
    let name = announcement.coordinate.identifier.as_str();
    let events = [announcement.id()].into_iter().chain(states.iter().copied());
    let called = [Kind::GitRepoAnnouncement, Kind::RepoState].map(|kind| (kind, name));
    // A server may have it with a later date than ours.
    let created_at = now.max(announcement.created_at());
    let content = "its maintainers do not want this mirror";
    Draft::deletion(&announcement.author(), events, called, content, created_at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{super::testing::event, *};

    fn wish(by: PublicKey, maintainer: bool) -> Wish {
        Wish { by, maintainer, at: 1 }
    }

    #[test]
    fn only_the_newest_mute_list_counts_and_only_when_it_names_the_bot() {
        let bot = Keys::generate().public_key();
        let [now, once, never] = [(); 3].map(|()| Keys::generate());
        let (hex, other) = (bot.to_hex(), never.public_key().to_hex());
        let events = [
            event(&now, 10000, 5, &[&["p", &other]]),
            event(&now, 10000, 6, &[&["p", &other], &["p", &hex]]),
            event(&once, 10000, 7, &[&["t", "spam"]]),
            event(&once, 10000, 6, &[&["p", &hex]]),
            event(&never, 10000, 6, &[&["word", &hex], &["e", &hex]]),
            event(&never, 3, 6, &[&["p", &hex]]),
        ];
        assert_eq!(muters(&events, &bot), BTreeSet::from([now.public_key()]));
    }

    #[test]
    fn a_maintainers_word_is_only_theirs_to_take_back() {
        let (ada, owner) = (Keys::generate().public_key(), Keys::generate().public_key());
        let (operator, maintainer) = (wish(ada, false), wish(owner, true));
        let decided = |before, new, undo| decide(before, new, undo, None, true);
        let kept = |wish, outcome| Decision { wish, outcome };
        let now = Forgotten::Now { paused: false };
        assert_eq!(decided(None, maintainer, false), kept(Some(maintainer), now));
        assert_eq!(decided(None, operator, false), kept(Some(operator), now));
        assert_eq!(decided(Some(operator), maintainer, false), kept(Some(maintainer), Forgotten::Already));
        assert_eq!(decided(Some(maintainer), operator, false), kept(Some(maintainer), Forgotten::Already));
        assert_eq!(decided(Some(maintainer), wish(ada, true), false).wish, Some(maintainer), "said first");
        assert_eq!(decided(Some(operator), wish(owner, false), false).wish, Some(operator));
        assert_eq!(
            decided(Some(maintainer), operator, true),
            kept(Some(maintainer), Forgotten::Theirs(owner))
        );
        assert_eq!(decided(Some(maintainer), wish(ada, true), true), kept(None, Forgotten::Undone));
        assert_eq!(decided(Some(operator), operator, true), kept(None, Forgotten::Undone));
        assert_eq!(decided(None, operator, true), kept(None, Forgotten::Never));
        let muted = decide(None, operator, true, Some(owner), true);
        assert_eq!(muted, kept(None, Forgotten::Muted(owner)));
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let one = wish(Keys::generate().public_key(), true);
        assert_eq!(decide(None, one, false, None, false).outcome, Forgotten::TooMany);
        assert_eq!(decide(Some(one), one, false, None, false).wish, Some(one));
        let mut wishes = Wishes::new();
        loop {
            let next = Coordinate::new(one.by, format!("repository-{}", wishes.len()));
            if !have_room(&wishes, &next) {
                break;
            }
            wishes.insert(next, one);
        }
        assert!(wishes.len() > 100, "{}", wishes.len());
        assert!(serde_json::to_string(&wishes).unwrap().len() < MAX_BYTES + 1_000);
        assert!(!have_room(&Wishes::new(), &Coordinate::new(one.by, "d".repeat(MAX_BYTES))));
    }

    #[test]
    fn a_deletion_names_announcement_and_states_of_the_bots_own() {
        let (bot, owner) = (Keys::generate(), Keys::generate().public_key());
        let upstream = format!("30617:{}:hello", owner.to_hex());
        let tags: [&[&str]; 2] = [&["d", "hello"], &["u", &upstream]];
        let copy = Announcement::read(event(&bot, 30617, 50, &tags)).unwrap();
        let state = event(&bot, 30618, 50, &[&["d", "hello"]]);
        let draft = deletion(&copy, &[state.id], Timestamp::from_secs(40));
        let hex = bot.public_key().to_hex();
        let tags: Vec<String> = draft.tags.iter().map(|tag| tag.as_slice().join(" ")).collect();
        let expected = [
            format!("e {}", copy.id()),
            format!("e {}", state.id),
            format!("a 30617:{hex}:hello"),
            format!("a 30618:{hex}:hello"),
            "k 30617".to_owned(),
            "k 30618".to_owned(),
        ];
        assert_eq!((tags, draft.created_at.as_secs()), (expected.to_vec(), 50));
    }

    #[test]
    fn a_copy_is_known_by_what_it_says_it_is_of() {
        let (bot, owner) = (Keys::generate(), Keys::generate().public_key());
        let hex = owner.to_hex();
        let hello = BTreeSet::from([Coordinate::new(owner, "hello")]);
        let upstream = format!("30617:{hex}:hello");
        let of = |tags: &[&[&str]]| is_of(&Announcement::read(event(&bot, 30617, 5, tags)).unwrap(), &hello);
        assert!(of(&[&["d", "hello-1"], &["u", &upstream]]));
        assert!(of(&[&["d", "hello"], &["maintainers", &hex]]));
        assert!(!of(&[&["d", "other"], &["maintainers", &hex]]));
        assert!(!of(&[&["d", "hello"], &["u", "30617:0:x"], &["maintainers", &bot.public_key().to_hex()]]));
    }

    proptest! {
        /// Whatever is said in whatever order: once a maintainer has said it, nobody but a maintainer ends it.
        #[test]
        fn nobody_overrides_a_maintainer(said in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..12)) {
            let by = Keys::generate().public_key();
            let (mut stands, mut wanted_by_maintainer) = (None, false);
            for (maintainer, undo) in said {
                stands = decide(stands, wish(by, maintainer), undo, None, true).wish;
                if maintainer {
                    wanted_by_maintainer = !undo;
                }
                prop_assert!(stands.is_some() || !wanted_by_maintainer);
            }
        }
    }
}
