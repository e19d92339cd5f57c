//! One mirror's walk, as `src/transfer/mirror.rs` walks it: [`next_step`] decides, this carries it out.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    git::wire::{RefUpdate, commands_to},
    model::refs::ObjectId,
    plan::{
        converge::{Answer, Outcome, Seen, Step, Wanted, next_step},
        conversation::PullRequest,
        live::Concerns,
        record::Ending,
        retry::{Failure, told_secs},
    },
};
use nostr::event::{Event, EventId, Kind};

use crate::{
    check,
    disk::Disk,
    grasp::{Change, Said},
    world::{Crash, Trouble, World, tell},
};

const MAX_STEPS: usize = 64;

/// How a walk ends because something newer was signed.
pub(crate) const OVERTAKEN: &str = "something newer was signed meanwhile, and comes first";
const LOST_DATA: &str = "the server has lost git data that it had";

/// A walk.
pub(crate) struct Walk<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) disk: &'a mut Disk,
    pub(crate) at: usize,
    pub(crate) wanted: Wanted,
    pub(crate) seen: Seen,
    pub(crate) events: &'a BTreeMap<EventId, Event>,
    pub(crate) git: Result<(), Ending>,
    pub(crate) refusal: Option<String>,
    /// The maintainers' state that all this is about.
    pub(crate) of: Option<EventId>,
    /// Somebody asked for it: what servers said before does not count.
    pub(crate) insists: bool,
    /// Servers that want to be left alone, and until when.
    pub(crate) cooling: &'a mut BTreeMap<usize, u64>,
    /// What is listened to.
    pub(crate) concerns: Option<&'a Concerns>,
}

enum Stopped {
    Crash,
    End(Ending),
    Refused(String),
}

impl From<Crash> for Stopped {
    fn from(_: Crash) -> Self {
        Self::Crash
    }
}

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Self::End(match trouble {
            Trouble::Unreachable => Ending::Unreachable("no connection".to_owned()),
            Trouble::Broken => Ending::Failed("the connection broke".to_owned()),
            Trouble::RateLimited(secs) => limited(secs),
        })
    }
}

/// What a server says that wants to be left alone, and what is understood of it.
fn limited(secs: Option<u64>) -> Ending {
    let reason = match secs {
        Some(secs) if secs % 60 == 0 => format!("rate-limited: try again in {} minutes", secs / 60),
        Some(secs) => format!("rate-limited: try again in {secs}s"),
        None => "rate-limited: slow down".to_owned(),
    };
    let told_secs = told_secs(&reason);
    Ending::RateLimited { reason, told_secs }
}

fn overtaken() -> Ending {
    Ending::Waiting(OVERTAKEN.to_owned())
}

