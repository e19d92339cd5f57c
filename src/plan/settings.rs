//! What the bot is told to do, as its own events say it: the git authors it follows (kind 10017, NIP-51), single
//! repositories (10018, NIP-51), the servers it mirrors to (10317, NIP-34), and the little that no standard list
//! holds ([`Told`] and the rules that were made by message, kind 30078).
//!
//! The operator's configuration seeds a list that does not exist yet, and adds what was written there since; it
//! never takes anything away. Whoever has the bot's key may sign a newer list with any client.

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use nostr::prelude::{Event, Kind, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{catalog::Watched, forget::Wishes};
use crate::model::{coordinate::npub, draft::Draft, policy::Said, replace::wins, server::ServerUrl};

/// Git authors: whose repositories are mirrored (NIP-51, `p` tags).
pub const AUTHORS: Kind = Kind::Custom(10017);

/// Git repositories: single ones that are mirrored (NIP-51, `a` tags).
pub const REPOSITORIES: Kind = Kind::Custom(10018);

/// GRASP servers that are mirrored to (NIP-34, `g` tags).
pub const SERVERS: Kind = Kind::GitUserGraspList;

/// The lists that are settings.
pub const LISTS: [Kind; 3] = [AUTHORS, REPOSITORIES, SERVERS];

/// The `d` of the event (kind 30078) that holds [`Told`], encrypted to the bot itself (NIP-44).
pub const TOLD_IDENTIFIER: &str = "grasp-mirror/settings";

/// The `d` of the event (kind 30078) that holds the rules made by message ([`Said`]), encrypted in the same way.
pub const POLICY_IDENTIFIER: &str = "grasp-mirror/policy";

/// What the bot does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What it mirrors.
    pub watched: Watched,
    /// Where to.
    pub servers: BTreeSet<ServerUrl>,
    /// Whether it writes nothing to any server until it is told to resume.
    pub paused: bool,
    /// What it was told to allow and deny.
    pub said: Said,
}

impl Settings {
    /// Whether `after` leaves out something that is mirrored by these, or a server that is mirrored to.
    #[must_use]
    pub fn loses_by(&self, after: &Self) -> bool {
        self.watched.loses_by(&after.watched)
            || !self.servers.is_subset(&after.servers)
            || self.said.loses_by(&after.said)
    }
}

/// What no standard list holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whether writing is paused.
    #[serde(default)]
    pub paused: bool,
    /// What is left alone.
    #[serde(default, skip_serializing_if = "Wishes::is_empty")]
    pub forgotten: Wishes,
    /// What the operator's configuration said when it was last looked at.
    #[serde(default)]
    pub seeds: Seeds,
}

/// What the operator's configuration says about the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeds {
    /// `MIRROR_NPUBS`.
    #[serde(default)]
    pub authors: BTreeSet<PublicKey>,
    /// `[servers] known`, where the operator wrote it.
    #[serde(default)]
    pub servers: BTreeSet<ServerUrl>,
    /// The servers of a configuration that names none: they make a first list, and are added to no other.
    #[serde(skip)]
    pub default_servers: BTreeSet<ServerUrl>,
}

/// The bot's own lists, as they stand.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    authors: Option<Event>,
    repositories: Option<Event>,
    servers: Option<Event>,
}

/// What follows from lists and configuration.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What the bot does.
    pub settings: Settings,
    /// What is to be remembered of the configuration.
    pub told: Told,
    /// What the configuration changed, one line each, for the log.
    pub notes: Vec<String>,
}

impl Lists {
    /// The newest list of each kind among the bot's own `events` (NIP-01: ties go to the lower id).
    #[must_use]
    pub fn newest(events: impl IntoIterator<Item = Event>) -> Self {
        let mut lists = Self::default();
        for event in events {
            if let Some(slot) = lists.slot(event.kind)
                && slot.as_ref().is_none_or(|known| wins(&event, known))
            {
                *slot = Some(event);
            }
        }
        lists
    }

