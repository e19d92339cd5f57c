//! One mirror, from what was last seen to the end of this run.

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use grasp_mirror_commands::count;
use nostr::prelude::{Event, EventId, Timestamp};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    Asked, Transfer,
    newer::{Newer, OVERTAKEN},
    pushes::{Parcel, Target},
    supply::{Supply, SupplyError},
};
use crate::{
    git::wire::{Advertisement, Pushed, RefUpdate, WireError, commands_to},
    model::refs::ObjectId,
    plan::{
        converge::{Answer, LOOKS, Outcome, Seen, Step, Wanted, next_step},
        conversation::PullRequest,
        record::Ending,
        retry::told_secs,
    },
    relay::RelayError,
};

/// More steps than any mirror needs; a plan that runs in circles ends here.
const MAX_STEPS: usize = 64;

/// What a server that lost git data, and still serves the state, needs.
const LOST_DATA: &str = "the server has lost git data that it had, and takes it back only with a newer state \
                         signed by a maintainer";

/// Git's words for a ref that somebody else moved, or is moving.
const REF_MOVED: &str = "failed to update ref";

/// What may be behind that when it stays so.
const STALE_LOCK: &str =
    " (every time: a push that broke off may have left a lock, which the server's operator can remove)";

/// The wait before the second look at a server that has not served something yet; doubled each time.
const LOOK_WAIT: Duration = Duration::from_millis(100);

/// Everything one mirror's run needs.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the server is to have.
    pub wanted: Wanted,
    /// What is known of it.
    pub seen: Seen,
    /// The events `wanted` names.
    pub events: Arc<BTreeMap<EventId, Event>>,
    /// The git data, or how a mirror that needs it ends without it.
    pub git: Result<Supply, Ending>,
    /// When the rest of its events is left to the next run.
    pub until: Option<Instant>,
    /// Something newer than all this, which ends the run early.
    pub newer: Newer,
    /// Whether somebody asked for it: then it does not count for how long the server wanted to be left alone.
    pub insists: bool,
}

/// How a mirror's run ended, and what was seen on the way.
#[derive(Clone, Debug)]
pub struct Done {
    /// What the server was to have.
    pub wanted: Wanted,
    /// How it ended.
    pub ending: Ending,
    /// What the server served and answered.
    pub seen: Seen,
    /// Whether the server was seen to hold the whole conversation, what it refuses for good aside.
    pub holds_conversation: bool,
}

/// A step that went wrong.
enum Stopped {
    Unreachable(String),
    Failed(String),
    /// The server wants to be left alone for a while; for so many seconds where it said so.
    RateLimited(String, Option<u64>),
    /// The server said no to a push, or to a part of it.
    Refused(String),
    /// The server may have carried out a push, and may not.
    Unanswered(String),
    /// There is no git data to push.
    NoData(Ending),
    /// So many events are left to the next run.
    TimeIsUp(usize),
    /// Something newer came.
    Overtaken,
}