impl Walk<'_> {
    pub(crate) fn run(&mut self) -> Result<Ending, Crash> {
        for _ in 0..MAX_STEPS {
            let step = next_step(&self.wanted, &self.seen);
            tell!(self.world, "  server {}: {step:?}", self.at);
            let done = match step {
                step if !matches!(step, Step::Settled(_)) && self.is_overtaken() => return Ok(overtaken()),
                Step::Settled(outcome) => {
                    return Ok(match (outcome, self.refusal.take()) {
                        (Outcome::Pending(_), Some(reason)) => Ending::Failed(reason),
                        (outcome, _) => Ending::Settled(outcome),
                    });
                }
                Step::Send(ids) => self.send(&ids),
                Step::Push => self.push(),
                Step::PushRequests(requests) => self.push_requests(&requests),
                Step::Look => self.look(),
                Step::LookAtConversation => self.look_at_conversation(),
            };
            match done {
                Ok(()) => {}
                Err(Stopped::Crash) => return Err(Crash),
                Err(Stopped::End(ending)) => {
                    self.note_end(&ending);
                    return Ok(ending);
                }
                Err(Stopped::Refused(reason)) => return Ok(Ending::Failed(reason)),
            }
        }
        self.world.break_promise(|| "a walk does not come to its end".to_owned());
        Ok(Ending::Settled(Outcome::Pending("more to do than fits in one run".to_owned())))
    }

    /// Nothing goes to a server that said for how long it wants to be left alone, whichever mirror heard it.
    fn wait_for_it(&self) -> Result<(), Stopped> {
        let until = self.cooling.get(&self.at).filter(|until| !self.insists && **until > self.world.now);
        match until {
            Some(until) => Err(Stopped::End(limited(Some(until - self.world.now)))),
            None => Ok(()),
        }
    }

    fn note_end(&mut self, ending: &Ending) {
        if let Some(secs) = ending.told_secs() {
            self.world.totals.cool_downs += 1;
            let until = self.cooling.entry(self.at).or_default();
            *until = (*until).max(self.world.now + secs);
        }
    }

    /// Whether something newer was signed for this family, perhaps just now.
    fn is_overtaken(&mut self) -> bool {
        let family = self.wanted.repository.identifier.clone();
        if !self.world.calm && self.world.habits.overtakes && self.world.chance(1) {
            let newer = self.world.sign_newer(&family);
            // Who does not listen has not heard of it.
            let heard = match (&newer, self.concerns) {
                (Some(newer), Some(concerns)) => concerns.overtaken_by(newer),
                _ => BTreeSet::from([family.clone()]),
            };
            newer.iter().filter(|_| !heard.is_empty()).for_each(|newer| self.disk.save(newer));
            self.world.ledger.overtaken.extend(heard);
        }
        let is_overtaken = self.world.is_overtaken(&family);
        self.world.totals.overtakes += u64::from(is_overtaken);
        is_overtaken
    }

    fn send(&mut self, ids: &[EventId]) -> Result<(), Stopped> {
        for id in ids {
            let Some(event) = self.events.get(id) else {
                return Err(Stopped::End(Ending::Failed(format!(
                    "the event {id} is not in the store any more"
                ))));
            };
            check::may_be_sent(self.world, self.disk, self.at, event);
            if event.kind == Kind::RepoState {
                check::may_be_followed(self.world, &self.wanted, self.of);
            }
            self.world.step()?;
            self.wait_for_it()?;
            check::is_left_alone(self.world, self.at, &self.wanted.repository, self.insists);
            let cools = self.world.ledger.cools.clone();
            let said = self.world.send(self.at, event);
            tell!(self.world, "    kind {} {id}: {said:?}", event.kind.as_u16());
            self.world.step()?;
            if self.is_overtaken() {
                // Its answer is not waited for.
                self.world.ledger.cools = cools;
                return Err(Stopped::End(overtaken()));
            }
            let answer = match said? {
                Said::Taken => Answer::Taken,
                Said::Purgatory => Answer::Purgatory,
                Said::Refused(words) => Answer::Refused(words),
            };
            let refused = matches!(answer, Answer::Refused(_));
            self.seen.answers.insert(*id, answer);
            if refused && self.wanted.governing.contains(id) {
                break;
            }
        }
        self.seen.fresh = false;
        self.seen.lacks = None;
        Ok(())
    }

    fn look(&mut self) -> Result<(), Stopped> {
        let ids: Vec<EventId> = self.wanted.proofs().copied().collect();
        self.world.step()?;
        self.seen.served = self.world.serves(self.at, &ids)?;
        self.seen.fresh = true;
        self.seen.looks = self.seen.looks.saturating_add(1);
        if self.wanted.state.is_some_and(|state| self.seen.served.contains(&state)) {
            self.refusal = None;
        }
        Ok(())
    }

    fn look_at_conversation(&mut self) -> Result<(), Stopped> {
        self.world.step()?;
        let served = self.world.serves(self.at, &self.wanted.conversation)?;
        let lacks = self.wanted.conversation.iter().filter(|id| !served.contains(*id)).copied().collect();
        self.seen.lacks = Some(lacks);
        Ok(())
    }

    fn advertised(&mut self) -> Result<BTreeMap<String, ObjectId>, Stopped> {
        self.world.step()?;
        let listed = self.world.list(self.at, &self.wanted.place.path)?;
        listed.ok_or_else(|| {
            Stopped::End(Ending::Failed("the repository does not exist on that server".to_owned()))
        })
    }

    fn push(&mut self) -> Result<(), Stopped> {
        let advertised = self.advertised()?;
        let commands = commands_to(&advertised, &self.wanted.refs);
        if commands.is_empty() && !self.seen.refs_differ {
            // An earlier push broke off after it had moved the refs.
            self.git.clone().map_err(Stopped::End)?;
            self.have_state_applied()?;
        } else if !commands.is_empty() {
            self.git.clone().map_err(Stopped::End)?;
            check::is_signed(self.world, self.disk, &self.wanted);
            check::may_be_followed(self.world, &self.wanted, self.of);
            match self.push_pack(&commands) {
                Ok(()) => {}
                Err(Stopped::Refused(reason)) if reason.contains("deletion of the current branch") => {
                    self.have_state_applied()?;
                    self.refusal = Some(reason);
                }
                Err(Stopped::Refused(_)) if self.seen.refs_differ => {
                    self.refusal = Some(LOST_DATA.to_owned())
                }
                Err(Stopped::Refused(reason)) => self.refusal = Some(reason),
                Err(stopped) => return Err(stopped),
            }
        }
        if self.seen.refs_differ {
            let listed = self.advertised()?;
            self.seen.refs_differ = !commands_to(&listed, &self.wanted.refs).is_empty();
        }
        self.seen.pushed = true;
        self.seen.fresh = false;
        Ok(())
    }

    fn push_pack(&mut self, commands: &[RefUpdate]) -> Result<(), Stopped> {
        let tips = commands.iter().map(|command| command.new).filter(|id| !id.is_null());
        let objects = self.world.history.closure(tips);
        let held = self.disk.copies.get(&self.wanted.repository).map(|copy| &copy.objects);
        if !held.is_some_and(|held| objects.is_subset(held)) {
            return Err(Stopped::End(Ending::Hindered(Failure::Ours, "an object is not here".to_owned())));
        }
        let changes: Vec<Change> = commands
            .iter()
            .map(|command| (command.name.clone(), Some(command.new).filter(|id| !id.is_null())))
            .collect();
        self.world.step()?;
        self.wait_for_it()?;
        check::is_left_alone(self.world, self.at, &self.wanted.repository, self.insists);
        let cools = self.world.ledger.cools.clone();
        let done = self.world.push(self.at, &self.wanted.place.path, &changes, &objects);
        tell!(self.world, "    push: {done:?}");
        self.world.step()?;
        if self.is_overtaken() {
            // It goes on by itself.
            self.world.ledger.cools = cools;
            return Err(Stopped::End(overtaken()));
        }
        done?.map_err(Stopped::Refused)
    }

    fn have_state_applied(&mut self) -> Result<(), Stopped> {
        let mut tip = self.wanted.refs.values().next().copied();
        if tip.is_none() {
            // A state without refs leaves nothing to point at but what the server has still.
            tip = self.advertised()?.values().next().copied();
        }
        let (Some(state), Some(tip)) = (self.wanted.state, tip) else { return Ok(()) };
        let null = ObjectId::null(tip.kind());
        let name = format!("refs/nostr/{}", state.to_hex());
        for new in [tip, null] {
            let advertised = self.advertised()?;
            let old = advertised.get(&name).copied().unwrap_or(null);
            if old != new {
                self.push_pack(&[RefUpdate { name: name.clone(), old, new }])?;
            }
        }
        Ok(())
    }

    fn push_requests(&mut self, requests: &[PullRequest]) -> Result<(), Stopped> {
        self.git.clone().map_err(Stopped::End)?;
        let advertised = self.advertised()?;
        for request in requests {
            self.seen.pushed_requests.insert(request.id);
            let name = format!("refs/nostr/{}", request.id.to_hex());
            let old = advertised.get(&name).copied();
            if old == Some(request.tip) {
                continue;
            }
            let old = old.unwrap_or_else(|| ObjectId::null(request.tip.kind()));
            match self.push_pack(&[RefUpdate { name, old, new: request.tip }]) {
                Ok(()) | Err(Stopped::Refused(_)) => {}
                Err(stopped) => return Err(stopped),
            }
        }
        self.seen.lacks = None;
        Ok(())
    }
}
