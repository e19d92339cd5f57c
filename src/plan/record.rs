//! What is remembered of each mirror between runs.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::clean;
use nostr::prelude::{EventId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    converge::{Answer, Outcome, Seen, retry_at},
    hold::Held,
};
use crate::model::{placement::Placement, server::ServerUrl, status::MirrorStatus};

/// The longest reason kept, in characters: it is in the report, for every mirror. Reasons quote states and
/// sources, which may be as long as they like.
pub const REASON_MAX: usize = 500;

/// Everything remembered of one repository's mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// By server.
    pub mirrors: BTreeMap<ServerUrl, MirrorRecord>,
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
        for mirror in self.mirrors.values_mut() {
            mirror.refused.clear();
            mirror.retry_at = None;
        }
        self.doubt();
    }

    /// Forgets what is believed of the local copy and of the servers' conversations, so that both are looked at.
    pub fn doubt(&mut self) {
        self.local = None;
        for mirror in self.mirrors.values_mut() {
            mirror.conversation = None;
        }
    }

    /// Takes in when servers were last seen to serve all that counts as in sync there. A mirror that was found
    /// otherwise since has another status.
    pub fn confirm(&mut self, proved: &BTreeMap<ServerUrl, u64>) {
        for (server, mirror) in &mut self.mirrors {
            if mirror.status == MirrorStatus::InSync {
                mirror.read_back_at = mirror.read_back_at.max(proved.get(server).copied());
            }
        }
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
    /// Events the server refused for good, with its words; not sent again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<EventId, String>,
    /// The conversation the server was last seen to hold in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<HeldConversation>,
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

/// How one run ended for one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The walk to the end.
    Settled(Outcome),
    /// Something went wrong on the way.
    Failed(String),
    /// The server could not be reached.
    Unreachable(String),
    /// The operator's own policy or limits keep it away.
    Blocked(String),
    /// The run was over before it was its turn: no failure, and no reason to wait.
    Waiting(String),
}

/// The record after a run: `seen` is what was read and answered, `governing` the events without which there is
/// no mirror, `conversation` what the server is known to hold of it in full.
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
    let waits = matches!(ending, Ending::Waiting(_));
    let (status, reason) = match ending {
        Ending::Settled(Outcome::InSync) => (MirrorStatus::InSync, None),
        Ending::Settled(Outcome::Pending(reason)) => (MirrorStatus::Pending, Some(reason)),
        Ending::Waiting(reason) => (MirrorStatus::Pending, Some(reason)),
        Ending::Settled(Outcome::Refused(reason)) if is_for_good(&reason) || is_restricted(&reason) => {
            (MirrorStatus::Refused, Some(reason))
        }
        Ending::Settled(Outcome::Refused(reason)) => (MirrorStatus::Failing, Some(reason)),
        Ending::Blocked(reason) => (MirrorStatus::Blocked, Some(reason)),
        Ending::Failed(reason) => (MirrorStatus::Failing, Some(reason)),
        Ending::Unreachable(reason) => (MirrorStatus::Unreachable, Some(reason)),
    };
    let reason = reason.map(|reason| clean(&reason, REASON_MAX));
    let failures = match status {
        _ if waits => 0,
        MirrorStatus::Failing | MirrorStatus::Unreachable | MirrorStatus::Pending => {
            before.map_or(0, |record| record.failures).saturating_add(1)
        }
        _ => 0,
    };
    let since = before.filter(|record| record.status == status).map_or(now.as_secs(), |record| record.since);
    let mut refused = before.map(|record| record.refused.clone()).unwrap_or_default();
    for (id, answer) in &seen.answers {
        match answer {
            // A reply is also "restricted" while what it answers is missing, so only the events that make the
            // repository are given up for that.
            Answer::Refused(reason)
                if is_for_good(reason) || is_restricted(reason) && governing.contains(id) =>
            {
                refused.insert(*id, reason.clone());
            }
            _ => {
                refused.remove(id);
            }
        }
    }
    let in_sync = status == MirrorStatus::InSync;
    MirrorRecord {
        status,
        placement,
        reason,
        since,
        read_back_at: if in_sync {
            Some(now.as_secs())
        } else {
            before.and_then(|record| record.read_back_at)
        },
        retry_at: (failures > 0).then(|| retry_at(now, failures).as_secs()),
        failures,
        refused,
        conversation: conversation
            .or_else(|| before.and_then(|record| record.conversation.clone()).filter(|_| !in_sync)),
    }
}

/// Whether a relay's refusal will be the same tomorrow (NIP-01 machine-readable prefixes).
#[must_use]
pub fn is_for_good(reason: &str) -> bool {
    ["blocked:", "invalid:", "pow:"].iter().any(|prefix| reason.starts_with(prefix))
}

fn is_restricted(reason: &str) -> bool {
    reason.starts_with("restricted:")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(record.refused.contains_key(&id), "what a server refuses for good is still known");
    }

    #[test]
    fn a_reason_is_as_long_as_a_person_reads_and_no_longer() {
        let ending = Ending::Failed("source\n".repeat(10_000));
        let now = Timestamp::from_secs(1_790_000_000);
        let record = after(None, Placement::Listed, ending, &Seen::default(), &[], None, now);
        let reason = record.reason.unwrap_or_default();
        assert!(reason.starts_with("source source") && reason.chars().count() <= REASON_MAX, "{reason}");
    }
}
