//! A clock that was ahead, as before a machine has heard what time it is, leaves times behind for which somebody would
//! wait for years.

use nostr::prelude::Timestamp;

use super::{RepositoryRecord, TooLarge};
use crate::plan::retry::WAIT_MAX_SECS;

/// `at`, read from a record, or now when that is further ahead than it can have been meant.
#[must_use]
pub fn not_ahead(at: u64, most_secs: u64, now: Timestamp) -> u64 {
    if at > now.as_secs().saturating_add(most_secs) { now.as_secs() } else { at }
}

impl RepositoryRecord {
    /// The same, as it is read at `now`: no time in it is further ahead than it can have been meant.
    #[must_use]
    pub fn as_of(mut self, now: Timestamp) -> Self {
        let mend = |at: &mut u64, most_secs: u64| *at = not_ahead(*at, most_secs, now);
        for at in [&mut self.rewritten_at, &mut self.deep_checked_at].into_iter().flatten() {
            mend(at, 0);
        }
        if let Some(TooLarge { seen_at, .. }) = &mut self.too_large {
            mend(seen_at, 0);
        }
        self.lost.values_mut().for_each(|again| mend(again, Self::LOST_FOR_SECS));
        self.distrusted.values_mut().for_each(|distrust| mend(&mut distrust.until, Self::DISTRUST_SECS));
        if let Some(held) = &mut self.held {
            let ahead = held.since.saturating_sub(now.as_secs());
            (held.since, held.until) = (held.since - ahead, held.until.saturating_sub(ahead));
        }
        for (_, mirror) in self.mirrors.iter_mut() {
            mend(&mut mirror.since, 0);
            mirror.read_back_at.iter_mut().for_each(|at| mend(at, 0));
            mirror.retry_at.iter_mut().for_each(|at| mend(at, WAIT_MAX_SECS));
            mirror.conversation.iter_mut().for_each(|held| mend(&mut held.seen_at, 0));
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::prelude::EventId;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::status::MirrorStatus,
        plan::{
            hold::{Held, Stands},
            record::{HeldConversation, MirrorRecord},
            testing::server,
        },
    };

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    /// All that a repository's record holds of times, written at `at` Unix seconds.
    fn written(at: u64) -> RepositoryRecord {
        let (state, now) = (EventId::from_byte_array([1; 32]), Timestamp::from_secs(at));
        let mirror = MirrorRecord {
            since: at,
            read_back_at: Some(at),
            retry_at: Some(at + WAIT_MAX_SECS),
            conversation: Some(HeldConversation { fingerprint: "f".to_owned(), seen_at: at }),
            ..MirrorRecord::sample(MirrorStatus::Failing)
        };
        let mut record = RepositoryRecord {
            mirrors: [(server("a"), mirror)].into(),
            too_large: Some(TooLarge { state, limit: 1, seen_at: at, reason: String::new() }),
            rewritten_at: Some(at),
            held: Some(Held {
                state,
                since: at,
                until: at + 900,
                removed: 2,
                of: 2,
                stands: Stands::Waiting,
            }),
            deep_checked_at: Some(at),
            ..RepositoryRecord::default()
        };
        record.lose(&[state], now);
        record.distrust("https://one.example", "lied", now);
        record
    }

    #[test]
    fn what_was_written_while_the_clock_was_ahead_is_waited_for_no_longer_than_usual() {
        let year = 365 * 24 * 3_600;
        let record = written(NOW.as_secs() + year).as_of(NOW);
        let mirror = &record.mirrors[&server("a")];
        assert!(!mirror.waits(None, NOW) && record.lost_now(NOW).is_empty());
        assert_eq!(record.deep_checked_at, Some(NOW.as_secs()));
        let held = record.held.unwrap();
        assert_eq!((held.since, held.until), (NOW.as_secs(), NOW.as_secs() + 900), "people have their time");
        assert_eq!(mirror.conversation.as_ref().unwrap().seen_at, NOW.as_secs());
    }

    proptest! {
        /// What was written by a good clock is read as it was written, and nothing is further ahead than if it had been
        /// written now.
        #[test]
        fn a_good_clock_changes_nothing(ago in 0_u64..1 << 30, ahead: u32) {
            let record = written(NOW.as_secs() - ago);
            prop_assert_eq!(record.clone().as_of(NOW), record);
            let mended = written(NOW.as_secs() + u64::from(ahead)).as_of(NOW);
            let latest = written(NOW.as_secs());
            let latest = &latest.mirrors[&server("a")];
            let mirror = &mended.mirrors[&server("a")];
            prop_assert!(mirror.retry_at <= latest.retry_at && mirror.since <= latest.since);
            prop_assert!(mended.deep_checked_at <= Some(NOW.as_secs()));
            prop_assert_eq!(mended.clone().as_of(NOW), mended);
        }
    }
}
