//! Time limits that know the difference between slow and stuck.
//!
//! reqwest's own read timeout runs while a body is being uploaded, however well that goes. Here whatever
//! moves, in either direction, restarts the clock for silence; a second clock runs for the whole.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use url::Url;

use super::{Limits, WireError};

/// When something last moved. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
    sent_bytes: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last: Arc::default(), sent_bytes: Arc::default() }
    }

    /// Something moved just now.
    pub(super) fn moved(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// `bytes` of a request's body were taken by the connection just now.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Runs `work` until it is done, was silent for `limits.stall`, or has taken `limits.total`.
    pub(super) async fn watch<T>(
        &self,
        limits: &Limits,
        url: &Url,
        doing: &'static str,
        work: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, WireError> {
        let timed_out = |limit, stalled| WireError::TimedOut { url: url.clone(), doing, limit, stalled };
        let end = self.start + limits.total;
        tokio::pin!(work);
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let silent_until = last + limits.stall;
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(silent_until.min(end)) => {
                    let now = Instant::now();
                    if now >= end {
                        return Err(timed_out(limits.total, false));
                    }
                    // Something may have moved meanwhile: look again before giving up.
                    let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
                    if now >= last + limits.stall {
                        return Err(timed_out(limits.stall, true));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn run(steps: u32, every: Duration) -> (Result<(), WireError>, Duration) {
        let limits =
            Limits { stall: Duration::from_secs(30), total: Duration::from_secs(300), ..Limits::default() };
        let activity = Activity::new();
        let start = Instant::now();
        let url = Url::parse("https://example.com/a.git").unwrap();
        let work = async {
            for _ in 0..steps {
                sleep(every).await;
                activity.moved();
            }
            Ok(())
        };
        (activity.watch(&limits, &url, "pushing", work).await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_is_not_stuck() {
        assert!(run(10, Duration::from_secs(29)).await.0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_work() {
        let (result, took) = run(3, Duration::from_secs(31)).await;
        assert!(matches!(result, Err(WireError::TimedOut { stalled: true, .. })));
        assert_eq!(took.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn drops_of_data_do_not_keep_a_request_alive_for_ever() {
        let (result, took) = run(1000, Duration::from_secs(1)).await;
        assert!(matches!(result, Err(WireError::TimedOut { stalled: false, .. })));
        assert_eq!(took.as_secs(), 300);
    }
}
