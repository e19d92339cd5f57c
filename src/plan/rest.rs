//! When a repository may be left in peace: nothing about it is new, and every server was seen to serve it.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{EventId, PublicKey, RelayUrl, Timestamp};

use super::{
    converge::Seen,
    hold::{Held, Stands},
    holdings::Holdings,
    per_server::{PerServer, Places},
    record::{self, Ending, MirrorRecord, RepositoryRecord},
    retry::Failure,
};
use crate::model::{coordinate::Coordinate, placement::Placement, server::ServerUrl, status::MirrorStatus};

/// A repository is looked at in depth once in this time, in seconds.
const DEEP_EVERY_SECS: u64 = 24 * 3_600;

/// It may be looked at again after this time, when others are not due either: so the work spreads over the day however
/// it began.
const DEEP_AGAIN_SECS: u64 = DEEP_EVERY_SECS / 2;

/// Events by which a server shows that it has a mirror, with their authors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs {
    /// Without these there is no mirror.
    pub governing: Box<[(PublicKey, EventId)]>,
    /// These a server may refuse.
    pub attached: Box<[(PublicKey, EventId)]>,
}

/// What is kept of a repository in memory from one cycle to the next: enough to see that there is nothing to do.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The authoritative state.
    pub state: Option<EventId>,
    /// The events that it was worked out from: maintainers' announcements, the state, the bot's copies of both.
    pub made_of: BTreeSet<EventId>,
    /// What the conversation may point at.
    pub coordinates: Vec<Coordinate>,
    /// The conversation, with dates, and what of it is not forwarded.
    pub thread: BTreeMap<EventId, Timestamp>,
    /// The relays that its maintainers name for the conversation.
    pub relays: Box<[RelayUrl]>,
    /// Fingerprint of what is forwarded.
    pub fingerprint: String,
    /// Where it belongs.
    pub places: Places,
    /// What each server is to serve; empty while there is nothing to mirror.
    pub proofs: PerServer<Proofs>,
    /// How all mirrors end as long as nothing changes, when something is in the way.
    pub obstacle: Option<Ending>,
    /// What is remembered of the mirrors.
    pub record: RepositoryRecord,
    /// What people should know.
    pub notes: Vec<String>,
}

/// How a server answered in this cycle.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// It is down, with the reason.
    Down(&'a str),
    /// It was down, for this reason, and was not asked: its next try is later.
    LeftAlone(&'a str),
    /// It was compared.
    Has(&'a Holdings),
    /// Nothing is known of it.
    NotSeen,
}

/// What bounds a rest.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Unix time.
    pub now: Timestamp,
    /// Whether failing mirrors wait for their next try.
    pub patient: bool,
    /// The largest repository taken, in bytes.
    pub max_repo_bytes: u64,
}

/// How the mirrors stand when there is nothing to do but to note it; `None` when there is something to do. A mirror
/// without an ending stands as it stood: one that is in sync was seen to be so, which [`RepositoryRecord::confirm`]
/// takes in for all mirrors of a server at once.
///
/// Whether people have decided about a state that is held is for the caller to know: here only its time counts.
#[must_use]
pub fn endings<'a>(
    known: &Known,
    terms: Terms,
    look: impl Fn(&ServerUrl) -> Look<'a>,
) -> Option<BTreeMap<ServerUrl, Ending>> {
    let now = terms.now.as_secs();
    let is_over = |held: &Held| match held.stands {
        Stands::Waiting => held.until <= now,
        Stands::Rejected => false,
        Stands::Followed => true,
    };
    if known.record.held.as_ref().is_some_and(is_over) {
        return None;
    }
    if let Some(ending) = &known.obstacle {
        return Some(known.places.keys().map(|server| (server.clone(), ending.clone())).collect());
    }
    if known.proofs.is_empty() {
        return Some(BTreeMap::new());
    }
    let record = &known.record;
    let too_large = record.too_large.as_ref().is_some_and(|known_as| {
        known.state.is_some_and(|state| known_as.still_holds(state, terms.max_repo_bytes, terms.now))
    });
    if !too_large && record.local != known.state || record.lost.values().any(|again| *again <= now) {
        return None;
    }
    let mut ends = BTreeMap::new();
    for (server, proofs) in &known.proofs {
        let mirror = record.mirrors.get(server)?;
        let for_server = mirror.failure == Some(Failure::ServerDown);
        if terms.patient && !for_server && mirror.retry_at.is_some_and(|again| again > now) {
            continue;
        }
        match (look(server), mirror.status) {
            (Look::NotSeen, _) => return None,
            (Look::LeftAlone(_), _) if for_server => {}
            (Look::Down(reason) | Look::LeftAlone(reason), _) => {
                ends.insert(server.clone(), Ending::Down(reason.to_owned()));
            }
            // It is to be there in another way now.
            (Look::Has(_), MirrorStatus::Refused) if known.follows_unwelcome_lead(server, mirror) => {
                return None;
            }
            (Look::Has(_), MirrorStatus::Refused) if is_refused(mirror, proofs) => {}
            (Look::Has(_), MirrorStatus::Blocked) if too_large => {}
            (Look::Has(holdings), MirrorStatus::InSync)
                if mirror.look_again.is_none()
                    && known.is_held(server, mirror, proofs, holdings, terms.now) => {}
            (Look::Has(_), _) => return None,
        }
    }
    Some(ends)
}

