//! One repository's part of a cycle: its git data is brought here (`git_data.rs`), then each of its mirrors is walked.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::future::join_all;
use grasp_mirror_commands::count;
use nostr::prelude::{EventId, Timestamp};
use tokio::sync::OnceCell;

use super::{
    CycleError, Trigger,
    lanes::{Lanes, has_work},
    servers::Server,
    subject::{Subject, in_the_way},
    survey::record_name,
    talk::Talk,
    world::World,
};
use crate::{
    model::{server::ServerUrl, status::MirrorStatus},
    plan::{
        converge::{Outcome, Seen, Wanted},
        per_server::Mirrors,
        record::{self, Ending, HeldConversation, MirrorRecord},
        rest::Known,
        retry::{Failure, Tried},
        wanted::fingerprint,
    },
    report::document::RepositoryOutcome,
    transfer::{
        mirror::Job,
        newer::{AsOf, Newer, OVERTAKEN},
        supply::Supply,
    },
};

/// How one mirror's walk ended, what was seen, and the conversation the server holds.
type MirrorEnd = (Ending, Seen, Option<HeldConversation>);

/// What a repository's mirrors have in common while they are walked.
#[derive(Clone, Copy)]
struct Given<'a> {
    git: &'a Result<Supply, Ending>,
    newer: &'a Newer,
    /// The conversation, once somebody needs it.
    talk: &'a OnceCell<Option<Talk>>,
}

/// The cycle that a repository is walked in.
pub(super) struct Course<'cycle> {
    pub(super) servers: &'cycle BTreeMap<ServerUrl, Server>,
    pub(super) lanes: &'cycle Lanes,
    pub(super) trigger: Trigger,
    pub(super) now: Timestamp,
    /// What had been heard before anything was looked at.
    pub(super) as_of: &'cycle AsOf,
}

impl World {
    /// Walks all mirrors of one repository and remembers how they ended: what became of it, and what is known of it now.
    ///
    /// # Errors
    ///
    /// [`CycleError`] only when the store fails; everything else belongs to a mirror.
    pub(super) async fn mirror_repository(
        &self,
        mut subject: Subject,
        course: &Course<'_>,
    ) -> Result<(RepositoryOutcome, Known), CycleError> {
        let now = course.now;
        let _turn = subject.turn.take();
        self.begin_to_follow(&mut subject).await?;
        let known = subject.known();
        let is_there = subject.obstacle.is_some()
            || !subject.wanted.is_empty()
            || subject.places.is_empty() && subject.repository.state.is_some();
        let endings = match subject.obstacle.take() {
            Some(obstacle) => {
                let ending = in_the_way(&obstacle);
                let end = |server: &ServerUrl| (server.clone(), (ending.clone(), Seen::default(), None));
                subject.places.keys().map(end).collect()
            }
            None if subject.wanted.is_empty() => BTreeMap::new(),
            None => Box::pin(self.walk_mirrors(&mut subject, course)).await?,
        };
        let mut mirrors = self.records_after(&subject, &endings, course);
        if is_there {
            mirrors.extend(barred(&subject, now));
        }
        let mirrors: Mirrors = mirrors.into();
        let coordinate = &subject.repository.coordinate;
        self.note_changes(coordinate, &subject.record.mirrors, &mirrors, now).await?;
        subject.record.mirrors = mirrors;
        let in_sync = |mirror: &MirrorRecord| mirror.status == MirrorStatus::InSync;
        if subject.in_depth
            || subject.record.deep_checked_at.is_none() && subject.record.mirrors.values().all(in_sync)
        {
            subject.record.deep_checked_at = Some(now.as_secs());
        }
        self.note_cool_downs().await?;
        self.records.write(&record_name(&subject.repository.coordinate), &subject.record).await?;
        self.shared.forget(&subject.repository.coordinate);
        let mirrors = &subject.record.mirrors;
        let is_repaired = |(server, (_, seen, _)): &(&ServerUrl, &MirrorEnd)| {
            mirrors.get(*server).is_some_and(in_sync) && seen.was_sent_something()
        };
        let repaired = endings.iter().filter(is_repaired).count();
        let state = subject.repository.state_id();
        let known = Known { record: subject.record, notes: subject.notes.clone(), ..known };
        let recorded = RepositoryOutcome::recorded(subject.repository.coordinate, state, &known.record);
        Ok((RepositoryOutcome { notes: subject.notes, repaired, ..recorded }, known))
    }