    fn slot(&mut self, kind: Kind) -> Option<&mut Option<Event>> {
        let slots = [&mut self.authors, &mut self.repositories, &mut self.servers];
        LISTS.into_iter().zip(slots).find_map(|(list, slot)| (list == kind).then_some(slot))
    }

    /// The events themselves.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        [&self.authors, &self.repositories, &self.servers].into_iter().flatten()
    }

    /// What the bot does by these lists, what it was told to allow and deny, and the operator's configuration.
    ///
    /// `told` is what was remembered, `None` when nothing was: then a list that exists stands as it is.
    #[must_use]
    pub fn settle(&self, told: Option<&Told>, said: Said, seeds: &Seeds) -> Settled {
        let before = told.map(|told| &told.seeds);
        let mut notes = Vec::new();
        let mut note = |what: Option<String>| notes.extend(what);
        let name = "MIRROR_NPUBS";
        let listed = self.authors.as_ref().map(|list| entries(list, "p", author));
        let written = &seeds.authors;
        let authors = joined(listed, written, written, before.map(|b| &b.authors), name, npub, &mut note);
        let first = if seeds.servers.is_empty() { &seeds.default_servers } else { &seeds.servers };
        let listed = self.servers.as_ref().map(|list| entries(list, "g", parsed));
        let written = &seeds.servers;
        let before = before.map(|b| &b.servers);
        let name = "[servers] known";
        let servers = joined(listed, first, written, before, name, ServerUrl::to_string, &mut note);
        let repositories =
            self.repositories.as_ref().map(|list| entries(list, "a", parsed)).unwrap_or_default();
        let paused = told.is_some_and(|told| told.paused);
        let forgotten = told.map(|told| told.forgotten.clone()).unwrap_or_default();
        let told = Told { paused, forgotten: forgotten.clone(), seeds: seeds.clone() };
        Settled {
            settings: Settings {
                watched: Watched { authors, repositories, forgotten },
                servers,
                paused,
                said,
            },
            told,
            notes,
        }
    }

    /// The lists that have to be signed so that they say what `settings` says. Entries that are not understood,
    /// other tags and the content stay as they are.
    #[must_use]
    pub fn drafts(&self, settings: &Settings, now: Timestamp) -> Vec<Draft> {
        let Watched { authors, repositories, .. } = &settings.watched;
        let drafts = [
            draft(AUTHORS, self.authors.as_ref(), "p", authors, PublicKey::to_hex, author, now),
            draft(REPOSITORIES, self.repositories.as_ref(), "a", repositories, show, parsed, now),
            draft(SERVERS, self.servers.as_ref(), "g", &settings.servers, show, parsed, now),
        ];
        drafts.into_iter().flatten().collect()
    }
}

/// The servers that somebody's list (kind 10317) names.
#[must_use]
pub fn listed_servers(list: &Event) -> BTreeSet<ServerUrl> {
    entries(list, "g", parsed)
}

fn show<T: Display>(value: &T) -> String {
    value.to_string()
}

fn author(value: &str) -> Option<PublicKey> {
    PublicKey::from_hex(value).ok().filter(|key| key.xonly().is_ok())
}

fn parsed<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

/// What the tags called `tag` name in their second element, as far as it is understood; what follows is a hint.
fn entries<T: Ord>(list: &Event, tag: &str, read: impl Fn(&str) -> Option<T>) -> BTreeSet<T> {
    let named = list.tags.iter().filter(|entry| entry.kind() == tag).filter_map(Tag::content);
    named.filter_map(read).collect()
}

