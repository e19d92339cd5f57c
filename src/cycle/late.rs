//! What was said of late: one question a server, whatever the number of repositories.
//!
//! A GRASP server has little but what is about its repositories, so it is asked for everything since the last cycle,
//! by comparing (NIP-77) what it was seen to have; an ordinary relay has everybody's notes, and is asked for what
//! points at the repositories. What is found this way only says *which* repositories to look at: those are then read to
//! the end, everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use nostr::prelude::{Event, EventId, Filter, RelayUrl, Timestamp};

use super::{
    CycleError,
    compare::Notes,
    kept::Kept,
    threads::{AT_EVENT, AT_REPOSITORY, VALUES_PER_FILTER},
    world::{AT_ONCE, World},
};
use crate::{
    model::coordinate::Coordinate,
    plan::{holdings::Recent, rest::Known, targets::Targets},
    relay::{Difference, RelayError},
};

/// Filters in one request; relays take ten or more.
const FILTERS_PER_REQUEST: usize = 10;

/// Events asked for in one request; a full answer may have left some out.
const PAGE: usize = 500;

/// By how much two looks at an ordinary relay overlap, in seconds: events come late.
const OVERLAP_SECS: u64 = 3_600;

/// Answers to what is older are found when the repository is read to the end, in seconds.
const LIVELY_SECS: u64 = 30 * 24 * 3_600;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Repositories about which something new was said.
    pub(super) touched: BTreeSet<Coordinate>,
    /// Relays of which it is not known what they have: to be read to the end.
    pub(super) unknown: BTreeSet<RelayUrl>,
    /// Relays that were read.
    read: BTreeSet<RelayUrl>,
}

/// What a server said when it was asked what it has of late.
pub(super) struct Answered {
    relay: RelayUrl,
    /// What it was seen to have before.
    recent: Recent,
    answer: Result<Option<Difference>, RelayError>,
}

impl Answered {
    /// What it was seen to have before, as if it had not been asked.
    pub(super) fn unheard(self) -> (RelayUrl, Recent) {
        (self.relay, self.recent)
    }
}

impl World {
    /// What events may point at, what is denied left out: of that nothing more is fetched.
    fn targets(&self, repositories: &BTreeMap<Coordinate, Known>) -> Targets {
        Targets::of(repositories.iter().filter(|(_, known)| self.admits(known)))
    }

    /// Whether the operator's rules let it be mirrored.
    pub(super) fn admits(&self, known: &Known) -> bool {
        self.policy.admits_all(&known.coordinates).is_ok()
    }

