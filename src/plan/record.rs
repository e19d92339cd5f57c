//! What is remembered of each mirror between runs.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::clean;
use nostr::prelude::{EventId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    converge::{Answer, Outcome, Seen, Wanted},
    hold::Held,
    per_server::Mirrors,
    retry::{Backoff, Failure},
};
use crate::model::{placement::Placement, server::ServerUrl, status::MirrorStatus};

/// The longest reason kept, in characters: it is in the report, for every mirror. Reasons quote states and
/// sources, which may be as long as they like.
pub const REASON_MAX: usize = 500;

/// Everything remembered of one repository's mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// By server.
    pub mirrors: Mirrors,
    /// Where it has none, and the rule, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<ServerUrl, String>,
    /// How many copies there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<usize>,
    /// When its git data was larger than allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_large: Option<TooLarge>,
    /// Pull requests whose commits were nowhere to be had, and when they are looked for again, Unix seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<EventId, u64>,
    /// When its maintainers last rewrote its history, as seen here, Unix seconds. What was there before is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten_at: Option<u64>,
    /// The state whose git data was seen whole in the local copy, with the local refs moved to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<EventId>,
    /// A state that takes most of it away, until the local copy has followed it or there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Sources that sent something else than they were asked for, by their address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distrusted: BTreeMap<String, Distrust>,
    /// When its servers' refs were last compared and its conversation read to the end, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep_checked_at: Option<u64>,
}

/// Why a source is asked only when no other has what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distrust {
    /// Until when, Unix seconds.
    pub until: u64,
    /// What it did.
    pub reason: String,
}

/// Git data that was fetched up to the limit and thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooLarge {
    /// The state it was fetched for.
    pub state: EventId,
    /// The limit then, in bytes.
    pub limit: u64,
    /// When, Unix seconds.
    pub seen_at: u64,
    /// What the sources said.
    pub reason: String,
}

impl TooLarge {
    /// For how long it is not tried again: each try may cost the limit in traffic with every source.
    const GOOD_FOR_SECS: u64 = 24 * 3_600;

    /// Whether another try would end in the same way.
    #[must_use]
    pub fn still_holds(&self, state: EventId, limit: u64, now: Timestamp) -> bool {
        self.state == state
            && self.limit >= limit
            && now.as_secs() < self.seen_at.saturating_add(Self::GOOD_FOR_SECS)
    }
}

impl RepositoryRecord {
    /// For how long a commit that nobody had is not looked for.
    const LOST_FOR_SECS: u64 = 6 * 3_600;

    /// Forgets what is believed without looking: refusals, what was lost or too large, and what servers were seen to
    /// hold of the conversation.
    pub fn look_anew(&mut self) {
        self.too_large = None;
        self.lost.clear();
        for (_, mirror) in self.mirrors.iter_mut() {
            mirror.refused.clear();
            mirror.unlisted.clear();
            mirror.retry_at = None;
            mirror.failures = 0;
        }
        self.doubt();
    }

    /// Forgets what is believed of the local copy and of the servers' conversations, so that both are looked at.
    pub fn doubt(&mut self) {
        self.local = None;
        for (_, mirror) in self.mirrors.iter_mut() {
            mirror.conversation = None;
        }
    }

    /// How many copies there should be. What is empty has no mirrors, and lacks none.
    #[must_use]
    pub fn copies_wanted(&self) -> usize {
        if self.mirrors.is_empty() { 0 } else { self.wanted.unwrap_or(self.mirrors.len()) }
    }

    /// Takes in when servers were last seen to serve all that counts as in sync there. A mirror that was found
    /// otherwise since has another status.
    pub fn confirm(&mut self, proved: &BTreeMap<ServerUrl, u64>) {
        for (server, mirror) in self.mirrors.iter_mut() {
            if mirror.status == MirrorStatus::InSync {
                mirror.read_back_at = mirror.read_back_at.max(proved.get(server).copied());
            }
        }
    }

    /// The state that its mirrors were seen to have: a newer one may be on its way to them.
    #[must_use]
    pub fn read_back_state(&self) -> Option<EventId> {
        let in_sync = self.mirrors.values().filter(|mirror| mirror.status == MirrorStatus::InSync);
        in_sync.filter_map(|mirror| mirror.state).next()
    }

    /// For how long a source that sent something else than it was asked for is asked last.
    const DISTRUST_SECS: u64 = 7 * 24 * 3_600;

