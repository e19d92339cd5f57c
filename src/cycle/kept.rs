//! What a daemon's cycle leaves for the next one, in memory. Empty before the first; `mirror-once`, `plan` and `verify`
//! have only that.
//!
//! Everything here can be learned again. It is dropped with the connections when the configuration is read again, and
//! as far as it follows from the settings when those change.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{PublicKey, RelayUrl, Timestamp};

use super::servers::Server;
use crate::{
    model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl},
    plan::{
        holdings::{Holdings, Recent},
        placement::Grasp,
        rest::Known,
    },
    report::document::{LeftAlone, NotFound},
};

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// When the last cycle began.
    begun_at: Timestamp,
    /// Servers that said who they are, and when.
    pub(super) introduced: BTreeMap<ServerUrl, (Server, Timestamp)>,
    /// Whose word is read, and where.
    pub(super) people: Option<People>,
    /// What each relay has of announcements, states and lists.
    pub(super) holdings: BTreeMap<RelayUrl, Holdings>,
    /// Which authors each relay was compared for in this cycle.
    pub(super) compared: BTreeMap<RelayUrl, BTreeSet<PublicKey>>,
    /// What each server has of everything of late.
    pub(super) recent: BTreeMap<RelayUrl, Recent>,
    /// When each relay's conversations were last read.
    pub(super) read_at: BTreeMap<RelayUrl, Timestamp>,
    /// Relays named by maintainers that may be used.
    pub(super) usable: BTreeSet<RelayUrl>,
    /// What was worked out.
    pub(super) worked_out: Option<WorkedOut>,
    /// What was known when it was last said what to listen to: what had been saved, and the servers.
    pub(super) told: Option<(u64, u64, BTreeSet<RelayUrl>)>,
    /// When each server was last seen to serve all that counts as in sync there, Unix seconds. What rests is not
    /// written to.
    pub(super) proved: BTreeMap<ServerUrl, u64>,
    /// The number of the last cycle.
    pub(super) number: Option<u64>,
    /// Every repository that is to be mirrored, by coordinate.
    pub(super) repositories: BTreeMap<Coordinate, Known>,
}

/// Everyone whose announcements count, and the relays beyond the configured ones where they publish.
#[derive(Debug)]
pub(super) struct People {
    pub(super) authors: BTreeSet<PublicKey>,
    pub(super) relays: BTreeSet<RelayUrl>,
    /// What had been saved when they were learned ([`crate::store::News::sources`]).
    pub(super) learned_at: u64,
}

/// What the catalog said, beside the repositories.
#[derive(Clone, Debug)]
pub(super) struct WorkedOut {
    /// What had been saved when it was built ([`crate::store::News::sources`]).
    pub(super) sources: u64,
    /// The servers it was worked out for, and whether they were lost.
    pub(super) grasps: BTreeMap<ServerUrl, (Grasp, bool)>,
    /// Servers that announcements list and the configuration does not know.
    pub(super) discovered: BTreeSet<ServerUrl>,
    /// Servers that would be among them but for a rule; they are not asked who they are.
    pub(super) denied: BTreeSet<ServerUrl>,
    /// For the report.
    pub(super) left_alone: LeftAlone,
    /// The same; which relays were asked, each cycle says anew.
    pub(super) not_found: NotFound,
    /// What the bot announces of repositories that are left alone.
    pub(super) obsolete: Vec<Announcement>,
}

impl Kept {
    /// A cycle begins at `now`. What was kept by a clock that was ahead would be believed until that time.
    pub(super) fn begin(&mut self, now: Timestamp) {
        if now < self.begun_at {
            tracing::warn!("the clock was set back; everything is looked at anew");
            *self = Self::default();
        }
        self.begun_at = now;
    }

    /// Only who the servers are: for some families that are walked beside the rest.
    pub(super) fn introductions(&self) -> Self {
        Self { introduced: self.introduced.clone(), ..Self::default() }
    }

    /// What follows from settings or rules is to be worked out again; what relays have is still so.
    pub(super) fn forget_what_follows(&mut self) {
        self.people = None;
        self.told = None;
        self.worked_out = None;
        self.repositories.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_by_a_clock_that_was_ahead_is_forgotten() {
        let at = |secs: u64| Timestamp::from_secs(1_790_000_000 + secs);
        let mut kept = Kept::default();
        kept.begin(at(3_600));
        kept.number = Some(1);
        kept.begin(at(7_200));
        assert_eq!(kept.number, Some(1));
        kept.begin(at(60));
        assert_eq!(kept.number, None);
        kept.number = Some(2);
        kept.begin(at(60));
        assert_eq!(kept.number, Some(2), "what was kept since is good");
    }
}
