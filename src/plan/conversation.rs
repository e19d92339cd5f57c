//! Which events belong to a repository, and in what order a server takes them.
//!
//! Everything that points at the repository (`a`, `A`, `q` of a confirmed maintainer's coordinate) and, to the
//! end of the thread, everything that points at those (`e`, `E`, `q`). A server refuses a reply before it has
//! what is replied to, so the order is by distance from the repository, then by time.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, EventId, Kind, Timestamp};

use crate::model::{
    announcement::{first, values},
    coordinate::Coordinate,
    refs::ObjectId,
};

/// How many replies deep a thread is followed.
pub const MAX_DEPTH: usize = 64;

/// How many clone URLs of a pull request are tried. Anyone can write one, and each is waited for.
const SOURCES_MAX: usize = 8;

/// A pull request or an update of one: an event that needs a commit on the server before it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// The event (kind 1618 or 1619).
    pub id: EventId,
    /// The proposed commit (`c`).
    pub tip: ObjectId,
    /// Where it can be fetched.
    pub clone_urls: Vec<String>,
}

/// The events around one repository.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// In an order every server accepts.
    pub events: Vec<EventId>,
    /// All that was found, also what is not forwarded.
    pub thread: Vec<(EventId, Timestamp)>,
    /// Those of them that need git data.
    pub pull_requests: Vec<PullRequest>,
    /// Events that must not be forwarded: protected (NIP-70) or expired (NIP-40).
    pub kept_home: usize,
    /// Whether `max_events` cut it short.
    pub truncated: bool,
}

/// The tags by which an event points at a repository or another event.
pub fn points_at(event: &Event) -> impl Iterator<Item = &str> {
    event
        .tags
        .iter()
        .filter(|tag| matches!(tag.kind(), "a" | "A" | "q" | "e" | "E"))
        .filter_map(|tag| tag.content())
}

/// Gathers the conversation around the repository named by `roots` from `events`, `without` some events and
/// what hangs on them alone.
#[must_use]
pub fn gather(
    roots: &[Coordinate],
    events: &[Event],
    without: &BTreeSet<EventId>,
    now: Timestamp,
    max_events: usize,
) -> Conversation {
    Threads::of(events).around(roots, without, now, max_events)
}

/// Events by what they point at: made once, it serves all repositories whose conversations are among them.
#[derive(Debug)]
pub struct Threads<'a> {
    pointing: BTreeMap<&'a str, Vec<&'a Event>>,
}

impl<'a> Threads<'a> {
    /// Sorts `events`.
    #[must_use]
    pub fn of(events: &'a [Event]) -> Self {
        let mut pointing: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in events.iter().filter(|event| may_belong(event.kind)) {
            for target in points_at(event) {
                pointing.entry(target).or_default().push(event);
            }
        }
        Self { pointing }
    }

    /// As [`gather`].
    #[must_use]
    pub fn around(
        &self,
        roots: &[Coordinate],
        without: &BTreeSet<EventId>,
        now: Timestamp,
        max_events: usize,
    ) -> Conversation {
        let mut found: BTreeSet<EventId> = BTreeSet::new();
        let mut conversation = Conversation::default();
        let mut level: Vec<String> = roots.iter().map(ToString::to_string).collect();
        for _ in 0..MAX_DEPTH {
            let mut next: Vec<&Event> = level
                .iter()
                .filter_map(|target| self.pointing.get(target.as_str()))
                .flatten()
                .copied()
                .filter(|event| !without.contains(&event.id) && found.insert(event.id))
                .collect();
            if next.is_empty() {
                break;
            }
            // Deletion requests go last: what they delete must not be sent after them.
            next.sort_by_key(|event| (event.kind == Kind::EventDeletion, event.created_at, event.id));
            level = next.iter().map(|event| event.id.to_hex()).collect();
            for event in next {
                conversation.thread.push((event.id, event.created_at));
                if event.is_protected() || event.is_expired_at(now) {
                    conversation.kept_home += 1;
                    continue;
                }
                if conversation.events.len() >= max_events {
                    conversation.truncated = true;
                    return conversation;
                }
                conversation.events.push(event.id);
                conversation.pull_requests.extend(pull_request(event));
            }
        }
        conversation
    }
}

/// Kinds that may be part of a conversation: not the events that make the repository, nothing ephemeral, and
/// nothing that is somebody's letter.
fn may_belong(kind: Kind) -> bool {
    may_be_of_kind(kind.as_u16())
}

/// The same by number; lists and profiles may be, too: anything that points at a repository.
#[must_use]
pub fn may_be_of_kind(kind: u16) -> bool {
    !Kind::from(kind).is_ephemeral()
        && !matches!(kind, 30_617 | 30_618 | 30_078 | 4 | 13 | 14 | 15 | 1_059 | 1_060)
}

