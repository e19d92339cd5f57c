//! What a run that is over comes to: the record after it.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::clean;
use nostr::prelude::{EventId, Timestamp};

use super::{
    super::{
        converge::{Answer, Outcome, Seen},
        retry::{Backoff, Failure},
    },
    HeldConversation, MirrorRecord, REASON_MAX,
};
use crate::model::{placement::Placement, status::MirrorStatus};

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
    let answered = Answered::of(before, seen, governing);
    let lacks_another = answered.lacks_another();
    let failure = if lacks_another { Some(Failure::ServerFails) } else { failure_of(&ending) };
    let waits = matches!(ending, Ending::Waiting(_));
    let (status, reason) = stands(ending, lacks_another);
    let failures = if waits { 0 } else { failures_in_a_row(before, status, failure) };
    let (refused, may_take_more) = answered.refused(before);
    let is_in_sync = status == MirrorStatus::InSync;
    let held_before = || before.and_then(|record| record.conversation.clone()).filter(|_| !is_in_sync);
    // What was read back may be doubted; what was not looked at is as it was.
    let looked = seen.fresh || seen.was_sent_something();
    let refs_differ = if looked {
        governing.last().copied().filter(|state| seen.refs_differ && seen.served.contains(state))
    } else {
        before.and_then(|record| record.refs_differ)
    };
    let has_shown_refs = looked && (!seen.refs_differ || refs_differ.is_some());
    let look_again = if seen.early {
        governing.last().copied()
    } else {
        let before = before.and_then(|record| record.look_again);
        before.filter(|state| governing.last().is_none_or(|governing| governing == state))
    };
    let last_read_back = before.and_then(|record| record.read_back_at);
    MirrorRecord {
        status,
        // Where it did not come to that, it still has to show its refs.
        placement: before.filter(|_| !has_shown_refs).map_or(placement, |record| record.placement),
        reason: reason.map(|reason| clean(&reason, REASON_MAX)),
        since: before.filter(|record| record.status == status).map_or(now.as_secs(), |record| record.since),
        read_back_at: if is_in_sync { Some(now.as_secs()) } else { last_read_back },
        retry_at: (failures > 0).then(|| Backoff::default().latest(failures, now)),
        failures,
        failure,
        state: before.and_then(|record| record.state),
        refused,
        refs_differ,
        look_again,
        unlisted: answered.unlisted(before),
        conversation: conversation.or_else(held_before).filter(|_| !may_take_more),
    }
}

/// How a mirror stands after this end, and why. One that `lacks_another` event is refused for want of it only.
fn stands(ending: Ending, lacks_another: bool) -> (MirrorStatus, Option<String>) {
    match ending {
        Ending::Settled(Outcome::InSync) => (MirrorStatus::InSync, None),
        Ending::Settled(Outcome::Pending(reason)) | Ending::Waiting(reason) => {
            (MirrorStatus::Pending, Some(reason))
        }
        Ending::Settled(Outcome::Refused(reason)) if !lacks_another && is_no(&reason) => {
            (MirrorStatus::Refused, Some(reason))
        }
        Ending::Settled(Outcome::Refused(reason))
        | Ending::Failed(reason)
        | Ending::Hindered(_, reason)
        | Ending::RateLimited { reason, .. } => (MirrorStatus::Failing, Some(reason)),
        Ending::Blocked(reason) => (MirrorStatus::Blocked, Some(reason)),
        Ending::Down(reason) | Ending::Unreachable(reason) => (MirrorStatus::Unreachable, Some(reason)),
    }
}

fn failures_in_a_row(before: Option<&MirrorRecord>, status: MirrorStatus, failure: Option<Failure>) -> u32 {
    let failed_before = before.map_or(0, |record| record.failures);
    match status {
        // The server's failures are counted with the server.
        _ if failure == Some(Failure::ServerDown) => failed_before.max(1),
        MirrorStatus::Failing | MirrorStatus::Unreachable | MirrorStatus::Pending => {
            failed_before.saturating_add(1)
        }
        _ => 0,
    }
}

