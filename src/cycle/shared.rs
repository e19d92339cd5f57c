//! What the cycles and the jobs beside them share: whose turn a family is, word of what is newer, the pushes, what was
//! learned of relays, and what became of repositories.
//!
//! A family (all repositories with one identifier) is walked by one job, or by cycles: two walks of one repository would
//! write one record and move one copy's refs. Whoever finds a job there comes back when it has ended, and works the
//! family out anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::{OnceCell, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};

use crate::{
    model::coordinate::Coordinate,
    relay::Learned,
    report::document::RepositoryOutcome,
    transfer::{self, newer::Word},
};

/// How long a job waits for another walk of the family, before that is to leave its long pushes to themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// One for all [`World`](super::World)s of a program.
#[derive(Debug, Default)]
pub struct Shared {
    /// Says what is overtaken.
    pub(super) word: Word,
    pub(super) transfer: Arc<transfer::Common>,
    learned: Arc<Learned>,
    turns: Mutex<HashMap<String, Arc<RwLock<()>>>>,
    /// What an earlier process left behind is taken up.
    pub(super) taken_up: OnceCell<()>,
    /// Held by whoever signs a report: the next one is to be newer.
    pub(super) reporting: tokio::sync::Mutex<()>,
    /// What jobs did since the last cycle began.
    followed: Mutex<BTreeMap<Coordinate, RepositoryOutcome>>,
}

/// Families that nobody else is at.
pub type Turns = BTreeMap<String, Turn>;

/// A family that nobody else is at, until this is dropped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>);

/// A family that no job is at, until this is dropped.
#[derive(Debug)]
pub(super) struct Joined(#[allow(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>);

impl Shared {
    /// Waits until nobody else is at `family`.
    pub async fn turn(&self, family: &str) -> Turn {
        let turn = self.family(family).write_owned();
        tokio::pin!(turn);
        loop {
            if let Ok(turn) = timeout(PATIENCE, &mut turn).await {
                return Turn(turn);
            }
            self.word.spread([family]);
        }
    }

    /// Those of `families` that nobody else is at, after at most `limit`.
    pub(super) async fn turns(&self, families: &BTreeSet<String>, limit: Duration) -> Turns {
        let turns = families.iter().map(|family| async {
            let turn = timeout(limit, self.turn(family)).await.ok()?;
            Some((family.clone(), turn))
        });
        join_all(turns).await.into_iter().flatten().collect()
    }

    /// A place at a repository's family beside other walks of the same cycle; `None` when a job is there, or waits to be,
    /// or has been since the cycle began.
    pub(super) fn join_unless_followed(&self, coordinate: &Coordinate) -> Option<Joined> {
        let joined = self.family(&coordinate.identifier).try_read_owned().ok().map(Joined);
        joined.filter(|_| !self.done().contains_key(coordinate))
    }

    /// What relays have shown of themselves.
    #[must_use]
    pub fn learned(&self) -> &Arc<Learned> {
        &self.learned
    }

    /// Breaks off the pushes that were left to themselves.
    pub fn break_off(&self) {
        self.transfer.break_off();
    }

    /// What jobs did since the last cycle began.
    #[must_use]
    pub fn followed(&self) -> Vec<RepositoryOutcome> {
        self.done().values().cloned().collect()
    }

    /// A cycle begins: the repositories that jobs walked since the last one did.
    pub(super) fn begin(&self) -> BTreeSet<Coordinate> {
        lock(&self.turns).retain(|_, turn| Arc::strong_count(turn) > 1);
        mem::take(&mut *self.done()).into_keys().collect()
    }

    /// A job has walked a repository, and holds its turn still.
    pub(super) fn note(&self, outcome: RepositoryOutcome) {
        self.done().insert(outcome.coordinate.clone(), outcome);
    }

    /// A cycle has walked a repository since, and holds its turn still.
    pub(super) fn forget(&self, coordinate: &Coordinate) {
        self.done().remove(coordinate);
    }

    fn family(&self, family: &str) -> Arc<RwLock<()>> {
        Arc::clone(lock(&self.turns).entry(family.to_owned()).or_default())
    }

    fn done(&self) -> MutexGuard<'_, BTreeMap<Coordinate, RepositoryOutcome>> {
        lock(&self.followed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use nostr::prelude::Keys;

    use super::*;
    use crate::plan::record::RepositoryRecord;

    #[tokio::test(start_paused = true)]
    async fn a_job_is_alone_and_walks_of_a_cycle_are_not() {
        let shared = Shared::default();
        let owner = Keys::generate().public_key();
        let a = Coordinate::new(owner, "a");
        let join = || shared.join_unless_followed(&a);
        let (one, other) = (join(), join());
        assert!(one.is_some() && other.is_some() && shared.turn("b").now_or_never().is_some());
        let newer = shared.word.as_of_now().of("a");
        let waiting = shared.turn("a");
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(join().is_none(), "nobody goes ahead of a job that waits");
        let leave_off = async {
            newer.comes().await;
            drop((one, other));
        };
        let (turn, ()) = tokio::join!(waiting, leave_off);
        assert!(join().is_none() && shared.turn("a").now_or_never().is_none());
        shared.note(RepositoryOutcome::recorded(a.clone(), None, &RepositoryRecord::default()));
        drop(turn);
        assert!(join().is_none(), "what the cycle has read may be older");
        assert_eq!(shared.followed().len(), 1);
        assert_eq!(shared.begin(), BTreeSet::from([a.clone()]));
        assert!(lock(&shared.turns).is_empty(), "nothing is kept of families that nobody is at");
        assert!(join().is_some() && shared.followed().is_empty());
    }
}