    /// Marks a source that sent something else than it was asked for.
    pub fn distrust(&mut self, source: &str, reason: &str, now: Timestamp) {
        let until = now.as_secs().saturating_add(Self::DISTRUST_SECS);
        self.distrusted.insert(source.to_owned(), Distrust { until, reason: reason.to_owned() });
    }

    /// What the marked sources did, for people; marks that are old are taken off.
    pub fn distrusted_now(&mut self, now: Timestamp) -> Vec<String> {
        self.distrusted.retain(|_, distrust| distrust.until > now.as_secs());
        self.distrusted.values().map(|distrust| distrust.reason.clone()).collect()
    }

    /// The pull requests that are not looked for now.
    #[must_use]
    pub fn lost_now(&self, now: Timestamp) -> BTreeSet<EventId> {
        self.lost.iter().filter(|(_, again)| **again > now.as_secs()).map(|(id, _)| *id).collect()
    }

    /// Remembers that nobody had the commits of `requests`, and forgets what was lost before and is due again.
    pub fn lose(&mut self, requests: &[EventId], now: Timestamp) {
        self.lost.retain(|_, again| *again > now.as_secs());
        let again = now.as_secs().saturating_add(Self::LOST_FOR_SECS);
        self.lost.extend(requests.iter().map(|id| (*id, again)));
    }
}

/// What was last read back from one mirror, and what it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRecord {
    /// How it stands.
    pub status: MirrorStatus,
    /// How it is placed.
    pub placement: Placement,
    /// Why it is not in sync, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it has this status, Unix seconds.
    pub since: u64,
    /// When it was last seen in sync on the server itself, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back_at: Option<u64>,
    /// When a failing one is tried again, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<u64>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// Whose doing it is that it is not in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The maintainers' state that it was last brought, or was to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<EventId>,
    /// The governing state that the server serves although its refs were seen to be others: it is no proof there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs_differ: Option<EventId>,
    /// Events the server refused for good, with its words; not sent again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<EventId, String>,
    /// Announcements that the server refused since they do not list it, and that are sent once more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unlisted: BTreeSet<EventId>,
    /// The conversation the server was last seen to hold in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<HeldConversation>,
}

impl MirrorRecord {
    /// Says more about why it is as it is.
    pub fn add_reason(&mut self, more: &str) {
        let reason = self.reason.get_or_insert_default();
        *reason = clean(&format!("{reason}; {more}"), REASON_MAX);
    }

    /// Whether the last run was over before it was its turn. Its reason may say how long that takes.
    #[must_use]
    pub fn waits_its_turn(&self) -> bool {
        self.status == MirrorStatus::Pending && self.failures == 0
    }

    /// Whether the server refused the event, also when it was said again, since the maintainers do not list it (any more).
    #[must_use]
    pub fn refuses_unlisted(&self, id: &EventId) -> bool {
        self.refused.get(id).is_some_and(|words| is_unlisted(words))
    }
}

/// Whether a server that serves the wanted state has yet to show its refs: they were others when they were last looked
/// at, or it is the first time that an owner's own path is looked for there.
///
/// A server that has an owner's state already, by way of a copy, takes the announcement by which the owner lists it at
/// last, and leaves the owner's path empty.
#[must_use]
pub fn doubts(record: Option<&MirrorRecord>, wanted: &Wanted) -> bool {
    let placement = wanted.place.placement;
    // A record alone says little: it may be of a server that was down.
    let is_new = record.is_none_or(|record| record.read_back_at.is_none() || record.placement != placement);
    is_new
        && matches!(placement, Placement::Listed | Placement::Signed)
        && !wanted.place.own
        && wanted.place.takes_pushes
        || record.is_some_and(|record| record.refs_differ.is_some() && record.refs_differ == wanted.state)
}

/// A conversation that a server was seen to hold, what it refuses for good aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldConversation {
    /// Names the set of events.
    pub fingerprint: String,
    /// When it was seen, Unix seconds.
    pub seen_at: u64,
}

impl HeldConversation {
    /// For how long it is believed: a server may lose events and keep the repository. Longer than the time in which
    /// every repository is looked at in depth, which renews it.
    const GOOD_FOR_SECS: u64 = 48 * 3_600;