    /// What is remembered of each mirror from now on. One whose turn it was not stands as it stood.
    fn records_after(
        &self,
        subject: &Subject,
        endings: &BTreeMap<ServerUrl, MirrorEnd>,
        course: &Course<'_>,
    ) -> BTreeMap<ServerUrl, MirrorRecord> {
        let (now, coordinate) = (course.now, &subject.repository.coordinate);
        let mut mirrors = BTreeMap::new();
        let said: HashSet<&EventId> = subject.thread.iter().map(|(id, _)| id).collect();
        for (server, place) in &subject.places {
            let before = subject.record.mirrors.get(server);
            let Some((ending, seen, conversation)) = endings.get(server) else {
                let stands = before.filter(|_| !subject.wanted.is_empty());
                mirrors.extend(stands.map(|before| (server.clone(), before.clone())));
                continue;
            };
            let wanted = subject.wanted.get(server);
            let governing = wanted.map(|wanted| wanted.governing.as_slice()).unwrap_or_default();
            let (ended, held) = (ending.clone(), conversation.clone());
            let mut record = record::after(before, place.placement, ended, seen, governing, held, now);
            let tried = Tried { repository: Some(coordinate), server, state: subject.repository.state_id() };
            self.backoff().schedule(&mut record, before, &tried, ending.told_secs(), now);
            if wanted.is_some() {
                record.forget_refusals(|id| said.contains(id) || subject.events.contains_key(id));
            }
            record.wait_for_server(course.servers.get(server).and_then(|server| server.retry_at));
            if let Some(reason) = record.reason.as_ref().filter(|_| record.is_news(before)) {
                tracing::warn!(repository = %coordinate, %server, status = record.status.as_str(), reason, "not in sync");
            }
            mirrors.insert(server.clone(), record);
        }
        mirrors
    }

    /// Branches and tags first, on every server; then the conversation, so that nobody waits for a stranger's
    /// pull request.
    async fn walk_mirrors(
        &self,
        subject: &mut Subject,
        course: &Course<'_>,
    ) -> Result<BTreeMap<ServerUrl, MirrorEnd>, CycleError> {
        let now = course.now;
        let newer = course.as_of.of(&subject.repository.coordinate.identifier);
        let place = tokio::select! {
            place = course.lanes.copy_place() => place.ok_or("waits its turn: other repositories are fetched first"),
            () = newer.comes() => Err(OVERTAKEN),
        };
        let git = match place {
            // To its end, whatever comes: else a slow source would never be done.
            Ok(_place) => Box::pin(self.prepare(subject, now)).await?,
            Err(reason) => Err(Ending::Waiting(reason.to_owned())),
        };
        let is_afresh = self.is_afresh(&subject.repository.coordinate);
        let waits = |url: &ServerUrl| {
            let Some(record) = subject.record.mirrors.get(url) else { return false };
            match course.trigger {
                Trigger::Once => false,
                Trigger::Timer if record.waits(subject.repository.state_id(), now) => true,
                // What a server said holds whatever has changed.
                _ => !is_afresh && record.cools_down(now),
            }
        };
        let mut endings: BTreeMap<ServerUrl, MirrorEnd> = BTreeMap::new();
        let mut turn = Vec::new();
        for url in subject.wanted.keys().filter(|url| !subject.standing.contains(*url)) {
            if waits(url) {
                course.lanes.dropped(url);
            } else if subject.seen.contains_key(url) {
                turn.push(url.clone());
            } else {
                let server = course.servers.get(url);
                let known = subject.record.mirrors.get(url);
                if server.is_some_and(|server| server.left_alone)
                    && known.is_some_and(|record| record.failure == Some(Failure::ServerDown))
                {
                    continue;
                }
                let down = server.and_then(|server| server.down.clone());
                let ending = Ending::Down(down.unwrap_or_else(|| "the server is down".to_owned()));
                endings.insert(url.clone(), (ending, Seen::default(), None));
            }
        }
        endings.extend(self.walk_all(subject, turn, &git, &newer, course).await?);
        let settled = self.settle(subject, git, now).await;
        if settled.is_other_data {
            // What failed may have failed for what it was sent.
            let again = |(_, (ending, ..)): &(&ServerUrl, &MirrorEnd)| matches!(ending, Ending::Failed(_));
            let again = endings.iter().filter(again).map(|(url, _)| url.clone()).collect();
            endings.extend(self.walk_all(subject, again, &settled.git, &newer, course).await?);
        }
        subject.notes.extend(subject.record.distrusted_now(now));
        if !subject.record.lost.is_empty() {
            let lost = count(subject.record.lost.len(), "pull request is", "pull requests are");
            subject.notes.push(format!("{lost} not mirrored: nobody has the commits"));
        }
        Ok(endings)
    }

    /// Walks the mirrors on `servers`.
    async fn walk_all(
        &self,
        subject: &mut Subject,
        servers: Vec<ServerUrl>,
        git: &Result<Supply, Ending>,
        newer: &Newer,
        course: &Course<'_>,
    ) -> Result<Vec<(ServerUrl, MirrorEnd)>, CycleError> {
        let talk = OnceCell::new();
        let given = Given { git, newer, talk: &talk };
        let walks = servers.iter().map(|url| self.walk_mirror(subject, url, given, course));
        let ends = join_all(walks).await.into_iter().collect::<Result<_, _>>()?;
        if let Some(talk) = talk.into_inner().flatten() {
            subject.record.lose(&talk.lost, course.now);
        }
        Ok(ends)
    }

