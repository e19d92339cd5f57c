//! One repository's part of a cycle: bring its git data here, then walk each of its mirrors.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use grasp_mirror_commands::{clean, count};
use nostr::prelude::Timestamp;

use super::{
    CycleError, Trigger,
    servers::Server,
    subject::{Subject, fingerprint, in_the_way},
    survey::record_name,
    world::World,
};
use crate::{
    git::{GitError, Repository},
    model::{server::ServerUrl, status::MirrorStatus},
    plan::{
        converge::{Outcome, Seen, Wanted},
        record::{self, Ending, HeldConversation, MirrorRecord, REASON_MAX, RepositoryRecord, TooLarge},
    },
    report::document::RepositoryOutcome,
    transfer::{
        blocking,
        fetch::{FetchError, Tips},
        mirror::{Done, Job},
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
    ) -> Result<(RepositoryOutcome, RepositoryRecord), CycleError> {
        let endings = match subject.obstacle.take() {
            Some(obstacle) => {
                let ending = in_the_way(&obstacle);
                let end = |server: &ServerUrl| (server.clone(), (ending.clone(), Seen::default(), None));
                subject.places.keys().map(end).collect()
            }
            None if subject.wanted.is_empty() => BTreeMap::new(),
            None => self.walk_mirrors(&mut subject, servers, trigger, now).await?,
        };
        let mut mirrors: BTreeMap<ServerUrl, MirrorRecord> = BTreeMap::new();
        let mut repaired = 0;
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
                    if record.status == MirrorStatus::InSync && seen.was_sent_something() {
                        repaired += 1;
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
        let in_sync = |mirror: &MirrorRecord| mirror.status == MirrorStatus::InSync;
        if subject.in_depth
            || subject.record.deep_checked_at.is_none() && subject.record.mirrors.values().all(in_sync)
        {
            subject.record.deep_checked_at = Some(now.as_secs());
        }
        self.records.write(&record_name(&subject.repository.coordinate), &subject.record).await?;
        let outcome = RepositoryOutcome {
            coordinate: subject.repository.coordinate,
            state: subject.repository.state.map(|state| state.event.id),
            mirrors: subject.record.mirrors.clone(),
            notes: subject.notes,
            rewritten_at: subject.record.rewritten_at,
            repaired,
        };
        Ok((outcome, subject.record))
    }

    /// Branches and tags first, on every server; then the conversation, so that nobody waits for a stranger's
    /// pull request.
    async fn walk_mirrors(
        &self,
        subject: &mut Subject,
        servers: &BTreeMap<ServerUrl, Server>,
        trigger: Trigger,
        now: Timestamp,
    ) -> Result<BTreeMap<ServerUrl, MirrorEnd>, CycleError> {
        if subject.in_depth || self.is_afresh(&subject.repository.coordinate) {
            self.compare_refs(subject).await;
            self.renew_state(subject, now).await?;
        }
        let git = self.local_copy(subject, now).await;
        let waits = |url: &ServerUrl| {
            let again = subject.record.mirrors.get(url).and_then(|record| record.retry_at);
            trigger == Trigger::Timer && again.is_some_and(|at| at > now.as_secs())
        };
        let mut endings: BTreeMap<ServerUrl, MirrorEnd> = BTreeMap::new();
        let mut walks = Vec::new();
        for (url, wanted) in subject.wanted.iter().filter(|(url, _)| !waits(url)) {
            let Some(seen) = subject.seen.get(url).cloned() else {
                let down = servers.get(url).and_then(|server| server.down.clone());
                let ending = Ending::Unreachable(down.unwrap_or_else(|| "the server is down".to_owned()));
                endings.insert(url.clone(), (ending, Seen::default(), None));
                continue;
            };
            let events = Arc::clone(&subject.events);
            let wanted = Wanted { conversation: Vec::new(), ..wanted.clone() };
            walks.push(self.transfer.converge(Job { wanted, seen, events, git: git.clone() }));
        }
        let mut lacking: Vec<Done> = Vec::new();
        for done in join_all(walks).await {
            let url = done.wanted.server.clone();
            let asked = subject.seen.get(&url).is_some_and(|seen| seen.lacks.is_none());
            if asked && done.ending == Ending::Settled(Outcome::InSync) {
                lacking.push(done);
                continue;
            }
            let held = subject.record.mirrors.get(&url).and_then(|record| record.conversation.clone());
            endings.insert(url, (done.ending, done.seen, held.filter(|_| !asked)));
        }
        if !lacking.is_empty() {
            let talk = self.prepare_conversation(subject, git.as_ref().ok(), now).await?;
            let walks = lacking.into_iter().map(|done| {
                let wanted = Wanted {
                    conversation: talk.conversation.clone(),
                    pull_requests: talk.requests.clone(),
                    ..done.wanted
                };
                let seen = Seen { lacks: None, ..done.seen };
                self.transfer.converge(Job {
                    wanted,
                    seen,
                    events: Arc::clone(&talk.events),
                    git: git.clone(),
                })
            });
            let fingerprint = fingerprint(&talk.conversation);
            for done in join_all(walks).await {
                let complete = done.ending == Ending::Settled(Outcome::InSync) && done.holds_conversation;
                let held = HeldConversation { fingerprint: fingerprint.clone(), seen_at: now.as_secs() };
                endings.insert(done.wanted.server, (done.ending, done.seen, complete.then_some(held)));
            }
        }
        if !subject.record.lost.is_empty() {
            let lost = count(subject.record.lost.len(), "pull request is", "pull requests are");
            subject.notes.push(format!("{lost} not mirrored: nobody has the commits"));
        }
        Ok(endings)
    }

    /// The local copy with everything the state names, its refs moved to it; or how a mirror that needs it ends.
    async fn local_copy(&self, subject: &mut Subject, now: Timestamp) -> Result<Repository, Ending> {
        let Some(state) = subject.repository.state.clone() else {
            return Err(Ending::Failed("nobody has signed a state".to_owned()));
        };
        let folder = self.folder(&subject.repository.coordinate, &subject.repository.folder);
        let opened = blocking(move || Repository::open_or_create(&folder)).await;
        let repository = opened.map_err(|error| Ending::Failed(error.to_string()))?;
        let tips: Tips = state.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect();
        let limit = self.config.limits.max_repo_bytes;
        if let Some(known) = &subject.record.too_large
            && known.still_holds(state.event.id, limit, now)
        {
            return Err(Ending::Blocked(known.reason.clone()));
        }
        subject.record.too_large = None;
        if let Err(error) = self.transfer.bring(&repository, &tips, &self.sources(subject)).await {
            let reason = error.to_string();
            if subject.seen.iter().all(|(server, seen)| {
                subject.wanted.get(server).is_some_and(|wanted| wanted.is_proved_by(seen))
            }) {
                subject.notes.push(clean(&format!("no complete local copy: {reason}"), REASON_MAX));
            }
            if matches!(error, FetchError::NotServed { too_large: true, .. }) {
                let (state, seen_at) = (state.event.id, now.as_secs());
                let known = TooLarge { state, limit, seen_at, reason: clean(&reason, REASON_MAX) };
                subject.record.too_large = Some(known);
                return Err(Ending::Blocked(reason));
            }
            return Err(Ending::Failed(reason));
        }
        let (held, state_id) = (repository.clone(), state.event.id);
        let moved = blocking(move || {
            held.check_tips(&state.refs)?;
            let changes = held.set_refs(&state.refs, state.head.as_ref(), now.as_secs())?;
            Ok::<_, GitError>((changes, held.uses_lfs(&state.refs).unwrap_or(false)))
        })
        .await;
        let (changes, uses_lfs) = moved.map_err(|error| Ending::Failed(error.to_string()))?;
        subject.record.local = Some(state_id);
        if changes.rewritten > 0 {
            tracing::info!(repository = %subject.repository.coordinate, refs = changes.rewritten, "its history was rewritten; the old one is kept");
            subject.record.rewritten_at = Some(now.as_secs());
            // At once: the next run finds the refs moved already, and people are to hear of it.
            let name = record_name(&subject.repository.coordinate);
            let written = self.records.write(&name, &subject.record).await;
            written.map_err(|error| Ending::Failed(error.to_string()))?;
        }
        if uses_lfs {
            subject.notes.push("LFS objects not mirrored".to_owned());
        }
        Ok(repository)
    }

    /// Where its git data may be: the announced clone URLs, then the mirrors themselves.
    pub(super) fn sources(&self, subject: &Subject) -> Vec<String> {
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
}