fn pull_request(event: &Event) -> Option<PullRequest> {
    if !matches!(event.kind, Kind::GitPullRequest | Kind::GitPullRequestUpdate) {
        return None;
    }
    let tip = ObjectId::from_hex(first(event, "c")?.as_bytes()).ok()?;
    let mut clone_urls = values(event, "clone");
    clone_urls.truncate(SOURCES_MAX);
    Some(PullRequest { id: event.id, tip, clone_urls })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{super::testing::event, *};

    #[test]
    fn a_thread_is_followed_to_its_end_and_replies_come_after() {
        let keys = Keys::generate();
        let root = Coordinate::new(keys.public_key(), "d");
        let issue = event(&keys, 1621, 50, &[&["a", &root.to_string()]]);
        // Dated before what it answers: clocks differ.
        let comment = event(&keys, 1111, 10, &[&["E", &issue.id.to_hex()], &["e", &issue.id.to_hex()]]);
        let reaction = event(&keys, 7, 5, &[&["e", &comment.id.to_hex()]]);
        let quote = event(&keys, 1, 70, &[&["q", &root.to_string()]]);
        let stranger = event(&keys, 1, 60, &[&["e", &"0".repeat(64)]]);
        let all = [reaction.clone(), quote.clone(), stranger, comment.clone(), issue.clone()];
        let found = gather(&[root], &all, &BTreeSet::new(), Timestamp::from_secs(100), 100);
        assert_eq!(found.events, [issue.id, quote.id, comment.id, reaction.id]);
    }

    #[test]
    fn what_hangs_on_an_event_goes_with_it() {
        let keys = Keys::generate();
        let root = Coordinate::new(keys.public_key(), "d");
        let lost = event(&keys, 1618, 1, &[&["a", &root.to_string()]]);
        let reply = event(&keys, 1111, 2, &[&["e", &lost.id.to_hex()]]);
        let both = event(&keys, 1111, 3, &[&["e", &lost.id.to_hex()], &["a", &root.to_string()]]);
        let all = [lost.clone(), reply, both.clone()];
        let found = gather(&[root], &all, &BTreeSet::from([lost.id]), Timestamp::from_secs(9), 9);
        assert_eq!(found.events, [both.id]);
    }

    #[test]
    fn protected_expired_and_private_events_stay_here() {
        let keys = Keys::generate();
        let root = Coordinate::new(keys.public_key(), "d");
        let a = root.to_string();
        let protected = event(&keys, 1621, 1, &[&["a", &a], &["-"]]);
        let expired = event(&keys, 1621, 2, &[&["a", &a], &["expiration", "50"]]);
        let state = event(&keys, 30618, 3, &[&["a", &a], &["d", "d"]]);
        let wrap = event(&keys, 1059, 4, &[&["a", &a]]);
        let events = [protected, expired, state, wrap];
        let found = gather(&[root], &events, &BTreeSet::new(), Timestamp::from_secs(100), 100);
        assert!(found.events.is_empty());
        assert_eq!(found.kept_home, 2);
    }

    #[test]
    fn a_pull_request_names_its_commit() {
        let keys = Keys::generate();
        let root = Coordinate::new(keys.public_key(), "d");
        let commit = "1".repeat(40);
        let pr = event(
            &keys,
            1618,
            1,
            &[&["a", &root.to_string()], &["c", &commit], &["clone", "https://x/y.git", "https://z/y.git"]],
        );
        let roots = [root.clone()];
        let found = gather(&roots, std::slice::from_ref(&pr), &BTreeSet::new(), Timestamp::from_secs(9), 9);
        let [request] = found.pull_requests.as_slice() else { panic!("one pull request") };
        assert_eq!((request.id, request.tip.to_string()), (pr.id, commit.clone()));
        assert_eq!(request.clone_urls, ["https://x/y.git", "https://z/y.git"]);

        let many = [&["clone"], &["https://x/y.git"; 1000][..]].concat();
        let pr = event(&keys, 1618, 1, &[&["a", &root.to_string()], &["c", &commit], &many]);
        let found = gather(&[root], std::slice::from_ref(&pr), &BTreeSet::new(), Timestamp::from_secs(9), 9);
        assert_eq!(found.pull_requests[0].clone_urls.len(), SOURCES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// However events point at each other: nothing twice, and nothing before all it could hang on.
        #[test]
        fn parents_come_first(parents in proptest::collection::vec(0..20usize, 1..20), max in 1..25usize) {
            let keys = Keys::generate();
            let root = Coordinate::new(keys.public_key(), "d");
            let mut all: Vec<Event> = Vec::new();
            for (at, parent) in parents.iter().enumerate() {
                let target = match all.get(*parent) {
                    Some(parent) => ["e".to_owned(), parent.id.to_hex()],
                    None => ["a".to_owned(), root.to_string()],
                };
                all.push(event(&keys, 1111, 1000 - at as u64, &[&[&target[0], &target[1]]]));
            }
            let found = gather(&[root], &all, &BTreeSet::new(), Timestamp::from_secs(9), max);
            prop_assert_eq!(found.events.len(), all.len().min(max));
            prop_assert_eq!(found.truncated, max < all.len());
            for event in &all {
                let at = |id: &EventId| found.events.iter().position(|known| known == id);
                if let (Some(mine), Some(parent)) =
                    (at(&event.id), event.tags.event_ids().next())
                {
                    prop_assert!(at(&parent).is_some_and(|parent| parent < mine));
                }
            }
        }
    }
}
