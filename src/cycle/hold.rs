//! Holds states that take most of a repository away, and writes down what people say of them.

use std::collections::BTreeSet;

use grasp_mirror_commands::approve::Decided;
use nostr::prelude::Timestamp;

use super::{
    CycleError, kept::Kept, memory::remembered, subject::Subject, survey::record_name, world::World,
};
use crate::{
    git::{GitError, Repository as LocalCopy},
    model::coordinate::Coordinate,
    plan::{
        catalog::{Obstacle, Repository},
        hold::{self, Stands, Verdict},
        record::RepositoryRecord,
    },
    store::{StoreError, records::Records},
    transfer::blocking,
};

/// The name of the record with a verdict. It is apart from the repository's own record, which a cycle may be about to
/// write when somebody decides.
fn verdict_name(coordinate: &Coordinate) -> String {
    format!("hold/{coordinate}")
}

impl World {
    /// Puts an obstacle in the way of a state that is not to be followed (yet), before anything is signed or sent
    /// because of it.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails. A local copy that cannot be read is an obstacle, too: nobody knows what
    /// the state would take away.
    pub(super) async fn hold_back(
        &self,
        repository: &mut Repository,
        record: &mut RepositoryRecord,
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let (None, Some(state)) = (&repository.obstacle, &repository.state) else { return Ok(()) };
        if record.local == Some(state.event.id) {
            record.held = None;
            return Ok(());
        }
        let folder = self.folder(&repository.coordinate, &repository.folder);
        let read = blocking(move || match LocalCopy::open(&folder)? {
            Some(copy) => copy.refs(),
            None => Ok::<_, GitError>(Default::default()),
        });
        let old = match read.await {
            Ok(old) => old,
            Err(error) => {
                repository.obstacle = Some(Obstacle::Signed(error.to_string()));
                return Ok(());
            }
        };
        let hold_secs = self.config.mirror.hold.as_secs();
        let (this, before) = ((state.event.id, &state.refs), record.held.take());
        if hold::judge(&old, this, before.as_ref(), None, hold_secs, now).is_none() {
            return Ok(());
        }
        let verdict: Option<Verdict> = self.records.read(&verdict_name(&repository.coordinate)).await?;
        record.held = hold::judge(&old, this, before.as_ref(), verdict.as_ref(), hold_secs, now);
        let reason = record.held.as_ref().and_then(|held| held.reason(&repository.coordinate));
        repository.obstacle = reason.map(Obstacle::Limit);
        Ok(())
    }

    /// Writes down that a state which takes most away is followed, before anything is sent because of that: from then on
    /// it is too late for a no, whatever becomes of this run. Somebody who said so since it was judged is heard.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub(super) async fn begin_to_follow(&self, subject: &mut Subject) -> Result<(), CycleError> {
        let coordinate = &subject.repository.coordinate;
        let Some(held) = subject.record.held.as_mut().filter(|held| held.stands == Stands::Followed) else {
            return Ok(());
        };
        let verdict: Option<Verdict> = self.records.read(&verdict_name(coordinate)).await?;
        if verdict.is_some_and(|verdict| verdict.state == held.state && !verdict.approved) {
            held.stands = Stands::Rejected;
            subject.obstacle = held.reason(coordinate).map(Obstacle::Limit);
            return Ok(());
        }
        Ok(self.records.write(&record_name(coordinate), &subject.record).await?)
    }

    /// The repositories about which somebody, or time, has decided since they were last looked at.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub(super) async fn decided(
        &self,
        kept: &Kept,
        now: Timestamp,
    ) -> Result<BTreeSet<Coordinate>, CycleError> {
        let mut decided = BTreeSet::new();
        for (coordinate, known) in &kept.repositories {
            let Some(held) = &known.record.held else { continue };
            let verdict: Option<Verdict> = self.records.read(&verdict_name(coordinate)).await?;
            if !held.rests(verdict.as_ref(), now) {
                decided.insert(coordinate.clone());
            }
        }
        Ok(decided)
    }
}

/// Writes down what somebody says of the state that is held for a repository; the next cycle does it.
///
/// This may be done while a cycle runs, here or in another process: nobody else writes this record.
///
/// # Errors
///
/// [`StoreError`].
pub async fn decide(
    records: &Records,
    coordinate: &Coordinate,
    approved: bool,
) -> Result<Decided, StoreError> {
    let Some(held) = remembered(records, coordinate).await?.held else { return Ok(Decided::Nothing) };
    if held.stands == Stands::Followed && !approved {
        return Ok(Decided::TooLate);
    }
    let verdict = Verdict { state: held.state, approved };
    records.write(&verdict_name(coordinate), &verdict).await?;
    Ok(Decided::Written { removed: held.removed, of: held.of })
}
