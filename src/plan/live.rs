//! What is listened for between cycles, and which repositories an event concerns.
//!
//! Maintainers of one repository share its identifier, and so do the copies of it; so what is touched is a family:
//! everything announced under one `d`. Whoever handles it works the family out anew from what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nostr::prelude::{Event, EventId, Filter, Kind, PublicKey, SingleLetterTag};

use super::{
    catalog::{Repository, Watched},
    conversation::points_at,
    forget::names,
    settings::SERVERS,
};
use crate::model::coordinate::{Coordinate, addressed};

/// Authors in one filter (67 bytes each).
const AUTHORS_PER_FILTER: usize = 200;

/// Coordinates in one filter (about 80 bytes each).
const COORDINATES_PER_FILTER: usize = 100;

/// Subscriptions on one connection that are left for reading.
const FOR_READING: usize = 4;

/// How much of its capacity is used at a relay that says it has more than any repository needs.
const SUBSCRIPTIONS_MAX: usize = 50;

/// A relay's own limits (`limitation`, NIP-11), as far as listening has to respect them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// `max_subscriptions`, on one connection.
    pub subscriptions: usize,
    /// `max_filters`, in one subscription.
    pub filters: usize,
    /// `max_message_length`, in bytes.
    pub message_bytes: usize,
}

/// What every relay takes that says nothing: GRASP servers take 20 filters, some relays 10.
impl Default for Room {
    fn default() -> Self {
        Self { subscriptions: 14, filters: 10, message_bytes: 64 * 1024 }
    }
}

impl Room {
    /// `filters` as subscriptions. What does not fit is left out, from the end.
    #[must_use]
    pub fn subscriptions(&self, filters: &[Filter]) -> Vec<Vec<Filter>> {
        let most = self.subscriptions.saturating_sub(FOR_READING).clamp(1, SUBSCRIPTIONS_MAX);
        let mut parts: Vec<Vec<Filter>> = Vec::new();
        let mut bytes = 0;
        for filter in filters {
            // With the comma, and the least that has to stand around the filters.
            let length = filter.as_json().len() + 1;
            let fits = bytes + length + ENVELOPE <= self.message_bytes;
            let is_last_full = parts.last().is_none_or(|part| !fits || part.len() >= self.filters);
            if is_last_full {
                if parts.len() == most {
                    break;
                }
                parts.push(Vec::new());
                bytes = 0;
            }
            parts.last_mut().into_iter().for_each(|part| part.push(filter.clone()));
            bytes += length;
        }
        parts
    }
}

/// Bytes of a `REQ` around its filters.
const ENVELOPE: usize = 80;

/// What makes a repository, and takes it away again.
const GOVERNING: [Kind; 3] = [Kind::GitRepoAnnouncement, Kind::RepoState, Kind::EventDeletion];

/// How events point at a repository.
const AT_REPOSITORY: [SingleLetterTag; 3] =
    [SingleLetterTag::LOWERCASE_A, SingleLetterTag::UPPERCASE_A, SingleLetterTag::LOWERCASE_Q];

/// Everything that makes an event concern us.
#[derive(Clone, Debug, Default)]
pub struct Concerns {
    /// Whose announcements, states and deletions count: watched authors, and whom announcements list.
    authors: BTreeSet<PublicKey>,
    /// The families in which they may speak.
    families: BTreeSet<String>,
    /// Watched authors: what they announce for the first time counts, too.
    watched: BTreeSet<PublicKey>,
    /// The family of each coordinate a conversation may point at.
    coordinates: HashMap<String, String>,
    /// The family of each event of a conversation.
    threads: HashMap<EventId, String>,
    /// The other families of the few that belong to several.
    also: HashMap<EventId, BTreeSet<String>>,
    /// Whose mute lists count: who maintains something; and whether theirs names the bot.
    mute_lists: BTreeMap<PublicKey, bool>,
    /// Whether watched authors' lists of GRASP servers count.
    server_lists: bool,
}