/// What holds: the list, with what the operator wrote since; or, without a list, what makes a `first` one.
fn joined<T: Ord + Clone>(
    listed: Option<BTreeSet<T>>,
    first: &BTreeSet<T>,
    written: &BTreeSet<T>,
    before: Option<&BTreeSet<T>>,
    name: &str,
    show: impl Fn(&T) -> String,
    note: &mut impl FnMut(Option<String>),
) -> BTreeSet<T> {
    let line = |what: &str, all: Vec<&T>| {
        let all: Vec<String> = all.into_iter().map(&show).collect();
        (!all.is_empty()).then(|| format!("{name}: {what} {}", all.join(", ")))
    };
    let Some(listed) = listed else {
        note(line("makes a first list of", first.iter().collect()));
        return first.clone();
    };
    let Some(before) = before else {
        let ignored = written.difference(&listed).collect();
        note(line("the bot's list exists already and is kept as it is, without", ignored));
        return listed;
    };
    let added: BTreeSet<T> =
        written.difference(before).filter(|one| !listed.contains(one)).cloned().collect();
    note(line("added", added.iter().collect()));
    let gone = before.difference(written).filter(|one| listed.contains(one)).collect();
    note(line("no longer there, but still in the bot's list:", gone));
    listed.union(&added).cloned().collect()
}

