//! One repository's git data: brought here, as far as it has to be before it is sent on, and then taken into the local
//! copy.

use std::collections::BTreeSet;

use grasp_mirror_commands::clean;
use nostr::prelude::Timestamp;

use super::{CycleError, subject::Subject, survey::record_name, world::World};
use crate::{
    git::{GitError, Repository},
    model::{address::shown_text, server::ServerUrl, state::State},
    plan::{
        record::{Ending, REASON_MAX, TooLarge},
        retry::Failure,
    },
    transfer::{
        blocking,
        fetch::{FetchError, Tips},
        supply::{Supply, SupplyError},
    },
};

/// What became of the local copy.
pub(super) struct Settled {
    /// The git data, whole and here; or how a mirror that needs it ends.
    pub(super) git: Result<Supply, Ending>,
    /// Whether it is not what the servers were sent first.
    pub(super) is_other_data: bool,
}

impl World {
    /// Brings a repository's git data here, as far as it has to be here before it is sent on.
    pub(super) async fn prepare(
        &self,
        subject: &mut Subject,
        now: Timestamp,
    ) -> Result<Result<Supply, Ending>, CycleError> {
        let all = subject.in_depth || self.is_afresh(&subject.repository.coordinate);
        let again = subject.record.mirrors.iter().filter(|(_, mirror)| mirror.is_looked_at_again(now));
        let again: BTreeSet<ServerUrl> = again.map(|(server, _)| server.clone()).collect();
        if all || !again.is_empty() {
            self.compare_refs(subject, all, &again).await;
            self.renew_state(subject, now).await?;
        }
        Ok(self.git_data(subject, now).await)
    }

    /// Everything the state names, here or as a pack that was just fetched; or how a mirror that needs it ends.
    async fn git_data(&self, subject: &mut Subject, now: Timestamp) -> Result<Supply, Ending> {
        let Some(state) = subject.repository.state.clone() else {
            return Err(Ending::Failed("nobody has signed a state".to_owned()));
        };
        let folder = self.folder(&subject.repository.coordinate, &subject.repository.folder);
        let opened = blocking(move || Repository::open_or_create(&folder)).await;
        let repository = opened.map_err(|error| ours(&error))?;
        self.borrow(&subject.repository, &repository).await;
        let limit = self.max_repo_bytes(&subject.repository.coordinate);
        if let Some(known) = &subject.record.too_large
            && known.still_holds(state.event.id, limit, now)
        {
            return Err(Ending::Blocked(known.reason.clone()));
        }
        subject.record.too_large = None;
        let fetched = self.transfer.fetch(&repository, &tips(&state), &self.sources(subject), limit).await;
        fetched.map_err(|error| self.not_brought(subject, &state, &error, now))
    }

    /// How a mirror ends that needs git data which could not be brought here.
    fn not_brought(
        &self,
        subject: &mut Subject,
        state: &State,
        error: &FetchError,
        now: Timestamp,
    ) -> Ending {
        let reason = error.to_string();
        if subject
            .seen
            .iter()
            .all(|(server, seen)| subject.wanted.get(server).is_some_and(|wanted| wanted.is_proved_by(seen)))
        {
            note_incomplete(subject, &reason);
        }
        if matches!(error, FetchError::NotServed { too_large: true, .. }) {
            let (limit, seen_at) = (self.max_repo_bytes(&subject.repository.coordinate), now.as_secs());
            let known =
                TooLarge { state: state.event.id, limit, seen_at, reason: clean(&reason, REASON_MAX) };
            subject.record.too_large = Some(known);
            return Ending::Blocked(reason);
        }
        let failure = match error {
            FetchError::DiskFull { .. } => Failure::Disk,
            FetchError::Local(_) => Failure::Ours,
            FetchError::NotServed { .. } if subject.record.distrusted.is_empty() => Failure::SourceGone,
            FetchError::NotServed { .. } => Failure::SourceLies,
        };
        Ending::Hindered(failure, reason)
    }