/// What a server answered in a run, and what follows for the next one.
struct Answered<'a> {
    seen: &'a Seen,
    governing: &'a [EventId],
    /// Announcements that it refused since they do not list it, and that are sent once more.
    said_again: BTreeSet<EventId>,
}

impl<'a> Answered<'a> {
    fn of(before: Option<&MirrorRecord>, seen: &'a Seen, governing: &'a [EventId]) -> Self {
        // A server says no to an announcement that takes it off the list, and does what it says. Sent again it is taken
        // where a copy, or another maintainer's announcement, introduces its author (ngit-grasp 3.0.9). That goes first.
        let was_said_again = |id: &EventId| before.is_some_and(|record| record.unlisted.contains(id));
        let is_due = |id: &EventId, words: &str| {
            is_unlisted(words) && governing.first() != Some(id) && !was_said_again(id)
        };
        let answers = seen.answers.iter();
        let due = answers
            .filter(|(id, answer)| matches!(answer, Answer::Refused(words) if is_due(id, words)))
            .map(|(id, _)| *id);
        Self { seen, governing, said_again: due.collect() }
    }

    /// Whether the event is one without which there is no mirror, and that needs the first of them.
    fn needs_the_first(&self, id: &EventId) -> bool {
        self.governing.iter().skip(1).any(|one| one == id)
    }

    /// Whether there is no mirror for want of an event that is sent again.
    fn lacks_another(&self) -> bool {
        // A server that took the first of the events that make a repository refuses another for want of it: it was wiped
        // in between, or what it kept back was purged.
        let is_refused_for_want = |id: &EventId| matches!(self.seen.answers.get(id), Some(Answer::Refused(why)) if is_for_want(why));
        self.governing.iter().skip(1).any(is_refused_for_want)
            || self.governing.iter().any(|id| self.said_again.contains(id))
    }

    /// [`MirrorRecord::unlisted`] from now on.
    fn unlisted(&self, before: Option<&MirrorRecord>) -> BTreeSet<EventId> {
        let unlisted = before.into_iter().flat_map(|record| &record.unlisted);
        let unanswered = unlisted.filter(|id| !self.seen.answers.contains_key(*id));
        unanswered.chain(&self.said_again).copied().collect()
    }

    /// [`MirrorRecord::refused`] from now on, and whether something of the conversation is not in it that the server may
    /// take next time.
    fn refused(&self, before: Option<&MirrorRecord>) -> (BTreeMap<EventId, String>, bool) {
        let mut refused = before.map(|record| record.refused.clone()).unwrap_or_default();
        // What makes the repository now may have been an extra where it was refused for want of something.
        refused.retain(|id, reason| !(self.needs_the_first(id) && is_for_want(reason)));
        let mut may_take_more = false;
        // An event is also "restricted" while another one is missing, such as what it answers. So it is not sent again
        // until the server has taken something that it lacked.
        let took_something = self.seen.answers.values().any(|answer| !matches!(answer, Answer::Refused(_)));
        if took_something || self.seen.pushed {
            let known = refused.len();
            refused.retain(|id, reason| self.governing.first() == Some(id) || !is_for_want(reason));
            may_take_more = refused.len() < known;
        }
        for (id, answer) in &self.seen.answers {
            match answer {
                // Another announcement than the server has may be needed: both are sent again.
                Answer::Refused(reason) if self.needs_the_first(id) && is_for_want(reason) => {
                    refused.remove(id);
                }
                Answer::Refused(_) if self.said_again.contains(id) => {
                    refused.remove(id);
                }
                Answer::Refused(reason) if is_for_good(reason) || is_for_want(reason) => {
                    refused.insert(*id, reason.clone());
                    // Sent together with what it lacked, perhaps: then it is taken next time.
                    may_take_more |= took_something && is_for_want(reason) && !self.governing.contains(id);
                }
                _ => {
                    refused.remove(id);
                }
            }
        }
        (refused, may_take_more)
    }
}

/// Whether a server refuses an announcement for not listing it.
pub(super) fn is_unlisted(words: &str) -> bool {
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
