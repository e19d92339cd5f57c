//! What is to be sent around one repository, beside announcements and states: the conversation, and the commits
//! that its pull requests need.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use nostr::prelude::{Event, EventId, Filter};
use tokio::time::{Instant, timeout_at};

use super::{CycleError, lanes::Lanes, repository::Course, subject::Subject, world::World};
use crate::{
    git::Repository,
    model::refs::ObjectId,
    plan::conversation::{self, PullRequest},
    transfer::{blocking, fetch::Tips, supply::Supply},
};

/// Ids in one look-up.
const IDS_PER_FILTER: usize = 500;

/// What there is to send.
pub(super) struct Talk {
    /// In an order every server takes.
    pub(super) conversation: Vec<EventId>,
    /// The pull requests among them, whose commits are here.
    pub(super) requests: Vec<PullRequest>,
    /// The pull requests whose commits nobody has.
    pub(super) lost: Vec<EventId>,
    /// All events that a mirror of the repository may need.
    pub(super) events: Arc<BTreeMap<EventId, Event>>,
}

impl World {
    /// Loads the conversation and fetches the commits of its pull requests. Those that nobody has are
    /// left out with everything that answers them: a server would refuse the answers. `None` when the cycle was over
    /// before they could be looked for.
    pub(super) async fn prepare_conversation(
        &self,
        subject: &Subject,
        git: Option<&Supply>,
        course: &Course<'_>,
    ) -> Result<Option<Talk>, CycleError> {
        let local = match git {
            // Only pull requests need what was fetched to be here already.
            Some(supply) if !subject.pull_requests.is_empty() => {
                supply.take_in().await.is_ok().then(|| supply.repository())
            }
            _ => None,
        };
        let mut loaded: Vec<Event> = Vec::new();
        for some in subject.conversation.chunks(IDS_PER_FILTER) {
            loaded.extend(self.store.query(Filter::new().ids(some.iter().copied())).await?);
        }
        let requests = match local {
            Some(local) => match self.bring_pull_requests(subject, local, course.lanes).await {
                Some(requests) => requests,
                None => return Ok(None),
            },
            None => Vec::new(),
        };
        let here: BTreeSet<EventId> = requests.iter().map(|request| request.id).collect();
        let missing: Vec<EventId> =
            subject.pull_requests.iter().map(|request| request.id).filter(|id| !here.contains(id)).collect();
        let mut conversation = subject.conversation.clone();
        if !missing.is_empty() {
            let without = missing.iter().copied().collect();
            let roots = subject.repository.coordinates();
            conversation = conversation::gather(&roots, &loaded, &without, course.now, usize::MAX).events;
        }
        // Without a local copy nothing was looked for.
        let lost = if local.is_some() { missing } else { Vec::new() };
        let mut events = BTreeMap::clone(&subject.events);
        events.extend(loaded.into_iter().map(|event| (event.id, event)));
        Ok(Some(Talk { conversation, requests, lost, events: Arc::new(events) }))
    }

    /// Fetches the commits of pull requests; returns those that are here.
    ///
    /// Anyone can write a pull request and name any sources, so all of a repository's together get the time
    /// of one transfer. `None` when the cycle was over before it was their turn.
    async fn bring_pull_requests(
        &self,
        subject: &Subject,
        repository: &Repository,
        lanes: &Lanes,
    ) -> Option<Vec<PullRequest>> {
        let (held, all) = (repository.clone(), subject.pull_requests.clone());
        let absent = blocking(move || held.missing(all.iter().map(|request| request.tip))).await;
        let absent: HashSet<ObjectId> = match absent {
            Ok(absent) => absent.into_iter().collect(),
            Err(error) => {
                tracing::warn!(repository = %subject.repository.coordinate, %error, "no pull request is looked at");
                return Some(Vec::new());
            }
        };
        let _place = if absent.is_empty() { None } else { Some(lanes.request_place().await?) };
        let deadline = Instant::now() + self.config.limits.total_timeout;
        let repository_sources = self.sources(subject);
        let limit = self.max_repo_bytes(&subject.repository.coordinate);
        let mut here = Vec::new();
        for request in &subject.pull_requests {
            if absent.contains(&request.tip) {
                let tips = Tips::from([(format!("refs/nostr/{}", request.id.to_hex()), request.tip)]);
                let sources = [&request.clone_urls[..], &repository_sources].concat();
                let bring = self.transfer.bring(repository, &tips, &sources, limit);
                let brought = timeout_at(deadline, bring).await;
                let problem = match brought {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("the time for this repository's pull requests is over".to_owned()),
                };
                if let Some(problem) = problem {
                    tracing::warn!(pull_request = %request.id, problem, "its commit cannot be fetched");
                    continue;
                }
            }
            here.push(request.clone());
        }
        let tips = here.iter().map(|request| (request.id.to_hex(), request.tip)).collect();
        let held = repository.clone();
        if let Err(error) = blocking(move || held.set_pull_requests(&tips)).await {
            tracing::warn!(repository = %subject.repository.coordinate, %error, "commits of pull requests cannot be kept");
            here.clear();
        }
        Some(here)
    }
}