    /// Asks servers what they have of late beside what they were seen to have.
    pub(super) async fn ask_of_late(&self, servers: Vec<(RelayUrl, Recent)>) -> Vec<Answered> {
        stream::iter(servers)
            .map(|(relay, recent)| async move {
                let filter = Filter::new().since(recent.since());
                let answer = self.relays.compare(&relay, filter, &recent.items()).await;
                Answered { relay, recent, answer }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Finds out about which repositories something was said since the last cycle, and stores it. `answers` are those of
    /// the `servers` that were asked.
    pub(super) async fn listen(
        &self,
        servers: &BTreeSet<RelayUrl>,
        answers: Vec<Answered>,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<Late, CycleError> {
        let mut late = Late { unknown: servers.clone(), ..Late::default() };
        let mut heard: Vec<Event> = Vec::new();
        let mut targets: Option<Arc<Targets>> = None;
        for Answered { relay, mut recent, answer } in answers {
            late.unknown.remove(&relay);
            let done = match answer {
                Ok(Some(difference)) if difference.extra.is_empty() => {
                    recent.strike(&difference.lacks);
                    Ok(true)
                }
                Ok(difference) => {
                    let targets = targets.get_or_insert_with(|| Arc::new(self.targets(&kept.repositories)));
                    self.hear(&relay, &mut recent, difference, targets, &mut heard).await?
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(true) => {
                    recent.read(now);
                    late.read.insert(relay.clone());
                }
                Ok(false) => {
                    late.unknown.insert(relay.clone());
                }
                Err(error) => {
                    tracing::warn!(%relay, %error, "what was said there of late was not read");
                }
            }
            kept.recent.insert(relay, recent);
        }
        self.listen_on_relays(servers, kept, now, &mut late, &mut heard).await;
        if !heard.is_empty() {
            let targets = targets.unwrap_or_else(|| Arc::new(self.targets(&kept.repositories)));
            for event in &heard {
                let new = |coordinate: &&Coordinate| {
                    kept.repositories
                        .get(*coordinate)
                        .is_some_and(|known| !known.thread.contains_key(&event.id))
                };
                late.touched.extend(targets.hit(event).filter(new).cloned());
            }
        }
        late.read.iter().for_each(|relay| {
            kept.read_at.insert(relay.clone(), now);
        });
        Ok(late)
    }

    /// Takes in what a server has beside what it was seen to have: what matters goes into the store and into `heard`.
    /// `false` when it was more than can be looked at.
    async fn hear(
        &self,
        relay: &RelayUrl,
        recent: &mut Recent,
        difference: Option<Difference>,
        targets: &Arc<Targets>,
        heard: &mut Vec<Event>,
    ) -> Result<Result<bool, RelayError>, CycleError> {
        let notes = Notes::default();
        let wanted = Arc::clone(targets);
        let admit = notes.taking(move |event| wanted.hit(event).next().is_some());
        let Some(difference) = difference else {
            let filter = Filter::new().since(recent.since()).limit(PAGE);
            let read = self.relays.read_through(relay, vec![filter], admit).await;
            let full = notes.take().len() >= PAGE;
            return Ok(read.map(|events| {
                heard.extend(events);
                !full
            }));
        };
        recent.strike(&difference.lacks);
        let known = self.store.by_ids(&difference.extra).await?;
        let stored: BTreeSet<EventId> = known.iter().map(|event| event.id).collect();
        let new: Vec<EventId> = difference.extra.into_iter().filter(|id| !stored.contains(id)).collect();
        if new.len() > self.config.limits.max_events_per_repo {
            return Ok(Ok(false));
        }
        recent.add(known.iter().map(|event| (event.id, event.created_at)));
        heard.extend(known);
        let fetched = self.relays.fetch(relay, &new, &admit).await;
        recent.add(notes.take().iter().map(|event| (event.id, event.created_at)));
        Ok(fetched.map(|events| {
            heard.extend(events);
            true
        }))
    }

    async fn listen_on_relays(
        &self,
        servers: &BTreeSet<RelayUrl>,
        kept: &Kept,
        now: Timestamp,
        late: &mut Late,
        heard: &mut Vec<Event>,
    ) {
        let relays: BTreeSet<&RelayUrl> = kept.usable.difference(servers).collect();
        if relays.is_empty() {
            return;
        }
        let mut per_relay: BTreeMap<&RelayUrl, Vec<&Known>> = BTreeMap::new();
        for known in kept.repositories.values().filter(|known| self.admits(known)) {
            for relay in known.relays.iter().filter(|relay| relays.contains(relay)) {
                per_relay.entry(relay).or_default().push(known);
            }
        }
        let mut asks = Vec::new();
        for (relay, repositories) in per_relay {
            match kept.read_at.get(relay) {
                Some(at) => asks.push((relay.clone(), questions(&repositories, *at, now))),
                None => {
                    late.unknown.insert(relay.clone());
                }
            }
        }
        let answers: Vec<_> = stream::iter(asks)
            .map(|(relay, filters)| async move {
                let mut events = Vec::new();
                for some in filters.chunks(FILTERS_PER_REQUEST) {
                    let answer = self.relays.read_through(&relay, some.to_vec(), Arc::new(|_| true)).await;
                    match answer {
                        Ok(answer) if answer.len() >= PAGE => return (relay, Ok(None)),
                        Ok(answer) => events.extend(answer),
                        Err(error) => return (relay, Err(error)),
                    }
                }
                (relay, Ok(Some(events)))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (relay, answer) in answers {
            match answer {
                Ok(Some(events)) => {
                    heard.extend(events);
                    late.read.insert(relay);
                }
                Ok(None) => {
                    late.unknown.insert(relay);
                }
                Err(error) => {
                    tracing::warn!(%relay, %error, "what was said there of late was not read");
                }
            }
        }
    }
}

/// What an ordinary relay is asked, which was last read at `read_at`.
fn questions(repositories: &[&Known], read_at: Timestamp, now: Timestamp) -> Vec<Filter> {
    let since = Timestamp::from_secs(read_at.as_secs().saturating_sub(OVERLAP_SECS));
    let lively = Timestamp::from_secs(now.as_secs().saturating_sub(LIVELY_SECS));
    let coordinates: BTreeSet<String> =
        repositories.iter().flat_map(|known| &known.coordinates).map(ToString::to_string).collect();
    let events: BTreeSet<String> = repositories
        .iter()
        .flat_map(|known| &known.thread)
        .filter(|(_, at)| **at >= lively)
        .map(|(id, _)| id.to_hex())
        .collect();
    let mut filters = Vec::new();
    for (targets, tags) in [(coordinates, AT_REPOSITORY), (events, AT_EVENT)] {
        let targets: Vec<String> = targets.into_iter().collect();
        for some in targets.chunks(VALUES_PER_FILTER) {
            filters.extend(tags.map(|tag| Filter::new().custom_tags(tag, some.iter().cloned()).since(since)));
        }
    }
    filters
}