impl Concerns {
    /// Of these repositories, whose conversations hold `threads`, and of whatever else `watched` authors announce.
    #[must_use]
    pub fn of<'a>(
        watched: &Watched,
        repositories: impl IntoIterator<Item = (&'a Repository, &'a [EventId])>,
    ) -> Self {
        let mut all = Self { watched: watched.authors.clone(), ..Self::default() };
        all.authors.clone_from(&watched.authors);
        for coordinate in &watched.repositories {
            all.authors.insert(coordinate.owner);
            all.families.insert(coordinate.identifier.clone());
        }
        for (repository, thread) in repositories {
            let family = &repository.coordinate.identifier;
            all.families.insert(family.clone());
            for announcement in &repository.announcements {
                all.authors.insert(announcement.author());
                all.authors.extend(&announcement.roles.listed);
                all.authors.extend(&announcement.roles.leads);
                all.coordinates.insert(announcement.coordinate.to_string(), family.clone());
            }
            thread.iter().for_each(|id| all.belongs(*id, family));
        }
        all
    }

    /// Minds also the mute lists of `maintainers`; those of `muters` name the bot.
    #[must_use]
    pub fn minding_mute_lists(
        mut self,
        maintainers: impl IntoIterator<Item = PublicKey>,
        muters: &BTreeSet<PublicKey>,
    ) -> Self {
        self.mute_lists = maintainers.into_iter().map(|key| (key, muters.contains(&key))).collect();
        self
    }

    /// Minds also the watched authors' lists of GRASP servers.
    #[must_use]
    pub fn minding_server_lists(self) -> Self {
        Self { server_lists: true, ..self }
    }

    /// Whether `event` is such a list.
    #[must_use]
    pub fn is_server_list(&self, event: &Event) -> bool {
        self.server_lists && event.kind == SERVERS && self.watched.contains(&event.pubkey)
    }

    /// Whether `event` is a mute list by which a maintainer wants the `bot` to leave their repositories alone, or not to
    /// do so any more.
    #[must_use]
    pub fn is_change_of_mind(&self, event: &Event, bot: &PublicKey) -> bool {
        let known = self.mute_lists.get(&event.pubkey).filter(|_| event.kind == Kind::MuteList);
        known.is_some_and(|known| *known != names(event, bot))
    }

    /// Remembers what a mute list says.
    pub fn note_mute_list(&mut self, event: &Event, bot: &PublicKey) {
        if let Some(known) = self.mute_lists.get_mut(&event.pubkey) {
            *known = names(event, bot);
        }
    }

    /// Remembers that `event` belongs to the conversations of `families`, so that answers to it do, too.
    pub fn note(&mut self, event: &Event, families: &BTreeSet<String>) {
        if !GOVERNING.contains(&event.kind) {
            families.iter().for_each(|family| self.belongs(event.id, family));
        }
    }

    fn belongs(&mut self, id: EventId, family: &str) {
        let first = self.threads.entry(id).or_insert_with(|| family.to_owned());
        if first != family {
            self.also.entry(id).or_default().insert(family.to_owned());
        }
    }

    /// The families that `event` changes; none when it is none of our business.
    #[must_use]
    pub fn touched_by(&self, event: &Event) -> BTreeSet<String> {
        match event.kind {
            Kind::GitRepoAnnouncement | Kind::RepoState => self.overtaken_by(event),
            _ => self.pointed_at(event).chain(self.overtaken_by(event)).collect(),
        }
    }

    /// The families that `event` changes by a maintainer's word, so that work on what was signed before is in vain.
    #[must_use]
    pub fn overtaken_by(&self, event: &Event) -> BTreeSet<String> {
        match event.kind {
            Kind::GitRepoAnnouncement | Kind::RepoState => {
                let Some(family) = event.tags.identifier() else { return BTreeSet::new() };
                let ours = self.watched.contains(&event.pubkey)
                    || self.families.contains(&*family) && self.authors.contains(&event.pubkey);
                if ours { BTreeSet::from([family.to_string()]) } else { BTreeSet::new() }
            }
            Kind::EventDeletion => self.deleted(event).collect(),
            _ => BTreeSet::new(),
        }
    }

    fn pointed_at<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = String> + 'a {
        points_at(event).flat_map(|target| {
            let id = EventId::from_hex(target).ok();
            let also = id.and_then(|id| self.also.get(&id)).into_iter().flatten();
            let thread = id.and_then(|id| self.threads.get(&id));
            self.coordinates.get(target).into_iter().chain(thread).chain(also).cloned()
        })
    }

    /// An author may take back what makes a repository (NIP-09), by its coordinate; of what is taken back by its id
    /// alone nobody knows here what it was, so everything of the author's is looked at.
    fn deleted<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = String> + 'a {
        let by_id = event.tags.event_ids().next().is_some() && self.authors.contains(&event.pubkey);
        let own = self.coordinates.iter().filter(move |(coordinate, _)| {
            by_id && coordinate.parse::<Coordinate>().is_ok_and(|coordinate| coordinate.owner == event.pubkey)
        });
        let named = addressed(event)
            .filter(|(_, author, name)| *author == event.pubkey && self.families.contains(*name));
        own.map(|(_, family)| family.clone()).chain(named.map(|(.., name)| name.to_owned()))
    }

    /// What to ask an ordinary relay for, the most important first: of what finds no room there, cycles hear.
    #[must_use]
    pub fn filters(&self) -> Vec<Filter> {
        let authors: Vec<PublicKey> = self.authors.iter().copied().collect();
        let governing = authors
            .chunks(AUTHORS_PER_FILTER)
            .map(|some| Filter::new().kinds(GOVERNING).authors(some.iter().copied()));
        let sorted: BTreeMap<&String, &String> = self.coordinates.iter().collect();
        let coordinates: Vec<&String> = sorted.into_keys().collect();
        let pointing = coordinates.chunks(COORDINATES_PER_FILTER).flat_map(|some| {
            AT_REPOSITORY.map(|tag| Filter::new().custom_tags(tag, some.iter().copied().cloned()))
        });
        let maintainers: Vec<PublicKey> = self.mute_lists.keys().copied().collect();
        let mute_lists = maintainers
            .chunks(AUTHORS_PER_FILTER)
            .map(|some| Filter::new().kind(Kind::MuteList).authors(some.iter().copied()));
        let watched: Vec<PublicKey> =
            if self.server_lists { self.watched.iter().copied().collect() } else { Vec::new() };
        let server_lists = watched
            .chunks(AUTHORS_PER_FILTER)
            .map(|some| Filter::new().kind(SERVERS).authors(some.iter().copied()));
        governing.chain(mute_lists).chain(pointing).chain(server_lists).collect()
    }

    /// What to ask a GRASP server for: everything new. It holds nothing but repositories and what is said around them,
    /// and answers to answers can be told only by who knows the thread.
    #[must_use]
    pub fn of_a_server() -> Filter {
        Filter::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;

    use super::{super::testing::event, *};

    #[test]
    fn a_mute_list_counts_when_a_maintainer_changes_their_mind() {
        let [bot, content, muter, stranger] = [(); 4].map(|()| Keys::generate());
        let (hex, bot) = (bot.public_key().to_hex(), bot.public_key());
        let maintainers = [content.public_key(), muter.public_key()];
        let muters = BTreeSet::from([muter.public_key()]);
        let mut concerns = Concerns::default().minding_mute_lists(maintainers, &muters);
        let mutes = |by: &Keys| event(by, 10000, 5, &[&["p", &hex]]);
        let mutes_others = |by: &Keys| event(by, 10000, 5, &[&["t", "spam"]]);
        let is_news = |concerns: &Concerns, event: &Event| concerns.is_change_of_mind(event, &bot);
        assert!(is_news(&concerns, &mutes(&content)) && !is_news(&concerns, &mutes_others(&content)));
        assert!(!is_news(&concerns, &mutes(&muter)) && is_news(&concerns, &mutes_others(&muter)));
        assert!(!is_news(&concerns, &mutes(&stranger)));
        assert!(!is_news(&concerns, &event(&content, 3, 5, &[&["p", &hex]])), "no mute list");
        concerns.note_mute_list(&mutes(&content), &bot);
        concerns.note_mute_list(&mutes(&stranger), &bot);
        assert!(!is_news(&concerns, &mutes(&content)) && is_news(&concerns, &mutes_others(&content)));
        assert!(!is_news(&concerns, &mutes(&stranger)), "strangers are not remembered");
        let asked = concerns.filters();
        let lists = asked.iter().find(|filter| filter.kinds.iter().flatten().eq([&Kind::MuteList])).unwrap();
        assert_eq!(lists.authors.as_ref().unwrap(), &BTreeSet::from(maintainers));
    }

    #[test]
    fn what_is_asked_for_fits_into_what_a_relay_takes() {
        let keys = Keys::generate();
        let filters: Vec<Filter> = (0..100)
            .map(|number| Filter::new().author(keys.public_key()).identifier(format!("{number:03}")))
            .collect();
        let one = filters[0].as_json().len();
        let shape = |room: Room| room.subscriptions(&filters).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(shape(Room::default()), [10; 10]);
        assert_eq!(shape(Room { subscriptions: 7, ..Room::default() }), [10; 3], "some are left for reading");
        assert_eq!(
            shape(Room { subscriptions: 0, filters: 0, ..Room::default() }),
            [1],
            "one is always tried"
        );
        assert_eq!(
            shape(Room { subscriptions: 1_000, filters: 1, ..Room::default() }),
            [1; SUBSCRIPTIONS_MAX]
        );
        let narrow = Room { message_bytes: ENVELOPE + 3 * (one + 1), ..Room::default() };
        assert_eq!(shape(narrow), [3; 10]);
        assert_eq!(narrow.subscriptions(&filters).concat(), filters[..30], "the first ones, in order");
        let part = narrow.subscriptions(&filters).swap_remove(0);
        let request = nostr::prelude::ClientMessage::req(nostr::prelude::SubscriptionId::generate(), part);
        assert!(request.as_json().len() <= narrow.message_bytes);
        assert_eq!(Room::default().subscriptions(&[]), Vec::<Vec<Filter>>::new());
    }
}