    /// Takes what was fetched into the local copy and moves its refs. A pack that fails the check is thrown away,
    /// its source is marked, and the others are asked.
    pub(super) async fn settle(
        &self,
        subject: &mut Subject,
        git: Result<Supply, Ending>,
        now: Timestamp,
    ) -> Settled {
        let (supply, state) = match (git, subject.repository.state.clone()) {
            (Ok(supply), Some(state)) => (supply, state),
            (git, _) => return Settled { git, is_other_data: false },
        };
        let mut supply = supply;
        let mut is_other_data = false;
        if let Err(error) = supply.take_in().await {
            let reason = error.to_string();
            let SupplyError::Spoiled { source_url, .. } = error else {
                return Settled { git: Err(behind(subject, &error)), is_other_data };
            };
            tracing::warn!(repository = %subject.repository.coordinate, reason, "the local copy is not whole");
            subject.record.distrust(&source_url, &clean(&reason, REASON_MAX), now);
            let mut sources = self.sources(subject);
            sources.retain(|source| shown_text(source) != source_url);
            let repository = supply.repository().clone();
            let limit = self.max_repo_bytes(&subject.repository.coordinate);
            if let Err(error) = self.transfer.bring(&repository, &tips(&state), &sources, limit).await {
                let git = Err(self.not_brought(subject, &state, &error, now));
                return Settled { git, is_other_data };
            }
            supply = Supply::of(repository);
            is_other_data = true;
        }
        let git = self.move_refs(subject, &state, &supply, now).await.map(|()| supply);
        Settled { git, is_other_data }
    }

    /// Makes the local refs those of `state`, all of which is here.
    async fn move_refs(
        &self,
        subject: &mut Subject,
        state: &State,
        supply: &Supply,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let (held, refs, head) = (supply.repository().clone(), state.refs.clone(), state.head.clone());
        let moved = blocking(move || {
            let changes = held.set_refs(&refs, head.as_ref(), now.as_secs())?;
            Ok::<_, GitError>((changes, held.uses_lfs(&refs).unwrap_or(false)))
        })
        .await;
        let (changes, uses_lfs) = moved.map_err(|error| behind(subject, &error))?;
        subject.record.local = Some(state.event.id);
        if changes.rewritten > 0 {
            tracing::info!(repository = %subject.repository.coordinate, refs = changes.rewritten, "its history was rewritten; the old one is kept");
            subject.record.rewritten_at = Some(now.as_secs());
            // At once: the next run finds the refs moved already, and people are to hear of it.
            let name = record_name(&subject.repository.coordinate);
            let written = self.records.write(&name, &subject.record).await;
            written.map_err(|error| ours(&error))?;
        }
        if uses_lfs {
            subject.notes.push("LFS objects not mirrored".to_owned());
        }
        Ok(())
    }

    /// Where its git data may be: the announced clone URLs, then the mirrors themselves; those that sent something
    /// else than they were asked for come last.
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
        sources.sort_by_key(|source| subject.record.distrusted.contains_key(&shown_text(source)));
        sources
    }
}

/// How a mirror ends for which this machine is at fault.
fn ours(error: &impl ToString) -> Ending {
    Ending::Hindered(Failure::Ours, error.to_string())
}

/// How a mirror ends that needs the local copy, which does not follow. The others may be well, so it is told by itself.
fn behind(subject: &mut Subject, error: &impl ToString) -> Ending {
    let reason = error.to_string();
    tracing::warn!(repository = %subject.repository.coordinate, reason, "the local copy does not follow");
    note_incomplete(subject, &reason);
    ours(error)
}

fn note_incomplete(subject: &mut Subject, reason: &str) {
    subject.notes.push(clean(&format!("no complete local copy: {reason}"), REASON_MAX));
}

/// What has to be here for `state`.
fn tips(state: &State) -> Tips {
    state.refs.iter().map(|(name, id)| (name.to_string(), *id)).collect()
}
