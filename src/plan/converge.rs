//! The next step for one mirror.
//!
//! A mirror converges by asking [`next_step`] again after every step: announcement and state first (a server
//! takes no git data without them), then the git data, then what else belongs there, and at the end a look at
//! what the server really serves. Only that look makes a mirror in sync.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::EventId;

use super::{conversation::PullRequest, placement::Place};
use crate::model::{coordinate::Coordinate, placement::Placement, refs::Refs, server::ServerUrl};

/// What one server is to have of one repository.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The watched owner's coordinate.
    pub repository: Coordinate,
    /// Where.
    pub server: ServerUrl,
    /// How.
    pub place: Place,
    /// What makes the server take the repository: announcements, then the governing state.
    pub governing: Vec<EventId>,
    /// The governing state: a server that serves it has its git data. `None` while nobody signed one.
    pub state: Option<EventId>,
    /// Heads and tags, exactly.
    pub refs: Refs,
    /// In the bot's namespace, under the owner's own identifier: the maintainers' own announcements, the owner's
    /// first, and state, which the server takes once it has the bot's. Elsewhere: the other maintainers' announcements.
    pub attached: Vec<EventId>,
    /// Pull requests whose commits are here and can be pushed.
    pub pull_requests: Vec<PullRequest>,
    /// The conversation, in order.
    pub conversation: Vec<EventId>,
}

/// What a server said to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Stored and served.
    Taken,
    /// Kept back until the git data arrives ("purgatory").
    Purgatory,
    /// Refused for good, with its words.
    Refused(String),
}

/// What is known of one mirror: read back from the server, or answered by it during this run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Governing and attached events the server itself was seen to serve.
    pub served: BTreeSet<EventId>,
    /// Whether `served` was read after everything that was sent.
    pub fresh: bool,
    /// Answers to what was sent during this run.
    pub answers: BTreeMap<EventId, Answer>,
    /// Refused earlier, with the server's words; not tried again.
    pub refused: BTreeMap<EventId, String>,
    /// Whether the server, although it serves the state, was seen to list other heads and tags than the state's (it
    /// lost git data), or has yet to show what it lists.
    pub refs_differ: bool,
    /// Whether the heads and tags were pushed (or found to be right already) during this run.
    pub pushed: bool,
    /// Whether that was when the server had just come back: it may put its refs back to what they were before.
    pub early: bool,
    /// How often the server was looked at after a push without the state being served.
    pub looks: u8,
    /// Conversation events the server lacks; `None` before it was asked.
    pub lacks: Option<BTreeSet<EventId>>,
    /// Pull requests pushed during this run.
    pub pushed_requests: BTreeSet<EventId>,
}

impl Seen {
    /// Whether anything was sent or pushed during this run.
    #[must_use]
    pub fn was_sent_something(&self) -> bool {
        !self.answers.is_empty() || self.pushed || !self.pushed_requests.is_empty()
    }
}

/// One step towards a mirror in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these events, in this order.
    Send(Vec<EventId>),
    /// Make the server's heads and tags exactly the state's, in one request.
    Push,
    /// Push these pull requests' commits to `refs/nostr/<event id>`.
    PushRequests(Vec<PullRequest>),
    /// Ask which governing and attached events the server serves.
    Look,
    /// Ask which events of the conversation the server lacks.
    LookAtConversation,
    /// Nothing left to do.
    Settled(Outcome),
}

/// How a mirror stands when there is nothing left to do in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server serves what it should.
    InSync,
    /// Sent, but not seen to be served yet.
    Pending(String),
    /// The server said no for good.
    Refused(String),
}

/// Looks after a push before the mirror is left pending: a server needs a moment to release what it kept back.
pub const LOOKS: u8 = 6;

impl Wanted {
    /// The events whose being served proves the mirror.
    pub fn proofs(&self) -> impl Iterator<Item = &EventId> {
        self.governing.iter().chain(&self.attached)
    }

    /// Whether the server is known to serve all of it but the conversation.
    #[must_use]
    pub fn is_proved_by(&self, seen: &Seen) -> bool {
        self.proofs().all(|id| seen.served.contains(id) || self.may_lack(id, seen))
    }

    /// Whether the server has any use for the conversation: in the bot's namespace it takes it only with the
    /// owner's announcement.
    #[must_use]
    pub fn takes_conversation(&self, seen: &Seen) -> bool {
        let in_namespace = self.place.placement == Placement::Namespace;
        !(in_namespace && self.attached.first().is_none_or(|owners| seen.refusal(owners).is_some()))
    }

