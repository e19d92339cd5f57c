//! What a running cycle says of itself: to who watches the terminal, and, by a record, to `status` beside it.

use std::{
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use grasp_mirror_commands::span;
use indicatif::ProgressBar;
use nostr::prelude::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::lanes::Lanes;
use crate::{
    plan::progress::Progress,
    store::{StoreError, records::Records},
};

const RECORD: &str = "progress";

/// Between two records; a cycle that is over sooner writes none.
const EVERY: Duration = Duration::from_secs(3);

/// Where a cycle writes up how far it is.
pub(super) struct Board<'bar> {
    bar: &'bar ProgressBar,
    since: Timestamp,
    done: AtomicUsize,
    repos: AtomicUsize,
    /// Known when everything was looked at.
    lanes: OnceLock<Lanes>,
}

impl<'bar> Board<'bar> {
    pub(super) fn new(bar: &'bar ProgressBar) -> Self {
        Self {
            bar,
            since: Timestamp::now(),
            done: AtomicUsize::new(0),
            repos: AtomicUsize::new(0),
            lanes: OnceLock::new(),
        }
    }

    /// What is being done, for who watches.
    pub(super) fn say(&self, message: &'static str) {
        self.bar.set_message(message);
    }

    /// So many repositories are walked in `lanes` from now on.
    pub(super) fn begin(&self, repos: usize, lanes: Lanes) -> &Lanes {
        self.repos.store(repos, Ordering::Relaxed);
        self.bar.set_length(repos as u64);
        self.say("mirroring");
        self.lanes.get_or_init(|| lanes)
    }

    /// One more repository is done.
    pub(super) fn one_more(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
    }

    /// Runs `work`, and writes down meanwhile how far it is.
    pub(super) async fn kept_by<T>(&self, records: &Records, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            let write = self.write(records);
            tokio::pin!(write);
            tokio::select! {
                done = &mut work => {
                    // Written to its end, or it might appear after it was taken down.
                    write.await;
                    return done;
                }
                () = &mut write => {}
            }
        }
    }

    async fn write(&self, records: &Records) {
        let progress = self.now();
        if let Some(slowest) = progress.servers.iter().max_by_key(|server| server.seconds_left)
            && let Some(seconds) = slowest.seconds_left
        {
            let host = slowest.url.host();
            self.bar.set_message(format!("mirroring ({host}: about {} to go)", span(seconds)));
        }
        if let Err(error) = records.write(RECORD, &progress).await {
            tracing::warn!(%error, "how far the cycle is was not written down");
        }
    }

    fn now(&self) -> Progress {
        Progress {
            since: self.since.as_secs(),
            updated_at: Timestamp::now().as_secs(),
            done: self.done.load(Ordering::Relaxed),
            repos: self.repos.load(Ordering::Relaxed),
            servers: self.lanes.get().map(Lanes::progress).unwrap_or_default(),
        }
    }

    /// The cycle is over. Also takes down what one left behind that was killed.
    pub(super) async fn take_down(&self, records: &Records) -> Result<(), StoreError> {
        match records.read::<Progress>(RECORD).await? {
            Some(_) => records.remove(RECORD).await,
            None => Ok(()),
        }
    }
}

/// How far the running cycle is; `None` when none runs, or a short one.
///
/// # Errors
///
/// [`StoreError`].
pub async fn running(records: &Records) -> Result<Option<Progress>, StoreError> {
    let progress: Option<Progress> = records.read(RECORD).await?;
    Ok(progress.filter(|progress| progress.is_fresh(Timestamp::now())))
}
