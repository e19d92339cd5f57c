//! One repository's part of a cycle: bring its git data here, then walk each of its mirrors.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use grasp_mirror_commands::clean;
use nostr::prelude::{Event, EventId, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::{
    CycleError, Trigger,
    servers::Server,
    survey::{Subject, fingerprint, record_name},
    world::World,
};
use crate::{
    git::{GitError, Repository},
    model::{refs::ObjectId, server::ServerUrl},
    plan::{
        catalog::Obstacle,
        converge::{Outcome, Seen, Wanted},
        conversation::{self, PullRequest},
        record::{self, Ending, HeldConversation, MirrorRecord, TooLarge},
    },
    report::document::RepositoryOutcome,
    transfer::{
        blocking,
        fetch::{FetchError, Tips},
        mirror::Job,
    },
};

/// How one mirror's walk ended, what was seen, and the conversation the server holds.
type MirrorEnd = (Ending, Seen, Option<HeldConversation>);

impl World {
    /// Walks all mirrors of one repository and remembers how they ended.
    ///
    /// # Errors
    ///
    /// [`CycleError`] only when the store fails; everything else belongs to a mirror.
    pub(super) async fn mirror_repository(
        &self,
        mut subject: Subject,
        servers: &BTreeMap<ServerUrl, Server>,
        trigger: Trigger,
        now: Timestamp,
    ) -> Result<RepositoryOutcome, CycleError> {
        let endings = match subject.obstacle.take() {
            Some(obstacle) => {
                let ending = match obstacle {
                    Obstacle::Limit(reason) => Ending::Blocked(reason),
                    Obstacle::Signed(reason) => Ending::Failed(reason),
                };
                let end = |server: &ServerUrl| (server.clone(), (ending.clone(), Seen::default(), None));
                subject.places.keys().map(end).collect()
            }
            None if subject.wanted.is_empty() => BTreeMap::new(),
            None => self.walk_mirrors(&mut subject, servers, trigger, now).await,
        };
        let mut mirrors: BTreeMap<ServerUrl, MirrorRecord> = BTreeMap::new();
        for (server, place) in &subject.places {
            let before = subject.record.mirrors.get(server);
            let governing = subject.wanted.get(server).map(|wanted| wanted.governing.as_slice());
            match endings.get(server) {
                Some((ending, seen, conversation)) => {
                    let record = record::after(
                        before,
                        place.placement,
                        ending.clone(),
                        seen,
                        governing.unwrap_or_default(),
                        conversation.clone(),
                        now,
                    );
                    if let (Some(reason), coordinate) = (&record.reason, &subject.repository.coordinate) {
                        tracing::warn!(repository = %coordinate, %server, status = record.status.as_str(), reason, "not in sync");
                    }
                    mirrors.insert(server.clone(), record);
                }
                // Not its turn: it stands as it stood.
                None => {
                    if let Some(before) = before.filter(|_| !subject.wanted.is_empty()) {
                        mirrors.insert(server.clone(), before.clone());
                    }
                }
            }
        }
        subject.record.mirrors = mirrors;
        self.records.write(&record_name(&subject.repository.coordinate), &subject.record).await?;
        Ok(RepositoryOutcome {
            coordinate: subject.repository.coordinate,
            state: subject.repository.state.map(|state| state.event.id),
            mirrors: subject.record.mirrors,
            notes: subject.notes,
        })
    }

    async fn walk_mirrors(
        &self,
        subject: &mut Subject,
        servers: &BTreeMap<ServerUrl, Server>,
        trigger: Trigger,
        now: Timestamp,
    ) -> BTreeMap<ServerUrl, MirrorEnd> {
        let git = self.local_copy(subject, now).await;
        let too_large = git.as_ref().err().filter(|_| subject.record.too_large.is_some());
        let lacking = subject.seen.values().any(|seen| seen.lacks.is_none());
        let mut requests = Vec::new();
        if lacking && let Ok(repository) = &git {
            requests = self.bring_pull_requests(subject, repository).await;
        }
        // A pull request is served only with its commit; without it there is nothing to send.
        let unavailable: Vec<EventId> = if lacking {
            subject
                .pull_requests
                .iter()
                .map(|request| request.id)
                .filter(|id| !requests.iter().any(|request| request.id == *id))
                .collect()
        } else {
            Vec::new()
        };
        if !unavailable.is_empty() {
            subject.notes.push(format!(
                "{} pull requests are not mirrored: their commits cannot be fetched",
                unavailable.len()
            ));
        }
        // What answers it would be refused for want of it, in every cycle again.
        let talk = (!unavailable.is_empty()).then(|| {
            let left = subject.events.values().filter(|event| !unavailable.contains(&event.id));
            let events: Vec<Event> = left.cloned().collect();
            let found = conversation::gather(&subject.repository.coordinates(), &events, now, usize::MAX);
            found.events.into_iter().collect::<HashSet<EventId>>()
        });
        let walks = subject.wanted.iter().map(|(url, wanted)| {
            let mut wanted: Wanted = wanted.clone();
            wanted.conversation.retain(|id| talk.as_ref().is_none_or(|talk| talk.contains(id)));
            wanted.pull_requests.clone_from(&requests);
            let before = subject.record.mirrors.get(url);
            let waits = trigger == Trigger::Timer
                && before.and_then(|record| record.retry_at).is_some_and(|at| at > now.as_secs());
            let seen = subject.seen.get(url).cloned();
            let down = servers.get(url).and_then(|server| server.down.clone());
            let job = seen.map(|seen| Job { wanted, seen, events: subject.events.clone(), git: git.clone() });
            async move {
                if waits {
                    return None;
                }
                let unreachable =
                    || Ending::Unreachable(down.unwrap_or_else(|| "the server is down".to_owned()));
                let Some(job) = job else {
                    return Some((url.clone(), (unreachable(), Seen::default(), None)));
                };
                let fingerprint = fingerprint(&job.wanted.conversation);
                let asked = job.seen.lacks.is_none();
                let done = self.transfer.converge(job).await;
                let complete = done.ending == Ending::Settled(Outcome::InSync) && done.holds_conversation;
                let held = if !complete {
                    None
                } else if asked {
                    Some(HeldConversation { fingerprint, seen_at: now.as_secs() })
                } else {
                    before.and_then(|record| record.conversation.clone())
                };
                let ending = match done.ending {
                    Ending::Failed(reason) if Some(&reason) == too_large => Ending::Blocked(reason),
                    ending => ending,
                };
                Some((url.clone(), (ending, done.seen, held)))
            }
        });
        join_all(walks).await.into_iter().flatten().collect()
    }

    /// The local copy with everything the state names, its refs moved to it; or why there is none to push.
    async fn local_copy(&self, subject: &mut Subject, now: Timestamp) -> Result<Repository, String> {
        let Some(state) = subject.repository.state.clone() else {
            return Err("nobody has signed a state".to_owned());
        };
        let folder = self.folder(&subject.repository.coordinate, &subject.repository.folder);
        let opened = blocking(move || Repository::open_or_create(&folder)).await;
        let repository = opened.map_err(|error| error.to_string())?;
        let tips: Tips = state.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect();
        let limit = self.config.limits.max_repo_bytes;
        if let Some(known) = &subject.record.too_large
            && known.still_holds(state.event.id, limit, now)
        {
            return Err(known.reason.clone());
        }
        subject.record.too_large = None;
        if let Err(error) = self.transfer.bring(&repository, &tips, &self.sources(subject)).await {
            let reason = error.to_string();
            if matches!(error, FetchError::NotServed { too_large: true, .. }) {
                let (state, seen_at, reason) = (state.event.id, now.as_secs(), clean(&reason, 500));
                subject.record.too_large = Some(TooLarge { state, limit, seen_at, reason });
            }
            if subject.seen.iter().all(|(server, seen)| {
                subject.wanted.get(server).is_some_and(|wanted| wanted.is_proved_by(seen))
            }) {
                subject.notes.push(clean(&format!("no complete local copy: {reason}"), 500));
            }
            return Err(reason);
        }
        let held = repository.clone();
        let moved = blocking(move || {
            held.check_tips(&state.refs)?;
            held.set_refs(&state.refs, state.head.as_ref(), now.as_secs())?;
            Ok::<_, GitError>(held.uses_lfs(&state.refs).unwrap_or(false))
        })
        .await;
        match moved {
            Ok(true) => subject.notes.push("LFS objects not mirrored".to_owned()),
            Ok(false) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(repository)
    }

    /// Where its git data may be: the announced clone URLs, then the mirrors themselves.
    fn sources(&self, subject: &Subject) -> Vec<String> {
        let mut sources = subject.repository.clone_urls();
        for (server, seen) in &subject.seen {
            let Some(wanted) = subject.wanted.get(server) else { continue };
            // Only a server that serves the state has its git data.
            if wanted.state.as_ref().is_some_and(|state| seen.served.contains(state)) {
                let path = &wanted.place.path;
                let url = server.clone_url(&path.owner, &path.identifier).to_string();
                if !sources.contains(&url) {
                    sources.push(url);
                }
            }
        }
        sources
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