    /// Whether the server still counts as holding the conversation named by `fingerprint`.
    #[must_use]
    pub fn covers(&self, fingerprint: &str, now: Timestamp) -> bool {
        self.fingerprint == fingerprint && now.as_secs() < self.seen_at.saturating_add(Self::GOOD_FOR_SECS)
    }
}

impl MirrorRecord {
    /// Whether the server still counts as holding the conversation named by `fingerprint`, now that it was seen to serve
    /// what proves the mirror, or not to (`proved`).
    ///
    /// A server that lost the repository may have lost the conversation, too: what was seen of it is forgotten, also if
    /// the run ends before it is looked at again.
    pub fn still_holds(&mut self, fingerprint: &str, proved: bool, now: Timestamp) -> bool {
        if !proved {
            self.conversation = None;
        }
        self.conversation.as_ref().is_some_and(|held| held.covers(fingerprint, now))
    }
}

/// How one run ended for one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The walk to the end.
    Settled(Outcome),
    /// The server did not do as it should.
    Failed(String),
    /// Something else stood in the way.
    Hindered(Failure, String),
    /// The server wants to be left alone, for so many seconds where it said so.
    RateLimited {
        /// Its words.
        reason: String,
        /// For how long.
        told_secs: Option<u64>,
    },
    /// The server is down: the mirror was not tried.
    Down(String),
    /// The server could not be reached in the middle of it.
    Unreachable(String),
    /// The operator's own policy or limits keep it away.
    Blocked(String),
    /// The run was over before it was its turn: no failure, and no reason to wait.
    Waiting(String),
}

impl Ending {
    /// For how long the server wants to be left alone, in seconds.
    #[must_use]
    pub fn told_secs(&self) -> Option<u64> {
        match self {
            Self::RateLimited { told_secs, .. } => *told_secs,
            _ => None,
        }
    }
}

/// Whose doing an end is that is no success; the operator's own rules are nobody's failure.
fn failure_of(ending: &Ending) -> Option<Failure> {
    match ending {
        Ending::Settled(Outcome::InSync) | Ending::Blocked(_) | Ending::Waiting(_) => None,
        Ending::Settled(Outcome::Refused(_)) => Some(Failure::ServerRefused),
        Ending::Settled(Outcome::Pending(_)) | Ending::Failed(_) | Ending::Unreachable(_) => {
            Some(Failure::ServerFails)
        }
        Ending::Hindered(failure, _) => Some(*failure),
        Ending::RateLimited { .. } => Some(Failure::RateLimited),
        Ending::Down(_) => Some(Failure::ServerDown),
    }
}