    /// Attached events a server refused are its own business; the governing ones are not.
    fn may_lack(&self, id: &EventId, seen: &Seen) -> bool {
        !self.governing.contains(id) && seen.refusal(id).is_some()
    }
}

impl Seen {
    fn refusal(&self, id: &EventId) -> Option<&String> {
        match self.answers.get(id) {
            Some(Answer::Refused(reason)) => Some(reason),
            Some(_) => None,
            None => self.refused.get(id),
        }
    }

    /// Neither served nor sent in this run nor refused for good.
    fn is_due(&self, id: &EventId) -> bool {
        !self.served.contains(id) && !self.answers.contains_key(id) && !self.refused.contains_key(id)
    }
}

/// The next step for one mirror. Same input, same answer.
#[must_use]
pub fn next_step(wanted: &Wanted, seen: &Seen) -> Step {
    // A refused announcement or state ends it: nothing else would be taken.
    if let Some(reason) = wanted.governing.iter().find_map(|id| seen.refusal(id)) {
        return Step::Settled(Outcome::Refused(reason.clone()));
    }
    let due: Vec<EventId> = wanted.governing.iter().copied().filter(|id| seen.is_due(id)).collect();
    if !due.is_empty() {
        return Step::Send(due);
    }
    // Of a state that is not served yet the push or a look tells in any case.
    let is_served = wanted.state.is_some_and(|state| seen.served.contains(&state));
    if seen.refs_differ && is_served && wanted.place.takes_pushes {
        if seen.pushed {
            let reason = "pushed, but the server still lists other refs than the signed ones";
            return Step::Settled(Outcome::Pending(reason.to_owned()));
        }
        return Step::Push;
    }
    if let Some(state) = &wanted.state
        && !seen.served.contains(state)
    {
        let kept_back = seen.answers.get(state) == Some(&Answer::Purgatory);
        let may_push = wanted.place.takes_pushes && !seen.pushed;
        // A state taken without "purgatory" found its git data there already; only a look can tell more.
        if may_push && (kept_back || seen.fresh) {
            return Step::Push;
        }
        if !seen.fresh || seen.looks < LOOKS && wanted.place.takes_pushes {
            return Step::Look;
        }
        return Step::Settled(Outcome::Pending(if wanted.place.takes_pushes {
            "pushed, but the server does not serve the state yet".to_owned()
        } else {
            "sent to an archive server, which fetches the git data by itself".to_owned()
        }));
    }
    let attached: Vec<EventId> = wanted.attached.iter().copied().filter(|id| seen.is_due(id)).collect();
    if !attached.is_empty() {
        return Step::Send(attached);
    }
    if !wanted.is_proved_by(seen) {
        if !seen.fresh || seen.looks < LOOKS {
            return Step::Look;
        }
        return Step::Settled(Outcome::Pending(
            "the server has not served every announcement yet".to_owned(),
        ));
    }
    conversation_step(wanted, seen)
}

fn conversation_step(wanted: &Wanted, seen: &Seen) -> Step {
    if !wanted.takes_conversation(seen) {
        return Step::Settled(Outcome::InSync);
    }
    let Some(lacks) = &seen.lacks else {
        return if wanted.conversation.is_empty() {
            Step::Settled(Outcome::InSync)
        } else {
            Step::LookAtConversation
        };
    };
    let due = |id: &EventId| lacks.contains(id) && seen.is_due(id);
    // A pull request's event goes first and is kept back; then its commit sets it free. The other way round a
    // server finds the commit only where the event's own author is hosted. Replies wait for both.
    let requests: Vec<EventId> = wanted.pull_requests.iter().map(|request| request.id).filter(due).collect();
    if !requests.is_empty() {
        return Step::Send(requests);
    }
    let kept_back: Vec<PullRequest> = wanted
        .pull_requests
        .iter()
        .filter(|request| wanted.place.takes_pushes && lacks.contains(&request.id))
        .filter(|request| seen.answers.get(&request.id) == Some(&Answer::Purgatory))
        .filter(|request| !seen.pushed_requests.contains(&request.id))
        .cloned()
        .collect();
    if !kept_back.is_empty() {
        return Step::PushRequests(kept_back);
    }
    let unsent: Vec<EventId> = wanted.conversation.iter().copied().filter(due).collect();
    if unsent.is_empty() { Step::Settled(Outcome::InSync) } else { Step::Send(unsent) }
}

#[cfg(test)]
mod tests;
