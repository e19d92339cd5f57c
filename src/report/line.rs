//! The bot's status in one line (NIP-38), for people who look at its profile: some relays serve the whole report,
//! kind 30078, to nobody but its author.

use std::time::Duration;

use grasp_mirror_commands::count;
use nostr::prelude::{Kind, LiveStatus, StatusType, Tag, Timestamp};

use super::document::{Report, Totals};
use crate::model::draft::Draft;

/// A bot that has missed as many cycles does not say any more that all is well.
const GOOD_FOR_INTERVALS: u32 = 3;

/// "104 of 108 mirrors in sync on 9 servers".
#[must_use]
pub fn line(totals: &Totals) -> String {
    if totals.mirrors == 0 {
        return "nothing to mirror yet".to_owned();
    }
    let mirrors = count(totals.mirrors, "mirror", "mirrors");
    format!("{} of {mirrors} in sync on {}", totals.in_sync, count(totals.servers, "server", "servers"))
}

/// The kind 30315 event that says [`line()`] as of `now`, until three `interval`s from then (NIP-38, NIP-40).
///
/// It replaces the one before; call [`Draft::unless_said`] or date it after that one.
#[must_use]
pub fn status_line(report: &Report, interval: Duration, now: Timestamp) -> Draft {
    let good_for = interval.saturating_mul(GOOD_FOR_INTERVALS).as_secs();
    let status = LiveStatus {
        status_type: StatusType::General,
        expiration: Some(Timestamp::from_secs(now.as_secs().saturating_add(good_for))),
        reference: None,
    };
    let tags: Vec<Tag> = status.into();
    Draft { kind: Kind::UserStatus, tags, content: line(&report.totals), created_at: now }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::document::{CycleSummary, LeftAlone};

    #[test]
    fn one_line_says_how_it_stands() {
        let said =
            |in_sync, mirrors, servers| line(&Totals { in_sync, mirrors, servers, ..Totals::default() });
        insta::assert_snapshot!(said(104, 108, 9), @"104 of 108 mirrors in sync on 9 servers");
        insta::assert_snapshot!(said(1, 1, 1), @"1 of 1 mirror in sync on 1 server");
        insta::assert_snapshot!(said(0, 0, 9), @"nothing to mirror yet");
    }

    #[test]
    fn it_is_a_general_status_that_expires() {
        let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
        let now = Timestamp::from_secs(1_790_000_000);
        let draft = status_line(&report, Duration::from_secs(3600), now);
        let tags: Vec<_> = draft.tags.iter().map(|tag| tag.as_slice().join(" ")).collect();
        assert_eq!((draft.kind, draft.created_at), (Kind::UserStatus, now));
        assert_eq!(tags, ["d general", "expiration 1790010800"]);
        assert_eq!(draft.content, "nothing to mirror yet");
    }
}