/// The record after a run: `seen` is what was read and answered, `governing` the events without which there is
/// no mirror, `conversation` what the server is known to hold of it in full. When it is tried again is for
/// [`Backoff::schedule`] to say; here it is the latest by the usual waits.
#[must_use]
pub fn after(
    before: Option<&MirrorRecord>,
    placement: Placement,
    ending: Ending,
    seen: &Seen,
    governing: &[EventId],
    conversation: Option<HeldConversation>,
    now: Timestamp,
) -> MirrorRecord {
    let failure = failure_of(&ending);
    let mut unlisted = before.map(|record| record.unlisted.clone()).unwrap_or_default();
    // A server says no to an announcement that takes it off the list, and does what it says. Sent again it is taken where a
    // copy, or another maintainer's announcement, introduces its author (ngit-grasp 3.0.9). That goes first.
    let said_again = |id: &EventId, words: &str| {
        is_unlisted(words) && governing.first() != Some(id) && !unlisted.contains(id)
    };
    let to_be_said_again: BTreeSet<EventId> = seen
        .answers
        .iter()
        .filter(|(id, answer)| matches!(answer, Answer::Refused(words) if said_again(id, words)))
        .map(|(id, _)| *id)
        .collect();
    unlisted.retain(|id| !seen.answers.contains_key(id));
    unlisted.extend(&to_be_said_again);
    let lacks_another =
        is_refused_for_want(seen, governing) || governing.iter().any(|id| to_be_said_again.contains(id));
    let waits = matches!(ending, Ending::Waiting(_));
    let (status, reason) = match ending {
        Ending::Settled(Outcome::Refused(reason)) if lacks_another => (MirrorStatus::Failing, Some(reason)),
        Ending::Settled(Outcome::InSync) => (MirrorStatus::InSync, None),
        Ending::Settled(Outcome::Pending(reason)) => (MirrorStatus::Pending, Some(reason)),
        Ending::Waiting(reason) => (MirrorStatus::Pending, Some(reason)),
        Ending::Settled(Outcome::Refused(reason)) if is_no(&reason) => (MirrorStatus::Refused, Some(reason)),
        Ending::Settled(Outcome::Refused(reason)) => (MirrorStatus::Failing, Some(reason)),
        Ending::Blocked(reason) => (MirrorStatus::Blocked, Some(reason)),
        Ending::Failed(reason) | Ending::Hindered(_, reason) | Ending::RateLimited { reason, .. } => {
            (MirrorStatus::Failing, Some(reason))
        }
        Ending::Down(reason) | Ending::Unreachable(reason) => (MirrorStatus::Unreachable, Some(reason)),
    };
    let failure = if lacks_another { Some(Failure::ServerFails) } else { failure };
    let reason = reason.map(|reason| clean(&reason, REASON_MAX));
    let failed_before = before.map_or(0, |record| record.failures);
    let failures = match status {
        _ if waits => 0,
        // The server's failures are counted with the server.
        _ if failure == Some(Failure::ServerDown) => failed_before.max(1),
        MirrorStatus::Failing | MirrorStatus::Unreachable | MirrorStatus::Pending => {
            failed_before.saturating_add(1)
        }
        _ => 0,
    };
    let since = before.filter(|record| record.status == status).map_or(now.as_secs(), |record| record.since);
    let mut refused = before.map(|record| record.refused.clone()).unwrap_or_default();
    // What makes the repository now may have been an extra where it was refused for want of something.
    let needed = |id: &EventId| governing.iter().skip(1).any(|one| one == id);
    refused.retain(|id, reason| !(needed(id) && is_for_want(reason)));
    let mut conversation = conversation.or_else(|| {
        before.and_then(|record| record.conversation.clone()).filter(|_| status != MirrorStatus::InSync)
    });
    // An event is also "restricted" while another one is missing, such as what it answers. So it is not sent again
    // until the server has taken something that it lacked.
    let took_something = seen.answers.values().any(|answer| !matches!(answer, Answer::Refused(_)));
    if took_something || seen.pushed {
        let known = refused.len();
        refused.retain(|id, reason| governing.first() == Some(id) || !is_for_want(reason));
        conversation = conversation.filter(|_| refused.len() == known);
    }
    for (id, answer) in &seen.answers {
        match answer {
            // Another announcement than the server has may be needed: both are sent again.
            Answer::Refused(reason)
                if governing.iter().skip(1).any(|one| one == id) && is_for_want(reason) =>
            {
                refused.remove(id);
            }
            Answer::Refused(_) if to_be_said_again.contains(id) => {
                refused.remove(id);
            }
            Answer::Refused(reason) if is_for_good(reason) || is_for_want(reason) => {
                refused.insert(*id, reason.clone());
                // Sent together with what it lacked, perhaps: then it is taken next time.
                if took_something && is_for_want(reason) && !governing.contains(id) {
                    conversation = None;
                }
            }
            _ => {
                refused.remove(id);
            }
        }
    }
    // What was read back may be doubted; what was not looked at is as it was.
    let looked = seen.fresh || seen.was_sent_something();
    let refs_differ = if looked {
        governing.last().copied().filter(|_| seen.refs_differ)
    } else {
        before.and_then(|record| record.refs_differ)
    };
    let in_sync = status == MirrorStatus::InSync;
    MirrorRecord {
        status,
        // Where it was not looked at, it still has to show its refs.
        placement: before.filter(|_| !looked).map_or(placement, |record| record.placement),
        reason,
        since,
        read_back_at: if in_sync {
            Some(now.as_secs())
        } else {
            before.and_then(|record| record.read_back_at)
        },
        retry_at: (failures > 0).then(|| Backoff::default().latest(failures, now)),
        failures,
        failure,
        state: before.and_then(|record| record.state),
        refused,
        refs_differ,
        unlisted,
        conversation,
    }
}

/// Whether a server refuses an announcement for not listing it.
fn is_unlisted(words: &str) -> bool {
    words.contains("must list service")
}

/// Whether a relay's refusal will be the same tomorrow (NIP-01 machine-readable prefixes).
#[must_use]
pub fn is_for_good(reason: &str) -> bool {
    ["blocked:", "invalid:", "pow:"].iter().any(|prefix| reason.starts_with(prefix)) && !is_for_want(reason)
}

