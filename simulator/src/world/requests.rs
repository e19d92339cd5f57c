//! What the bot asks of servers, and what becomes of that on the way.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::model::{announcement::Announcement, coordinate::Coordinate, refs::ObjectId};
use nostr::event::{Event, EventId, Kind};

use super::{Faults, Host, World};
use crate::{
    grasp::{Change, Said},
    people::key,
};

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection.
    Unreachable,
    /// The connection broke: perhaps the deed was done.
    Broken,
    /// Later, in so many seconds where it says so.
    RateLimited(Option<u64>),
}

fn is_empty_state(event: &Event) -> bool {
    event.kind == Kind::RepoState && event.tags.iter().all(|tag| !tag.kind().starts_with("refs/"))
}

impl World {
    /// The bot makes a request: does it arrive?
    pub(crate) fn arrives(&mut self, at: usize) -> Result<(), Trouble> {
        if self.hosts[at].is_denied {
            self.break_promise(|| format!("server {at} is denied by the policy, and was asked"));
        }
        let faults = &self.hosts[at].faults;
        let lost = faults.loses_requests;
        if faults.down {
            return Err(Trouble::Unreachable);
        }
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(()) }
    }

    /// Does its answer?
    pub(crate) fn returns<T>(&mut self, at: usize, answer: T) -> Result<T, Trouble> {
        let lost = self.hosts[at].faults.loses_answers;
        if self.chance(lost) { Err(Trouble::Broken) } else { Ok(answer) }
    }

    /// A server that has had enough: what it says, and until when it is to be left alone because of that.
    fn is_limited(&mut self, at: usize) -> Trouble {
        let secs = self.hosts[at].faults.asks_secs;
        if let Some(secs) = secs {
            let until = self.ledger.cools.entry(at).or_default();
            *until = (*until).max(self.now + secs);
        }
        Trouble::RateLimited(secs)
    }

    /// Who are you?
    ///
    /// # Errors
    ///
    /// [`Trouble`], as in every request.
    pub fn ask(&mut self, at: usize) -> Result<(), Trouble> {
        self.arrives(at)?;
        let Faults { takes, asks_secs, .. } = self.hosts[at].faults;
        if self.habits.cools_down && takes == Some(0) && asks_secs.is_some() && self.chance(20) {
            return Err(self.is_limited(at));
        }
        self.returns(at, ())?;
        self.ledger.answered.insert(at, self.now);
        Ok(())
    }

    /// Everything a server serves.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn read(&mut self, at: usize) -> Result<Vec<Event>, Trouble> {
        self.arrives(at)?;
        let hides = self.hosts[at].faults.hides;
        let all: Vec<Event> = self.hosts[at].grasp.served().cloned().collect();
        let shown = all.into_iter().filter(|_| !hides || self.rng.bool()).collect();
        self.returns(at, shown)
    }

    /// Which of `ids` do you serve?
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn serves(&mut self, at: usize, ids: &[EventId]) -> Result<BTreeSet<EventId>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let serves = |id: &&EventId| match &faults.stale {
            Some(earlier) => earlier.contains_key(*id),
            None => grasp.serves(id),
        };
        let served: BTreeSet<EventId> = ids.iter().filter(serves).copied().collect();
        let served = self.returns(at, served)?;
        self.ledger.said_to_serve.extend(served.iter().map(|id| (at, *id)));
        Ok(served)
    }

    /// What do you have?
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn holdings(&mut self, at: usize) -> Result<BTreeSet<EventId>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let hides = faults.hides;
        let all: Vec<EventId> = match &faults.stale {
            Some(earlier) => earlier.keys().copied().collect(),
            None => grasp.served().map(|event| event.id).collect(),
        };
        let shown: BTreeSet<EventId> = all.into_iter().filter(|_| !hides || self.rng.bool()).collect();
        let shown = self.returns(at, shown)?;
        self.ledger.said_to_serve.extend(shown.iter().map(|id| (at, *id)));
        Ok(shown)
    }

    /// Nothing that the bot does takes away what can be cloned from a server, but for a state that says so, and an owner
    /// who takes the server off the list; a copy that begins to follow a lead may meet an older one of those there.
    fn keeps_serving(&mut self, at: usize, mut before: BTreeSet<Coordinate>, event: Option<&Event>) {
        let grasp = &self.hosts[at].grasp;
        let after = grasp.cloneable();
        let delisting = event.cloned().and_then(Announcement::read).filter(|found| !found.lists(&grasp.url));
        if let Some(delisting) = delisting.filter(|delisting| delisting.author() != key(0)) {
            before.remove(&delisting.coordinate);
        }
        let what = if event.is_some() { "an event" } else { "a push" };
        let is_emptied = |path: &&Coordinate| {
            grasp
                .served()
                .filter(|event| is_empty_state(event))
                .any(|event| event.tags.identifier().as_deref() == Some(path.identifier.as_str()))
        };
        if let Some(gone) = before.difference(&after).find(|path| !is_emptied(path)) {
            self.break_promise(|| format!("{what}: server {at} does not serve {gone} any more"));
        }
    }

    /// Take this event.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    pub fn send(&mut self, at: usize, event: &Event) -> Result<Said, Trouble> {
        self.arrives(at)?;
        self.totals.sends += 1;
        let count = self.ledger.sent.entry((at, event.id)).or_default();
        *count += 1;
        let count = *count;
        if count > 1 {
            self.break_promise(|| format!("{} was sent to server {at} {count} times in one cycle", event.id));
        }
        if self.ledger.refused.contains(&(at, event.id)) {
            self.break_promise(|| {
                format!("{} was refused for good by server {at}, and is sent again", event.id)
            });
        }
        let now = self.time();
        let served = self.hosts[at].grasp.cloneable();
        let Host { grasp, faults, .. } = &mut self.hosts[at];
        let said = match faults {
            Faults { takes: Some(0), .. } => return Err(self.is_limited(at)),
            Faults { refuses: Some(words), .. } => Said::Refused((*words).to_owned()),
            Faults { swallows: true, .. } => {
                if event.kind.is_addressable() {
                    Said::Purgatory
                } else {
                    Said::Taken
                }
            }
            _ => grasp.send(event, &self.history, now),
        };
        if let Some(takes) = &mut self.hosts[at].faults.takes {
            *takes -= 1;
        }
        if event.kind != Kind::EventDeletion && !is_empty_state(event) {
            self.keeps_serving(at, served, Some(event));
        }
        self.returns(at, said)
    }

    /// Which refs do you list there?
    ///
    /// # Errors
    ///
    /// [`Trouble`]; `None` is "no such repository".
    pub fn list(
        &mut self,
        at: usize,
        path: &Coordinate,
    ) -> Result<Option<BTreeMap<String, ObjectId>>, Trouble> {
        self.arrives(at)?;
        let Host { grasp, faults, .. } = &self.hosts[at];
        let mut refs = grasp.refs(path).cloned();
        if let Some(refs) = refs.as_mut().filter(|_| faults.foreign) {
            refs.insert("refs/heads/foreign".to_owned(), ObjectId::from_bytes_or_panic(&[0xee; 20]));
        }
        self.returns(at, refs)
    }

    /// Take this push.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; inside, the server's own no.
    pub fn push(
        &mut self,
        at: usize,
        path: &Coordinate,
        changes: &[Change],
        sent: &BTreeSet<ObjectId>,
    ) -> Result<Result<(), String>, Trouble> {
        self.arrives(at)?;
        self.totals.pushes += 1;
        if changes.iter().any(|(name, _)| !name.starts_with("refs/nostr/")) {
            let count = self.ledger.pushed.entry((at, path.clone())).or_default();
            *count += 1;
            if *count > 2 {
                self.break_promise(|| {
                    format!("{path} was pushed to server {at} more than twice in one cycle")
                });
            }
        }
        let now = self.time();
        let served = self.hosts[at].grasp.cloneable();
        if self.habits.cools_down && self.hosts[at].faults.takes == Some(0) {
            return Err(self.is_limited(at));
        }
        let Host { grasp, faults, .. } = &mut self.hosts[at];
        let done = if faults.swallows { Ok(()) } else { grasp.push(path, changes, sent, &self.history, now) };
        if changes.iter().any(|(_, new)| new.is_some()) {
            self.keeps_serving(at, served, None);
        }
        self.returns(at, done)
    }

    /// What a clone from a server brings.
    pub fn clone_from(&mut self, at: usize, path: &Coordinate) -> BTreeSet<ObjectId> {
        if self.arrives(at).is_err() {
            return BTreeSet::new();
        }
        self.hosts[at].grasp.objects(path).cloned().unwrap_or_default()
    }
}
