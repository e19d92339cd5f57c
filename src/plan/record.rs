//! What is remembered of each mirror between runs.

mod clock;
mod ending;

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::clean;
use nostr::prelude::{EventId, Timestamp};
use serde::{Deserialize, Serialize};

use self::ending::is_unlisted;
pub use self::{
    clock::not_ahead,
    ending::{Ending, after, is_for_good, is_no},
};
use super::{converge::Wanted, hold::Held, per_server::Mirrors, retry::Failure};
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
    /// The governing state whose refs were pushed when the server had just come back, until they are compared once more,
    /// at the time of its next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_again: Option<EventId>,
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

    /// Whether its refs are to be compared once more, and it is time.
    #[must_use]
    pub fn is_looked_at_again(&self, now: Timestamp) -> bool {
        self.look_again.is_some() && self.retry_at.is_none_or(|at| at <= now.as_secs())
    }

    /// Whether the server refused the event, also when it was said again, since the maintainers do not list it (any more).
    #[must_use]
    pub fn refuses_unlisted(&self, id: &EventId) -> bool {
        self.refused.get(id).is_some_and(|words| is_unlisted(words))
    }

    /// Forgets what the server refused of events that do not count any more: a newer one has taken their place, or they
    /// were deleted.
    pub fn forget_refusals(&mut self, counts: impl Fn(&EventId) -> bool) {
        self.refused.retain(|id, _| counts(id));
        self.unlisted.retain(&counts);
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

#[cfg(test)]
mod tests;