    /// Walks one mirror, each part of the way when its turn has come in the server's lane.
    async fn walk_mirror(
        &self,
        subject: &Subject,
        url: &ServerUrl,
        given: Given<'_>,
        course: &Course<'_>,
    ) -> Result<(ServerUrl, MirrorEnd), CycleError> {
        let (Some(wanted), Some(seen)) = (subject.wanted.get(url), subject.seen.get(url)) else {
            return Ok((
                url.clone(),
                (Ending::Waiting("nothing is known of it".to_owned()), Seen::default(), None),
            ));
        };
        if !has_work(wanted, seen) {
            let job = self.branches(subject, wanted, seen, given, course.lanes);
            let done = Box::pin(self.transfer.converge(job)).await;
            course.lanes.dropped(url);
            return Ok((url.clone(), (done.ending, done.seen, held_before(subject, url))));
        }
        let end = self.walk_parts(subject, (wanted, seen), given, course).await?;
        match &end.0 {
            // Whoever brought the news goes on.
            Ending::Waiting(_) if given.newer.has_come() => course.lanes.dropped(url),
            Ending::Waiting(_) => course.lanes.cut_short(),
            Ending::RateLimited { told_secs: Some(_), .. } => course.lanes.close(url, &end.0),
            _ => course.lanes.done(url, end.1.answers.len()),
        }
        Ok((url.clone(), end))
    }

    async fn walk_parts(
        &self,
        subject: &Subject,
        (wanted, seen): (&Wanted, &Seen),
        given: Given<'_>,
        course: &Course<'_>,
    ) -> Result<MirrorEnd, CycleError> {
        let (server, lanes, Given { git, newer, talk }) = (&wanted.server, course.lanes, given);
        if let Err(ending @ Ending::Waiting(_)) = git {
            return Ok((ending.clone(), Seen::default(), None));
        }
        let first = || self.transfer.converge(self.branches(subject, wanted, seen, given, lanes));
        let done = match lanes.take(server, newer, first).await {
            Ok(done) => done,
            Err(ending) => return Ok((ending, Seen::default(), None)),
        };
        if done.ending != Ending::Settled(Outcome::InSync) {
            return Ok((done.ending, done.seen, None));
        }
        // It is known already that the server holds the conversation.
        if seen.lacks.is_some() {
            return Ok((done.ending, done.seen, held_before(subject, server)));
        }
        let prepare = || Box::pin(self.prepare_conversation(subject, git.as_ref().ok(), course));
        let talk = tokio::select! {
            talk = talk.get_or_try_init(prepare) => talk?,
            () = newer.comes() => return Ok((Ending::Waiting(OVERTAKEN.to_owned()), done.seen, None)),
        };
        let Some(talk) = talk else {
            let reason = "waits its turn: the pull requests of other repositories are fetched first";
            return Ok((Ending::Waiting(reason.to_owned()), done.seen, None));
        };
        let (sent, again) = (done.seen.clone(), done);
        let second = || {
            let conversation = talk.conversation.clone();
            let wanted = Wanted { conversation, pull_requests: talk.requests.clone(), ..again.wanted };
            let (events, git) = (Arc::clone(&talk.events), git.clone());
            let (until, newer) = (lanes.until(), newer.clone());
            let insists = self.is_afresh(&subject.repository.coordinate);
            self.transfer.converge(Job { wanted, seen: again.seen, events, git, until, newer, insists })
        };
        let done = match lanes.take(server, newer, second).await {
            Ok(done) => done,
            Err(ending) => return Ok((ending, sent, None)),
        };
        let complete = done.ending == Ending::Settled(Outcome::InSync) && done.holds_conversation;
        let fingerprint = fingerprint(&talk.conversation);
        let held = complete.then(|| HeldConversation { fingerprint, seen_at: course.now.as_secs() });
        Ok((done.ending, done.seen, held))
    }

    /// The first part of a mirror's way, without the conversation.
    fn branches(
        &self,
        subject: &Subject,
        wanted: &Wanted,
        seen: &Seen,
        given: Given<'_>,
        lanes: &Lanes,
    ) -> Job {
        Job {
            wanted: Wanted { conversation: Vec::new(), ..wanted.clone() },
            seen: seen.clone(),
            events: Arc::clone(&subject.events),
            git: given.git.clone(),
            until: lanes.until(),
            newer: given.newer.clone(),
            insists: self.is_afresh(&subject.repository.coordinate),
        }
    }
}

/// What is remembered of the mirrors that a rule keeps away.
fn barred(subject: &Subject, now: Timestamp) -> impl Iterator<Item = (ServerUrl, MirrorRecord)> {
    subject.barred.iter().map(move |(server, (place, rule))| {
        let before = subject.record.mirrors.get(server);
        let (ending, nothing) = (Ending::Blocked(rule.to_string()), Seen::default());
        let held = held_before(subject, server);
        let record = record::after(before, place.placement, ending, &nothing, &[], held, now);
        (server.clone(), record)
    })
}

fn held_before(subject: &Subject, server: &ServerUrl) -> Option<HeldConversation> {
    subject.record.mirrors.get(server).and_then(|record| record.conversation.clone())
}