/// Whether a relay refuses for good, or lets only some people do what was asked.
#[must_use]
pub fn is_no(reason: &str) -> bool {
    is_for_good(reason) || is_restricted(reason)
}

fn is_restricted(reason: &str) -> bool {
    reason.starts_with("restricted:")
}

/// Whether an event may be refused for want of another one: a state without its announcement, a reply without what
/// it answers.
fn is_for_want(reason: &str) -> bool {
    is_restricted(reason) || reason.contains("no announcement exists")
}

/// Whether a server that took the first of the events that make a repository refused another for want of it: it was
/// wiped in between, or what it kept back was purged.
fn is_refused_for_want(seen: &Seen, governing: &[EventId]) -> bool {
    governing
        .iter()
        .skip(1)
        .any(|id| matches!(seen.answers.get(id), Some(Answer::Refused(why)) if is_for_want(why)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::testing::server, *};
    use crate::{model::coordinate::Coordinate, plan::placement::Place};

    #[test]
    fn whose_turn_did_not_come_is_tried_as_soon_as_it_does() {
        let now = Timestamp::from_secs(1_790_000_000);
        let id = EventId::from_byte_array([1; 32]);
        let seen =
            Seen { answers: [(id, Answer::Refused("invalid: no".to_owned()))].into(), ..Seen::default() };
        let failed =
            after(None, Placement::Listed, Ending::Failed("broke".to_owned()), &seen, &[], None, now);
        assert!(failed.retry_at.is_some());
        let waiting = Ending::Waiting("waits its turn".to_owned());
        let record = after(Some(&failed), Placement::Listed, waiting, &Seen::default(), &[], None, now);
        assert_eq!((record.status, record.retry_at, record.failures), (MirrorStatus::Pending, None, 0));
        assert!(record.waits_its_turn());
        assert!(record.refused.contains_key(&id), "what a server refuses for good is still known");
    }

    #[test]
    fn a_server_that_lost_the_repository_is_not_believed_to_hold_the_conversation() {
        let now = Timestamp::from_secs(1_790_000_000);
        let held = HeldConversation { fingerprint: "f".to_owned(), seen_at: now.as_secs() };
        let good = Ending::Settled(Outcome::InSync);
        let mut record = after(None, Placement::Listed, good, &Seen::default(), &[], Some(held), now);
        assert!(record.still_holds("f", true, now) && !record.still_holds("other", true, now));
        assert!(!record.still_holds("f", false, now), "it was wiped");
        // The run that saw it ended after the branches.
        let waiting = Ending::Waiting("waits its turn".to_owned());
        let mut record = after(Some(&record), Placement::Listed, waiting, &Seen::default(), &[], None, now);
        assert!(!record.still_holds("f", true, now), "it has the branches again, and nothing else");
    }

    #[test]
    fn a_reason_is_as_long_as_a_person_reads_and_no_longer() {
        let ending = Ending::Failed("source\n".repeat(10_000));
        let now = Timestamp::from_secs(1_790_000_000);
        let record = after(None, Placement::Listed, ending, &Seen::default(), &[], None, now);
        let reason = record.reason.unwrap_or_default();
        assert!(reason.starts_with("source source") && reason.chars().count() <= REASON_MAX, "{reason}");
    }

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    #[test]
    fn a_state_is_read_back_where_a_mirror_is_in_sync() {
        let [one, other] = ["one", "other"].map(server);
        let with = |ending, state| {
            let record = after(None, Placement::Listed, ending, &Seen::default(), &[], None, NOW);
            MirrorRecord { state: Some(id(state)), ..record }
        };
        let mut record = RepositoryRecord::default();
        assert_eq!(record.read_back_state(), None);
        record.mirrors.insert(one, with(Ending::Failed("broke".to_owned()), 2));
        assert_eq!(record.read_back_state(), None);
        record.mirrors.insert(other, with(Ending::Settled(Outcome::InSync), 1));
        assert_eq!(record.read_back_state(), Some(id(1)));
    }

    fn refused(n: u8, words: &str) -> Seen {
        Seen { fresh: true, answers: [(id(n), Answer::Refused(words.to_owned()))].into(), ..Seen::default() }
    }

    fn ended(before: Option<&MirrorRecord>, seen: &Seen, ending: Ending) -> MirrorRecord {
        after(before, Placement::Listed, ending, seen, &[id(1), id(2)], None, NOW)
    }

    #[test]
    fn a_state_refused_for_want_of_its_announcement_is_sent_again() {
        let words = "invalid: no announcement exists for this repository";
        let no = |words: &str| Ending::Settled(Outcome::Refused(words.to_owned()));
        // Wiped between the two.
        let record = ended(None, &refused(2, words), no(words));
        assert_eq!((record.status, record.failures), (MirrorStatus::Failing, 1));
        assert!(record.refused.is_empty());
        let blocked = ended(None, &refused(1, "restricted: not you"), no("restricted: not you"));
        assert_eq!(blocked.status, MirrorStatus::Refused);
        assert!(blocked.refused.contains_key(&id(1)));
    }

    #[test]
    fn what_takes_the_server_off_the_list_is_said_once_more() {
        let words = "invalid: Announcement must list service in both";
        let (in_sync, no) =
            (Ending::Settled(Outcome::InSync), Ending::Settled(Outcome::Refused(words.to_owned())));
        // Attached: the copy is good, and the announcement is due again.
        let first = ended(None, &refused(9, words), in_sync.clone());
        assert_eq!((first.status, first.refused.len(), first.unlisted.len()), (MirrorStatus::InSync, 0, 1));
        // Not looked at: still to be said again.
        let idle = ended(Some(&first), &Seen::default(), Ending::Down("down".to_owned()));
        assert!(idle.unlisted.contains(&id(9)));
        let second = ended(Some(&idle), &refused(9, words), in_sync);
        assert!(second.refuses_unlisted(&id(9)) && second.unlisted.is_empty());
        // A lead's, which governs: nothing is in sync without it.
        let first = ended(None, &refused(2, words), no.clone());
        assert_eq!((first.status, first.refuses_unlisted(&id(2))), (MirrorStatus::Failing, false));
        let second = ended(Some(&first), &refused(2, words), no.clone());
        assert_eq!((second.status, second.refuses_unlisted(&id(2))), (MirrorStatus::Refused, true));
        // What goes first is introduced by nothing.
        assert_eq!(ended(None, &refused(1, words), no).status, MirrorStatus::Refused);
    }

    #[test]
    fn what_was_restricted_is_sent_again_once_the_server_has_taken_something() {
        let in_sync = || Ending::Settled(Outcome::InSync);
        let first = ended(None, &refused(9, "restricted: must reference an accepted event"), in_sync());
        assert!(first.refused.contains_key(&id(9)));
        let idle = ended(Some(&first), &Seen { fresh: true, ..Seen::default() }, in_sync());
        assert!(idle.refused.contains_key(&id(9)));
        let taken = Seen { fresh: true, answers: [(id(8), Answer::Taken)].into(), ..Seen::default() };
        assert!(ended(Some(&idle), &taken, in_sync()).refused.is_empty());
        let for_good = ended(None, &refused(9, "blocked: no"), in_sync());
        assert!(ended(Some(&for_good), &taken, in_sync()).refused.contains_key(&id(9)));
    }

    #[test]
    fn an_owners_own_path_has_to_show_its_refs_once() {
        let owner = Coordinate::new(nostr::prelude::Keys::generate().public_key(), "d");
        let mut wanted = Wanted {
            repository: owner.clone(),
            server: "wss://server.example".parse().unwrap(),
            place: Place { placement: Placement::Listed, path: owner, takes_pushes: true, own: false },
            governing: vec![id(1), id(2)],
            state: Some(id(2)),
            refs: BTreeMap::new(),
            attached: Vec::new(),
            pull_requests: Vec::new(),
            conversation: Vec::new(),
        };
        assert!(doubts(None, &wanted));
        let differs = Seen { fresh: true, refs_differ: true, ..Seen::default() };
        let mut record = ended(None, &differs, Ending::Failed("no".to_owned()));
        assert!(doubts(Some(&record), &wanted), "also in the next run");
        // Not looked at: still to be shown.
        record = ended(Some(&record), &Seen::default(), Ending::Down("down".to_owned()));
        assert!(doubts(Some(&record), &wanted));
        record =
            ended(Some(&record), &Seen { fresh: true, ..Seen::default() }, Ending::Settled(Outcome::InSync));
        assert!(!doubts(Some(&record), &wanted));
        wanted.place.placement = Placement::Namespace;
        assert!(!doubts(None, &wanted), "the bot announces its copies where it brings them");
    }
}