fn is_refused(mirror: &MirrorRecord, proofs: &Proofs) -> bool {
    proofs.governing.iter().any(|(_, id)| mirror.refused.contains_key(id))
}

impl Known {
    /// Whether a lead whose announcement the server refuses was to govern the copy there ([`Repository::heed`]).
    ///
    /// [`Repository::heed`]: super::catalog::Repository::heed
    fn follows_unwelcome_lead(&self, server: &ServerUrl, mirror: &MirrorRecord) -> bool {
        let is_lead = self.places.get(server).is_some_and(|place| place.placement == Placement::Lead);
        is_lead && mirror.refused.keys().any(|id| mirror.refuses_unlisted(id))
    }

    /// Whether the server serves all that proves the mirror, and was seen to hold the conversation.
    fn is_held(
        &self,
        server: &ServerUrl,
        mirror: &MirrorRecord,
        proofs: &Proofs,
        holdings: &Holdings,
        now: Timestamp,
    ) -> bool {
        let serves = |(author, id): &(PublicKey, EventId)| holdings.has(author, id);
        let in_namespace =
            self.places.get(server).is_some_and(|place| place.placement == Placement::Namespace);
        let owners = proofs.attached.first().filter(|_| in_namespace);
        let takes_conversation = !owners.is_some_and(|(_, id)| mirror.refused.contains_key(id));
        // Where nobody said anything, nothing was sent by which it could have been seen.
        let converses = || {
            self.thread.is_empty()
                || mirror.conversation.as_ref().is_some_and(|held| held.covers(&self.fingerprint, now))
        };
        proofs.governing.iter().all(serves)
            && proofs.attached.iter().all(|proof| serves(proof) || mirror.refused.contains_key(&proof.1))
            && (!takes_conversation || converses())
    }

    /// Takes in how the mirrors stand after a cycle that found nothing to do, and says whether anybody should know:
    /// only then it is worth writing.
    pub fn rest(&mut self, endings: &BTreeMap<ServerUrl, Ending>, now: Timestamp) -> bool {
        let mut changed = false;
        for (server, ending) in endings {
            let Some(place) = self.places.get(server) else { continue };
            let before = self.record.mirrors.get(server);
            let held = before.and_then(|before| before.conversation.clone());
            let seen = Seen::default();
            let after = record::after(before, place.placement, ending.clone(), &seen, &[], held, now);
            changed |= after.is_news(before);
            self.record.mirrors.insert(server.clone(), after);
        }
        changed
    }
}

/// The repositories whose turn it is to be looked at in depth, the longest unseen first. `repositories` come with the
/// time of their last look; the share of one cycle is what spreads all of them over a day.
#[must_use]
pub fn due_in_depth<'a>(
    repositories: impl Iterator<Item = (&'a Coordinate, Option<u64>)>,
    now: Timestamp,
    interval_secs: u64,
) -> BTreeSet<Coordinate> {
    let mut total: u64 = 0;
    let mut ripe: Vec<(Option<u64>, &Coordinate)> = Vec::new();
    for (coordinate, at) in repositories {
        total += 1;
        if at.is_none_or(|at| at.saturating_add(DEEP_AGAIN_SECS) <= now.as_secs()) {
            ripe.push((at, coordinate));
        }
    }
    let share = total.saturating_mul(interval_secs).div_ceil(DEEP_EVERY_SECS).max(1);
    ripe.sort_unstable();
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    ripe.into_iter().take(share).map(|(_, coordinate)| coordinate.clone()).collect()
}

#[cfg(test)]
mod tests;
