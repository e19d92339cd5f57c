//! A server as GRASP.md's measurements have it, for tests: what it is sent it keeps back until its git data
//! comes, and only then serves. Faults are drawn by the test.

use std::collections::BTreeSet;

use nostr::prelude::EventId;

use super::converge::{Answer, LOOKS, Outcome, Seen, Step, Wanted, next_step};
use crate::model::refs::Refs;

/// What the server does wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// It refuses this event for good.
    pub(crate) refuses: Option<(EventId, String)>,
    /// It says OK but never serves what waits for git data.
    pub(crate) swallows: bool,
    /// It needs this many looks before it serves what a push released.
    pub(crate) slow_looks: u8,
}

/// One simulated server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// Events it serves.
    pub(crate) serves: BTreeSet<EventId>,
    /// Events it keeps back.
    pub(crate) purgatory: BTreeSet<EventId>,
    /// Its heads and tags.
    pub(crate) refs: Refs,
    /// Whether it holds every object the state names already (shared between repositories of one name).
    pub(crate) has_objects: bool,
    /// What it does wrong.
    pub(crate) faults: Faults,
    /// How often it was looked at since the push.
    pub(crate) looks_since_push: u8,
    /// Everything it was sent, in order.
    pub(crate) sent: Vec<EventId>,
    /// How often it was pushed to.
    pub(crate) pushes: usize,
}

impl Server {
    fn take(&mut self, id: EventId, wanted: &Wanted) -> Answer {
        self.sent.push(id);
        if let Some((refused, reason)) = &self.faults.refuses
            && *refused == id
        {
            return Answer::Refused(reason.clone());
        }
        if self.serves.contains(&id) {
            return Answer::Taken;
        }
        let waits = wanted.governing.contains(&id) && !self.has_objects && self.refs != wanted.refs;
        if waits {
            self.purgatory.insert(id);
            return Answer::Purgatory;
        }
        self.serves.insert(id);
        if wanted.state == Some(id) {
            self.refs = wanted.refs.clone();
            self.serves.append(&mut self.purgatory);
        }
        Answer::Taken
    }

    fn push(&mut self, wanted: &Wanted) {
        self.pushes += 1;
        self.refs = wanted.refs.clone();
        self.looks_since_push = 0;
    }

    fn look(&mut self) -> BTreeSet<EventId> {
        self.looks_since_push = self.looks_since_push.saturating_add(1);
        if !self.faults.swallows && self.pushes > 0 && self.looks_since_push > self.faults.slow_looks {
            self.serves.append(&mut self.purgatory);
        }
        self.serves.clone()
    }
}

/// Walks a mirror as the transfer does; `None` when it does not come to an end.
pub(crate) fn walk(wanted: &Wanted, mut seen: Seen, server: &mut Server) -> Option<(Outcome, Seen)> {
    for _ in 0..usize::from(LOOKS) * 4 {
        match next_step(wanted, &seen) {
            Step::Settled(outcome) => return Some((outcome, seen)),
            Step::Send(ids) => {
                for id in ids {
                    let answer = server.take(id, wanted);
                    let refused = matches!(answer, Answer::Refused(_));
                    seen.answers.insert(id, answer);
                    if refused && wanted.governing.contains(&id) {
                        break;
                    }
                }
                seen.fresh = false;
                seen.lacks = None;
            }
            Step::Push => {
                server.push(wanted);
                seen.pushed = true;
                seen.fresh = false;
            }
            Step::PushRequests(requests) => {
                seen.pushed_requests.extend(requests.iter().map(|request| request.id));
            }
            Step::Look => {
                let served = server.look();
                seen.served = wanted.proofs().copied().filter(|id| served.contains(id)).collect();
                seen.fresh = true;
                seen.looks += 1;
            }
            Step::LookAtConversation => {
                let lacks = wanted.conversation.iter().copied().filter(|id| !server.serves.contains(id));
                seen.lacks = Some(lacks.collect());
            }
        }
    }
    None
}