impl From<WireError> for Stopped {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Refused { .. } => Self::Refused(error.to_string()),
            WireError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            WireError::Status { status: 429, retry_after_secs, .. }
            | WireError::Status { status: 503, retry_after_secs: retry_after_secs @ Some(_), .. } => {
                Self::RateLimited(error.to_string(), retry_after_secs)
            }
            WireError::Unanswered { .. } => Self::Unanswered(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<SupplyError> for Stopped {
    fn from(error: SupplyError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<RelayError> for Stopped {
    fn from(error: RelayError) -> Self {
        match &error {
            RelayError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            RelayError::RateLimited { reason, .. } => Self::RateLimited(error.to_string(), told_secs(reason)),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Transfer {
    /// Walks one mirror to its end. Never fails: what went wrong is the [`Ending`].
    pub async fn converge(&self, job: Job) -> Done {
        let mut run = Run { transfer: self, job, refusal: None };
        let ending = run.walk().await;
        let Job { wanted, seen, .. } = run.job;
        let holds_conversation = match &seen.lacks {
            Some(lacks) => lacks.iter().all(|id| seen.refused.contains_key(id)),
            None => wanted.conversation.is_empty() || !wanted.takes_conversation(&seen),
        };
        Done { wanted, ending, seen, holds_conversation }
    }
}

struct Run<'transfer> {
    transfer: &'transfer Transfer,
    job: Job,
    /// What the server said when it did not take a push as a whole.
    refusal: Option<String>,
}

impl Run<'_> {
    async fn walk(&mut self) -> Ending {
        let limit = self.transfer.limits.total_timeout;
        let mut left = limit;
        let newer = self.job.newer.clone();
        for _ in 0..MAX_STEPS {
            let step = next_step(&self.job.wanted, &self.job.seen);
            tracing::debug!(
                repository = %self.job.wanted.repository, server = %self.job.wanted.server, ?step, "next step"
            );
            let begun = Instant::now();
            let result = match step {
                Step::Settled(outcome) => {
                    return match (outcome, self.refusal.take()) {
                        (Outcome::Pending(_), Some(reason)) => Ending::Failed(reason),
                        (outcome, _) => Ending::Settled(outcome),
                    };
                }
                _ if newer.has_come() => Err(Stopped::Overtaken),
                // Takes as long as the server's rate makes it; each event has its own limits.
                Step::Send(ids) => tokio::select! {
                    sent = self.send(&ids) => sent,
                    () = newer.comes() => Err(Stopped::Overtaken),
                },
                step => {
                    let Ok(result) = timeout(left, self.carry_out(step)).await else {
                        return Ending::Failed(format!("not done within {} s", limit.as_secs()));
                    };
                    left = left.saturating_sub(begun.elapsed());
                    result
                }
            };
            match result {
                Ok(()) => {}
                Err(Stopped::Unreachable(reason)) => return Ending::Unreachable(reason),
                Err(Stopped::RateLimited(reason, told_secs)) => {
                    if let Some(secs) = told_secs {
                        let server = self.job.wanted.server.relay_url();
                        self.transfer.common.left_alone.note_told(server, secs, &reason);
                    }
                    return Ending::RateLimited { reason, told_secs };
                }
                Err(Stopped::Failed(reason) | Stopped::Refused(reason) | Stopped::Unanswered(reason)) => {
                    return Ending::Failed(reason);
                }
                Err(Stopped::NoData(ending)) => return ending,
                Err(Stopped::Overtaken) => return Ending::Waiting(OVERTAKEN.to_owned()),
                Err(Stopped::TimeIsUp(events)) => {
                    let events = count(events, "event is", "events are");
                    return Ending::Waiting(format!("{events} left to the next run"));
                }
            }
        }
        Ending::Settled(Outcome::Pending("more to do than fits in one run".to_owned()))
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Stopped> {
        match step {
            Step::Send(ids) => self.send(&ids).await,
            Step::Push => self.push().await,
            Step::PushRequests(requests) => self.push_requests(&requests).await,
            Step::Look => self.look().await,
            Step::LookAtConversation => self.look_at_conversation().await,
            Step::Settled(_) => Ok(()),
        }
    }

    async fn send(&mut self, ids: &[EventId]) -> Result<(), Stopped> {
        let relay = self.job.wanted.server.relay_url().clone();
        for (sent, id) in ids.iter().enumerate() {
            // What governs goes as a whole, and at least one event, so that every run brings the next one further: an
            // announcement alone waits for its state, and would be sent again.
            let may_wait = sent > 0 && !self.job.wanted.governing.contains(id);
            if may_wait && self.job.until.is_some_and(|until| Instant::now() >= until) {
                return Err(Stopped::TimeIsUp(ids.len() - sent));
            }
            let Some(event) = self.job.events.get(id) else {
                return Err(Stopped::Failed(format!("the event {id} is not in the store any more")));
            };
            self.wait_for_it()?;
            let answer = self.transfer.relays.send(&relay, event).await;
            let answer = self.heard(Asked::Event, answer, RelayError::is_silence)?;
            tracing::debug!(server = %self.job.wanted.server, event = %id, kind = event.kind.as_u16(), ?answer, "sent");
            let refused = matches!(answer, Answer::Refused(_));
            self.job.seen.answers.insert(*id, answer);
            // What follows a refused announcement would be refused for want of it, not on its own account.
            if refused && self.job.wanted.governing.contains(id) {
                break;
            }
        }
        self.job.seen.fresh = false;
        // What was sent is only there when the server says so itself.
        self.job.seen.lacks = None;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        let seen = &mut self.job.seen;
        if seen.fresh {
            let doublings = u32::from(seen.looks.min(LOOKS));
            tokio::time::sleep(LOOK_WAIT.saturating_mul(1 << doublings)).await;
        }
        let ids: Vec<EventId> = self.job.wanted.proofs().copied().collect();
        let relay = self.job.wanted.server.relay_url();
        seen.served = self.transfer.relays.serves(relay, &ids).await?;
        seen.fresh = true;
        seen.looks = seen.looks.saturating_add(1);
        if self.job.wanted.state.is_some_and(|state| seen.served.contains(&state)) {
            self.refusal = None;
        }
        Ok(())
    }

    async fn look_at_conversation(&mut self) -> Result<(), Stopped> {
        let relay = self.job.wanted.server.relay_url();
        let events = self.job.wanted.conversation.iter().filter_map(|id| self.job.events.get(id));
        let items: Vec<(EventId, Timestamp)> = events.map(|event| (event.id, event.created_at)).collect();
        let lacks = self.transfer.relays.lacks_ids(relay, &items).await?;
        self.job.seen.lacks = Some(lacks);
        Ok(())
    }

    fn url(&self) -> Url {
        let path = &self.job.wanted.place.path;
        self.job.wanted.server.clone_url(&path.owner, &path.identifier)
    }

    /// The server's refs, as a push finds them.
    async fn refs(&self, url: &Url) -> Result<Advertisement, Stopped> {
        let listed = self.transfer.git.receive_pack_refs(url).await;
        Ok(self.heard(Asked::Refs, listed, WireError::is_silence)?)
    }

    /// Takes note of whether the server answers.
    fn heard<T, E: Display>(
        &self,
        asked: Asked,
        answer: Result<T, E>,
        is_silence: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let silence = answer.as_ref().err().filter(|error| is_silence(error)).map(ToString::to_string);
        self.transfer.note_answer(self.job.wanted.server.relay_url(), asked, silence.as_deref());
        answer
    }

    fn supply(&self) -> Result<Supply, Stopped> {
        self.job.git.clone().map_err(Stopped::NoData)
    }

    /// Makes the server's heads and tags exactly the state's.
    async fn push(&mut self) -> Result<(), Stopped> {
        let url = self.url();
        self.wait_for_it()?;
        self.wait_for_earlier().await?;
        for again in [true, false] {
            let advertised = self.refs(&url).await?;
            let commands = commands_to(&advertised.refs, &self.job.wanted.refs);
            if commands.is_empty() && self.job.seen.refs_differ {
                // It only had to show them.
                break;
            }
            let supply = self.supply()?;
            if commands.is_empty() {
                // An earlier push broke off, or met another one, after it had moved the refs: the server has the git
                // data and does not know it.
                self.have_state_applied(&supply, &url).await?;
                break;
            }
            match self.push_pack(&supply, &advertised, &commands).await {
                Ok(()) => break,
                // Somebody else moved a ref meanwhile; some of the others may have been moved.
                Err(Stopped::Refused(reason)) if again && reason.contains(REF_MOVED) => {
                    tracing::info!(%url, reason, "its refs moved meanwhile; reading them again");
                }
                // Git lets no push delete the branch that HEAD names. The rest of the push is there now, so the
                // server can apply the state by itself, HEAD first; it only has to look again.
                Err(Stopped::Refused(reason)) if reason.contains("deletion of the current branch") => {
                    self.have_state_applied(&supply, &url).await?;
                    self.refusal = Some(reason);
                    break;
                }
                // It authorizes a push by states that wait for their git data, and this one has been released.
                Err(Stopped::Refused(_)) if self.job.seen.refs_differ => {
                    self.refusal = Some(LOST_DATA.to_owned());
                    break;
                }
                // What a server refuses now it may do by itself in a moment, and what it did not answer it may have
                // done. A look tells.
                Err(Stopped::Refused(mut reason) | Stopped::Unanswered(mut reason)) => {
                    if reason.contains(REF_MOVED) {
                        reason.push_str(STALE_LOCK);
                    }
                    self.refusal = Some(reason);
                    break;
                }
                Err(stopped) => return Err(stopped),
            }
        }
        if self.job.seen.refs_differ {
            let listed = self.refs(&url).await?;
            self.job.seen.refs_differ = !commands_to(&listed.refs, &self.job.wanted.refs).is_empty();
        }
        self.job.seen.pushed = true;
        self.job.seen.early |= self.transfer.common.returns.is_early(self.job.wanted.server.relay_url());
        self.job.seen.fresh = false;
        Ok(())
    }

    /// Makes the server look again at the states it keeps back: any push that succeeds does, and one to
    /// `refs/nostr/<event id>` needs no state that matches. The ref is taken away again.
    async fn have_state_applied(&self, supply: &Supply, url: &Url) -> Result<(), Stopped> {
        let Some(state) = self.job.wanted.state else { return Ok(()) };
        let mut tip = self.job.wanted.refs.values().next().copied();
        if tip.is_none() {
            // A state without refs leaves nothing to point at but what the server has still.
            tip = self.refs(url).await?.refs.values().next().copied();
        }
        let Some(tip) = tip else { return Ok(()) };
        let null = ObjectId::null(tip.kind());
        let name = format!("refs/nostr/{}", state.to_hex());
        for new in [tip, null] {
            let advertised = self.refs(url).await?;
            // A run that was stopped in between has left the ref behind.
            let old = advertised.refs.get(&name).copied().unwrap_or(null);
            if old != new {
                self.push_pack(supply, &advertised, &[RefUpdate { name: name.clone(), old, new }]).await?;
            }
        }
        Ok(())
    }

    /// Sends `commands` with what the server lacks, or, where it turns out to lack more, with everything.
    async fn push_pack(
        &self,
        supply: &Supply,
        server: &Advertisement,
        commands: &[RefUpdate],
    ) -> Result<(), Stopped> {
        let haves = server.haves();
        let url = &server.url;
        let wants: Vec<ObjectId> =
            commands.iter().map(|command| command.new).filter(|id| !id.is_null()).collect();
        let pack = supply.pack_for(&wants, &haves).await?;
        let mut pushed = self.push_in_turn(Parcel { server, commands, pack: &pack }).await?;
        if let Err(WireError::Refused { reason, .. }) = &pushed
            && reason.contains("unpack")
        {
            // Whatever is wrong with a pack that came from elsewhere shows here.
            supply.take_in().await?;
            let whole = supply.pack_for(&wants, &[]).await?;
            if whole.path() != pack.path() {
                tracing::info!(%url, reason, "the server lacks more than its refs tell; sending everything");
                pushed = self.push_in_turn(Parcel { server, commands, pack: &whole }).await?;
            }
        }
        let pushed = pushed?;
        tracing::info!(%url, refs = commands.len(), sent_bytes = pushed.bytes_sent, "pushed");
        Ok(())
    }

    /// Pushes when there is a place for it at the server, unless something newer comes.
    async fn push_in_turn(&self, parcel: Parcel<'_>) -> Result<Result<Pushed, WireError>, Stopped> {
        let Transfer { common, git, limits, .. } = self.transfer;
        let (target, newer) = (self.target(), &self.job.newer);
        let place = common.pushes.place(&target.0, parcel.pack.len(), *limits, newer).await;
        let place = place.ok_or(Stopped::Overtaken)?;
        // It may have left others without an answer meanwhile.
        self.wait_for_it()?;
        let pushed = common.pushes.push(place, git, &target, parcel, *limits, newer).await;
        Ok(self.heard(Asked::Push, pushed.ok_or(Stopped::Overtaken)?, WireError::is_silence))
    }

    /// Leaves the server alone for as long as it said that it wants to be, to whichever mirror, and for a while when it
    /// does not answer.
    fn wait_for_it(&self) -> Result<(), Stopped> {
        let server = self.job.wanted.server.relay_url();
        let left_alone = &self.transfer.common.left_alone;
        left_alone.is_heard(server).map_err(Stopped::Failed)?;
        let left = left_alone.told(server).filter(|_| !self.job.insists);
        match left {
            Some((secs, words)) => Err(Stopped::RateLimited(words, Some(secs))),
            None => Ok(()),
        }
    }

    /// Waits until nothing is on its way here that an earlier walk pushed.
    async fn wait_for_earlier(&self) -> Result<(), Stopped> {
        let newer = &self.job.newer;
        self.transfer.common.pushes.end_of_earlier(&self.target(), newer).await;
        if newer.has_come() { Err(Stopped::Overtaken) } else { Ok(()) }
    }

    fn target(&self) -> Target {
        (self.job.wanted.server.clone(), self.job.wanted.place.path.clone())
    }

    /// Pushes each pull request's commit on its own: one that is refused must not keep the others away.
    async fn push_requests(&mut self, requests: &[PullRequest]) -> Result<(), Stopped> {
        let supply = self.supply()?;
        let url = self.url();
        self.wait_for_it()?;
        self.wait_for_earlier().await?;
        let mut advertised = self.refs(&url).await?;
        for request in requests {
            self.job.seen.pushed_requests.insert(request.id);
            let name = format!("refs/nostr/{}", request.id.to_hex());
            let old = advertised.refs.get(&name).copied();
            if old == Some(request.tip) {
                continue;
            }
            let command = RefUpdate {
                name: name.clone(),
                old: old.unwrap_or_else(|| ObjectId::null(request.tip.kind())),
                new: request.tip,
            };
            match self.push_pack(&supply, &advertised, &[command]).await {
                Ok(()) => {
                    advertised.refs.insert(name, request.tip);
                }
                Err(Stopped::Failed(reason) | Stopped::Refused(reason) | Stopped::Unanswered(reason)) => {
                    tracing::warn!(pull_request = %request.id, %url, reason, "its commit was not taken");
                }
                Err(stopped) => return Err(stopped),
            }
        }
        self.job.seen.lacks = None;
        Ok(())
    }
}