fn draft<T: Ord>(
    kind: Kind,
    existing: Option<&Event>,
    tag: &str,
    wanted: &BTreeSet<T>,
    show: impl Fn(&T) -> String,
    read: impl Fn(&str) -> Option<T>,
    now: Timestamp,
) -> Option<Draft> {
    let mut listed = BTreeSet::new();
    let mut tags: Vec<Tag> = Vec::new();
    for entry in existing.iter().flat_map(|event| event.tags.iter()) {
        let value = (entry.kind() == tag).then(|| entry.content()).flatten().and_then(&read);
        match value {
            Some(value) if !wanted.contains(&value) => {}
            Some(value) => {
                // An entry given twice stays twice: it is the other client's list, too.
                listed.insert(value);
                tags.push(entry.clone());
            }
            None => tags.push(entry.clone()),
        }
    }
    tags.extend(wanted.difference(&listed).map(|value| Tag::custom(tag, [show(value)])));
    if existing.is_none() && tags.is_empty() {
        return None;
    }
    let content = existing.map(|event| event.content.clone()).unwrap_or_default();
    Draft { kind, tags, content, created_at: now }.unless_said(existing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{
        super::testing::{event, server},
        *,
    };
    use crate::model::coordinate::Coordinate;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn key() -> PublicKey {
        Keys::generate().public_key()
    }

    fn seeds(authors: &[PublicKey], servers: &[&str]) -> Seeds {
        Seeds {
            authors: authors.iter().copied().collect(),
            servers: servers.iter().map(|name| server(name)).collect(),
            default_servers: BTreeSet::new(),
        }
    }

    fn publish(lists: &Lists, settings: &Settings, bot: &Keys) -> Lists {
        let new = lists.drafts(settings, NOW).into_iter().map(|draft| draft.sign(bot).unwrap());
        Lists::newest(lists.events().cloned().chain(new.collect::<Vec<_>>()))
    }

    #[test]
    fn the_configuration_makes_the_first_lists_and_adds_to_them_later() {
        let (bot, a, b) = (Keys::generate(), key(), key());
        let first = Lists::default().settle(None, Said::default(), &seeds(&[a], &["x"]));
        assert_eq!(first.settings.watched.authors, BTreeSet::from([a]));
        assert_eq!(first.settings.servers, BTreeSet::from([server("x")]));
        let lists = publish(&Lists::default(), &first.settings, &bot);

        // Taken off the list by a message, still in the configuration: it stays off.
        let mut settings = first.settings.clone();
        settings.watched.authors.clear();
        let lists = publish(&lists, &settings, &bot);
        let again = lists.settle(Some(&first.told), Said::default(), &seeds(&[a], &["x"]));
        assert_eq!(again.settings.watched.authors, BTreeSet::new());
        assert_eq!(again.notes, Vec::<String>::new());

        let wider = lists.settle(Some(&again.told), Said::default(), &seeds(&[a, b], &["x", "y"]));
        assert_eq!(wider.settings.watched.authors, BTreeSet::from([b]));
        assert_eq!(wider.settings.servers, BTreeSet::from([server("x"), server("y")]));
        assert_eq!(wider.notes.len(), 2, "{:?}", wider.notes);
        // Written away: nothing is taken off, and the operator hears of it.
        let lists = publish(&lists, &wider.settings, &bot);
        let fewer = lists.settle(Some(&wider.told), Said::default(), &seeds(&[], &["y"]));
        assert_eq!(fewer.settings, wider.settings);
        assert_eq!(fewer.notes.len(), 2, "{:?}", fewer.notes);
    }

    #[test]
    fn a_list_from_elsewhere_stands_on_a_blank_machine() {
        let (bot, a, b) = (Keys::generate(), key(), key());
        let elsewhere = Lists::newest([event(&bot, 10017, 5, &[&["p", &a.to_hex()]])]);
        let settled = elsewhere.settle(None, Said::default(), &seeds(&[b], &[]));
        assert_eq!(settled.settings.watched.authors, BTreeSet::from([a]));
        assert!(settled.notes[0].contains("kept as it is"), "{:?}", settled.notes);
    }

    #[test]
    fn default_servers_make_a_first_list_and_are_added_to_no_other() {
        let bot = Keys::generate();
        let default = Seeds { default_servers: BTreeSet::from([server("d")]), ..Seeds::default() };
        let first = Lists::default().settle(None, Said::default(), &default);
        assert_eq!(first.settings.servers, BTreeSet::from([server("d")]));
        let listed = Lists::newest([event(&bot, 10317, 5, &[&["g", "wss://own.example/"]])]);
        let settled = listed.settle(Some(&Told::default()), Said::default(), &default);
        assert_eq!(settled.settings.servers, BTreeSet::from([server("own")]));
        // An address written otherwise is the same server: nothing to sign.
        assert_eq!(listed.drafts(&settled.settings, NOW), []);
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let (bot, a) = (Keys::generate(), key());
        let (hex, odd) = (a.to_hex(), "0".repeat(64));
        let tags: [&[&str]; 4] =
            [&["p", &odd], &["p", &hex, "wss://hint.example", "name"], &["title", "mine"], &["p"]];
        let lists = Lists::newest([event(&bot, 10017, 5, &tags)]);
        let mut settings = lists.settle(None, Said::default(), &Seeds::default()).settings;
        assert_eq!(settings.watched.authors, BTreeSet::from([a]));
        let b = key();
        settings.watched.authors.insert(b);
        let draft = lists.drafts(&settings, NOW).remove(0);
        assert_eq!(draft.tags[..4], tags.map(|tag| Tag::parse(tag.iter().copied()).unwrap()));
        assert_eq!(draft.tags[4], Tag::custom("p", [b.to_hex()]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever is on the lists and wanted: what is signed then says it, and there is nothing more to sign.
        #[test]
        fn what_is_signed_says_what_is_wanted(listed in 0..16_u8, wanted in 0..16_u8, at in 0..2_000_000_000_u64) {
            let bot = Keys::generate();
            let keys: Vec<PublicKey> = (0..4).map(|_| key()).collect();
            let some = |bits: u8| keys.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, key)| *key);
            let settings = |bits: u8| Settings {
                watched: Watched {
                    authors: some(bits).collect(),
                    repositories: some(bits).map(|owner| Coordinate::new(owner, "d: 1")).collect(),
                    ..Watched::default()
                },
                servers: some(bits).map(|key| server(key.to_hex().split_at(8).0)).collect(),
                paused: false,
                said: Said::default(),
            };
            let before = Lists::default().drafts(&settings(listed), Timestamp::from_secs(at));
            let before = Lists::newest(before.into_iter().map(|draft| draft.sign(&bot).unwrap()));
            let after = publish(&before, &settings(wanted), &bot);
            prop_assert_eq!(after.settle(None, Said::default(), &Seeds::default()).settings, settings(wanted));
            prop_assert_eq!(after.drafts(&settings(wanted), NOW), []);
        }
    }
}
