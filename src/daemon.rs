//! The loop: a cycle at start, then one whenever it is time, until a signal says stop.

use std::time::Duration;

use indicatif::ProgressBar;
use nostr::prelude::{Keys, Timestamp};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    config::Config,
    cycle::{CycleError, Trigger, World},
    model::coordinate::npub,
    store::{Store, StoreError, lock::Lock},
};

/// How long a cycle may take to come to a safe point after a signal.
const GRACE: Duration = Duration::from_secs(8);

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs cycles until `SIGTERM` or `SIGINT`.
///
/// A cycle that fails as a whole is logged, and the next one is tried when it is time. When a signal comes in
/// the middle of a cycle, the cycle is dropped after a short grace: pushes are all or nothing on the servers,
/// packs come in whole or not at all, and records are written by the database at once.
///
/// # Errors
///
/// [`DaemonError`] when it cannot start.
pub async fn run(config: &Config, keys: &Keys) -> Result<(), DaemonError> {
    let _lock = Lock::take(&config.bot.data_dir)?;
    let store = Store::open(&config.bot.data_dir).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut timer = interval(config.bot.cycle_interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trigger = Trigger::Start;
    tracing::info!(bot = npub(&keys.public_key()), pid = std::process::id(), "started");
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
        let mut cycle = Box::pin(one_cycle(config, keys, &store, trigger));
        let stopped = tokio::select! {
            result = &mut cycle => {
                if let Err(error) = result {
                    tracing::error!(%error, "the cycle failed; the next one is tried when it is time");
                }
                false
            }
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
        };
        if stopped {
            tracing::info!("stopping");
            let _ = timeout(GRACE, cycle).await;
            return Ok(());
        }
        trigger = Trigger::Timer;
    }
}

async fn one_cycle(config: &Config, keys: &Keys, store: &Store, trigger: Trigger) -> Result<(), CycleError> {
    let next_at = Timestamp::from_secs(Timestamp::now().as_secs() + config.bot.cycle_interval.as_secs());
    let done = World::new(config, keys, store)?.run(trigger, Some(next_at), &ProgressBar::hidden()).await?;
    let report = done.report;
    tracing::info!(
        cycle = report.cycle.number,
        in_sync = report.totals.in_sync,
        mirrors = report.totals.mirrors,
        "cycle done"
    );
    Ok(())
}
