//! Which servers are away, as far as whoever listens to them knows, and which have just come back.
//!
//! One that starts may put its refs in order by what it knew before, and serve a newer state over the older refs
//! (ngit-grasp 3.0.9). So what is pushed to it in the first moments is looked at once more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nostr::prelude::RelayUrl;
use tokio::time::Instant;

/// For how long a server that is back has just come back.
const EARLY: Duration = Duration::from_secs(60);

/// One for all work of a program.
#[derive(Debug, Default)]
pub(super) struct Returns(Mutex<HashMap<RelayUrl, Stands>>);

#[derive(Debug)]
enum Stands {
    Away,
    BackSince(Instant),
}

impl Stands {
    fn is_early(&self) -> bool {
        match self {
            Self::Away => true,
            Self::BackSince(at) => at.elapsed() < EARLY,
        }
    }
}

impl Returns {
    /// The connection to `server` was lost, or could not be made.
    pub(super) fn lost(&self, server: &RelayUrl) {
        self.known().insert(server.clone(), Stands::Away);
    }

    /// `server` is listened to (again).
    pub(super) fn back(&self, server: &RelayUrl) {
        let mut known = self.known();
        known.retain(|_, stands| stands.is_early());
        if let Some(stands @ Stands::Away) = known.get_mut(server) {
            *stands = Stands::BackSince(Instant::now());
        }
    }

    /// Nobody listens to `server` any more.
    pub(super) fn forget(&self, server: &RelayUrl) {
        self.known().remove(server);
    }

    /// Whether `server` has just come back. One that answers while it counts as away is heard of in a moment.
    pub(super) fn is_early(&self, server: &RelayUrl) -> bool {
        self.known().get(server).is_some_and(Stands::is_early)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RelayUrl, Stands>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_has_just_come_back_for_a_minute_after_it_was_away() {
        let [one, other] =
            ["wss://one.example", "wss://other.example"].map(|url| RelayUrl::parse(url).unwrap());
        let returns = Returns::default();
        returns.back(&one);
        assert!(!returns.is_early(&one), "it was there before anybody listened");
        returns.lost(&one);
        advance(2 * EARLY).await;
        assert!(returns.is_early(&one) && !returns.is_early(&other), "nobody has heard yet that it is back");
        returns.back(&one);
        advance(EARLY / 2).await;
        returns.back(&one);
        advance(EARLY / 2 - Duration::from_millis(1)).await;
        assert!(returns.is_early(&one));
        advance(Duration::from_millis(1)).await;
        assert!(!returns.is_early(&one), "it has come back once");
        returns.lost(&other);
        returns.back(&other);
        assert_eq!(returns.known().len(), 1, "nothing is kept of those that are back for long");
        returns.forget(&other);
        assert!(!returns.is_early(&other));
    }
}
