//! What is to be sent around one repository, beside announcements and states: the conversation, and the commits
//! that its pull requests need.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use nostr::prelude::{Event, EventId, Filter, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::{CycleError, subject::Subject, world::World};
use crate::{
    git::Repository,
    model::refs::ObjectId,
    plan::conversation::{self, PullRequest},
    transfer::{blocking, fetch::Tips},
};

/// Ids in one look-up.
const IDS_PER_FILTER: usize = 500;

/// What there is to send.
pub(super) struct Talk {
    /// In an order every server takes.
    pub(super) conversation: Vec<EventId>,
    /// The pull requests among them, whose commits are here.
    pub(super) requests: Vec<PullRequest>,
    /// All events that a mirror of the repository may need.
    pub(super) events: Arc<BTreeMap<EventId, Event>>,
}

impl World {
    /// Loads the conversation and fetches the commits of its pull requests. Those that nobody has are
    /// remembered, and left out with everything that answers them: a server would refuse the answers.
    pub(super) async fn prepare_conversation(
        &self,
        subject: &mut Subject,
        local: Option<&Repository>,
        now: Timestamp,
    ) -> Result<Talk, CycleError> {
        let mut loaded: Vec<Event> = Vec::new();
        for some in subject.conversation.chunks(IDS_PER_FILTER) {
            loaded.extend(self.store.query(Filter::new().ids(some.iter().copied())).await?);
        }
        let requests = match local {
            Some(local) => self.bring_pull_requests(subject, local).await,
            None => Vec::new(),
        };
        let here: BTreeSet<EventId> = requests.iter().map(|request| request.id).collect();
        let missing: Vec<EventId> =
            subject.pull_requests.iter().map(|request| request.id).filter(|id| !here.contains(id)).collect();
        let mut conversation = subject.conversation.clone();
        if !missing.is_empty() {
            let without = missing.iter().copied().collect();
            let roots = subject.repository.coordinates();
            conversation = conversation::gather(&roots, &loaded, &without, now, usize::MAX).events;
        }
        // Without a local copy nothing was looked for.
        if local.is_some() {
            subject.record.lose(&missing, now);
        }
        let mut events = BTreeMap::clone(&subject.events);
        events.extend(loaded.into_iter().map(|event| (event.id, event)));
        Ok(Talk { conversation, requests, events: Arc::new(events) })
    }

    /// Fetches the commits of pull requests; returns those that are here.
    ///
    /// Anyone can write a pull request and name any sources, so all of a repository's together get the time
    /// of one transfer.
    async fn bring_pull_requests(&self, subject: &Subject, repository: &Repository) -> Vec<PullRequest> {
        let deadline = Instant::now() + self.config.limits.total_timeout;
        let (held, all) = (repository.clone(), subject.pull_requests.clone());
        let absent = blocking(move || held.missing(all.iter().map(|request| request.tip))).await;
        let absent: HashSet<ObjectId> = match absent {
            Ok(absent) => absent.into_iter().collect(),
            Err(error) => {
                tracing::warn!(repository = %subject.repository.coordinate, %error, "no pull request is looked at");
                return Vec::new();
            }
        };
        let repository_sources = self.sources(subject);
        let mut here = Vec::new();
        for request in &subject.pull_requests {
            if absent.contains(&request.tip) {
                let tips = Tips::from([(format!("refs/nostr/{}", request.id.to_hex()), request.tip)]);
                let sources = [&request.clone_urls[..], &repository_sources].concat();
                let brought = timeout_at(deadline, self.transfer.bring(repository, &tips, &sources)).await;
                let problem = match brought {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("the time for this repository's pull requests is over".to_owned()),
                };
                if let Some(problem) = problem {
                    tracing::warn!(pull_request = %request.id, problem, "its commit cannot be fetched");
                    continue;
                }
            }
            let (held, id, tip) = (repository.clone(), request.id.to_hex(), request.tip);
            match blocking(move || held.set_pull_request(&id, tip)).await {
                Ok(()) => here.push(request.clone()),
                Err(error) => tracing::warn!(pull_request = %request.id, %error, "its commit cannot be kept"),
            }
        }
        here
    }
}
