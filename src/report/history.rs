//! What changed of each mirror of a repository: its last [`CHANGES_MAX`] changes, for people who want to know since when.

use std::collections::{BTreeMap, VecDeque};

use grasp_mirror_commands::clean;
use nostr::prelude::EventId;
use serde::{Deserialize, Serialize};

use crate::{
    model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{per_server::Mirrors, record::MirrorRecord},
};

/// The most changes kept of one mirror.
pub const CHANGES_MAX: usize = 50;

/// The most servers kept of one repository; of more, those go first that have not changed for longest.
const SERVERS_MAX: usize = 64;

/// The longest reason kept, in characters. The whole one is in the mirror's record.
const REASON_MAX: usize = 200;

/// The name of a repository's record.
#[must_use]
pub fn record_name(coordinate: &Coordinate) -> String {
    format!("history/{coordinate}")
}

/// A mirror was otherwise before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When that was seen, Unix seconds.
    pub at: u64,
    /// How it has stood since then.
    pub status: MirrorStatus,
    /// Why it is not in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The maintainers' state that it was brought, or was to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<EventId>,
}

impl Change {
    fn of(mirror: &MirrorRecord, at: u64) -> Self {
        let reason = mirror.reason.as_deref().map(|reason| clean(reason, REASON_MAX));
        Self { at, status: mirror.status, reason, state: mirror.state }
    }

    fn is_after(&self, before: &Self) -> bool {
        (self.status, &self.reason, self.state) != (before.status, &before.reason, before.state)
    }
}

/// The changes of one repository's mirrors, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    mirrors: BTreeMap<ServerUrl, VecDeque<Change>>,
}

/// The mirrors that a run has come to. What waits its turn has not changed, and says anew each time how long it waits.
fn tried(mirrors: &Mirrors) -> impl Iterator<Item = (&ServerUrl, &MirrorRecord)> {
    mirrors.iter().filter(|(_, mirror)| !mirror.waits_its_turn())
}

/// Whether there is something to note.
#[must_use]
pub fn has_changed(before: &Mirrors, after: &Mirrors) -> bool {
    tried(after).any(|(server, mirror)| {
        before.get(server).is_none_or(|before| Change::of(mirror, 0).is_after(&Change::of(before, 0)))
    })
}

impl History {
    /// Notes how the mirrors stand at `now` (Unix seconds), where that is new.
    pub fn note(&mut self, mirrors: &Mirrors, now: u64) {
        for (server, mirror) in tried(mirrors) {
            let changes = self.mirrors.entry(server.clone()).or_default();
            let change = Change::of(mirror, now);
            if changes.back().is_none_or(|last| change.is_after(last)) {
                changes.push_back(change);
                let surplus = changes.len().saturating_sub(CHANGES_MAX);
                changes.drain(..surplus);
            }
        }
        while self.mirrors.len() > SERVERS_MAX {
            let last = |changes: &VecDeque<Change>| changes.back().map(|change| change.at);
            let oldest = self.mirrors.iter().min_by_key(|(_, changes)| last(changes));
            let Some(server) = oldest.map(|(server, _)| server.clone()) else { return };
            self.mirrors.remove(&server);
        }
    }

    /// The changes at one server, the oldest first.
    pub fn at(&self, server: &ServerUrl) -> impl Iterator<Item = &Change> {
        self.mirrors.get(server).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn mirror(status: MirrorStatus, reason: Option<&str>, state: u8) -> MirrorRecord {
        MirrorRecord {
            reason: reason.map(str::to_owned),
            state: Some(EventId::from_byte_array([state; 32])),
            ..MirrorRecord::sample(status)
        }
    }

    fn at(name: &str, mirror: MirrorRecord) -> Mirrors {
        Mirrors::from([(format!("wss://{name}").parse().unwrap(), mirror)])
    }

    #[test]
    fn a_change_is_noted_and_what_stays_is_not() {
        let mut history = History::default();
        let good = at("a.example", mirror(MirrorStatus::InSync, None, 1));
        let bad = at("a.example", mirror(MirrorStatus::Failing, Some("broke"), 1));
        let newer = at("a.example", mirror(MirrorStatus::InSync, None, 2));
        assert!(has_changed(&Mirrors::default(), &good) && !has_changed(&good, &good));
        assert!(has_changed(&good, &bad) && has_changed(&good, &newer), "a new state is news, too");
        for (now, mirrors) in [(1, &good), (2, &good), (3, &bad), (4, &bad), (5, &newer)] {
            history.note(mirrors, now);
        }
        let server = "wss://a.example".parse().unwrap();
        let noted: Vec<_> = history.at(&server).map(|change| (change.at, change.status)).collect();
        assert_eq!(noted, [(1, MirrorStatus::InSync), (3, MirrorStatus::Failing), (5, MirrorStatus::InSync)]);
        let json = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&json).unwrap(), history);
    }

    #[test]
    fn waiting_is_no_change_and_hides_none() {
        let good = at("a.example", mirror(MirrorStatus::InSync, None, 1));
        let waits = at("a.example", mirror(MirrorStatus::Pending, Some("waits its turn: 56 min to go"), 2));
        let mut tried = mirror(MirrorStatus::Pending, Some("not read back"), 2);
        tried.failures = 1;
        let tried = at("a.example", tried);
        assert!(!has_changed(&good, &waits) && !has_changed(&Mirrors::default(), &waits));
        assert!(has_changed(&waits, &tried) && has_changed(&waits, &good));
        let mut history = History::default();
        for (now, mirrors) in [(1, &good), (2, &waits), (3, &tried), (4, &waits), (5, &good)] {
            history.note(mirrors, now);
        }
        let server = "wss://a.example".parse().unwrap();
        let noted: Vec<_> = history.at(&server).map(|change| (change.at, change.status)).collect();
        assert_eq!(noted, [(1, MirrorStatus::InSync), (3, MirrorStatus::Pending), (5, MirrorStatus::InSync)]);
    }

    #[test]
    fn it_is_bounded_in_every_direction() {
        let mut history = History::default();
        for n in 0..200 {
            let reason = format!("{n}{}", "x".repeat(10_000));
            history.note(&at("a.example", mirror(MirrorStatus::Failing, Some(&reason), 1)), n);
            history.note(&at(&format!("s{n}.example"), mirror(MirrorStatus::InSync, None, 1)), n);
        }
        let server = "wss://a.example".parse().unwrap();
        assert_eq!(
            history.at(&server).map(|change| change.at).collect::<Vec<_>>(),
            (150..200).collect::<Vec<_>>()
        );
        assert!(
            history.at(&server).all(|change| change.reason.as_ref().unwrap().chars().count() <= REASON_MAX)
        );
        assert_eq!(history.mirrors.len(), SERVERS_MAX);
    }
}
