//! What of the bot survives when it is killed: stored events, records, local copies, the journal.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{
        coordinate::Coordinate,
        refs::{ObjectId, Refs},
        replace::wins,
        server::ServerUrl,
    },
    plan::{
        catalog::Watched, hold::Verdict, journal::Entry, record::RepositoryRecord, retry::ServerTries,
        signing::Signing,
    },
};
use nostr::{
    event::{Event, EventId, Kind},
    types::Timestamp,
};

use crate::relays::same_address;

/// A local copy.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Its objects.
    pub objects: BTreeSet<ObjectId>,
    /// Its heads and tags.
    pub refs: Refs,
}

/// The data folder.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Stored events.
    pub events: BTreeMap<EventId, Event>,
    deleted: BTreeSet<EventId>,
    /// Records, as they are written.
    records: BTreeMap<Coordinate, String>,
    /// Local copies.
    pub copies: BTreeMap<Coordinate, Copy>,
    /// Servers that were once reached.
    pub met: BTreeSet<usize>,
    /// Questions and what became of them, as they are written.
    pub journal: BTreeMap<EventId, String>,
    /// Servers that could not be worked with.
    pub tries: BTreeMap<ServerUrl, ServerTries>,
    /// Servers that are down, and since when.
    pub down: BTreeMap<ServerUrl, u64>,
    /// What the bot's lists say.
    pub watched: Watched,
    /// Whether it was told to pause.
    pub paused: bool,
    /// What people said of states that are held.
    pub verdicts: BTreeMap<Coordinate, Verdict>,
    /// Servers that want to be left alone, and until when.
    pub cooling: BTreeMap<usize, u64>,
    /// What was signed for repositories, as it is written.
    signing: BTreeMap<Coordinate, String>,
}

impl Disk {
    /// Takes an event as the database does: the newest of each address, and nothing that its author deleted.
    pub fn save(&mut self, event: &Event) {
        if self.deleted.contains(&event.id) || self.events.contains_key(&event.id) {
            return;
        }
        if event.kind == Kind::EventDeletion {
            self.obey_deletion(event);
        }
        if event.kind.is_addressable() || event.kind.is_replaceable() {
            if self.coordinate_deleted_at(event).is_some_and(|at| at >= event.created_at) {
                return;
            }
            match self.events.values().find(|known| same_address(known, event)) {
                Some(known) if !wins(event, known) => return,
                Some(known) => {
                    let id = known.id;
                    self.events.remove(&id);
                }
                None => {}
            }
        }
        self.events.insert(event.id, event.clone());
    }

    /// Whether it would take the event and does not have it.
    #[must_use]
    pub fn lacks(&self, event: &Event) -> bool {
        let is_replaced = |known: &Event| same_address(known, event) && wins(known, event);
        !self.deleted.contains(&event.id)
            && !self.events.contains_key(&event.id)
            && self.coordinate_deleted_at(event).is_none_or(|at| at < event.created_at)
            && !self.events.values().any(is_replaced)
    }

    fn obey_deletion(&mut self, deletion: &Event) {
        for id in deletion.tags.event_ids() {
            if self.events.get(&id).is_some_and(|known| known.pubkey == deletion.pubkey) {
                self.events.remove(&id);
                self.deleted.insert(id);
            }
        }
        for target in deletion.tags.iter().filter(|tag| tag.kind() == "a").filter_map(|tag| tag.content()) {
            let Ok(coordinate) = target.parse::<Coordinate>() else { continue };
            if coordinate.owner == deletion.pubkey {
                self.events.retain(|_, known| {
                    known.kind != Kind::GitRepoAnnouncement
                        || known.pubkey != deletion.pubkey
                        || known.tags.identifier().as_ref() != Some(&coordinate.identifier)
                        || known.created_at > deletion.created_at
                });
            }
        }
    }

    fn coordinate_deleted_at(&self, event: &Event) -> Option<Timestamp> {
        let coordinate =
            format!("{}:{}:{}", event.kind.as_u16(), event.pubkey.to_hex(), event.tags.identifier()?);
        let deletes = |known: &&Event| {
            known.kind == Kind::EventDeletion
                && known.pubkey == event.pubkey
                && known
                    .tags
                    .iter()
                    .any(|tag| tag.kind() == "a" && tag.content() == Some(coordinate.as_str()))
        };
        self.events.values().filter(deletes).map(|known| known.created_at).max()
    }

    /// The record of a repository.
    #[must_use]
    pub fn record(&self, coordinate: &Coordinate) -> RepositoryRecord {
        self.records.get(coordinate).map(|json| serde_json::from_str(json).unwrap()).unwrap_or_default()
    }

    /// Writes the record of a repository.
    pub fn write_record(&mut self, coordinate: &Coordinate, record: &RepositoryRecord) {
        self.records.insert(coordinate.clone(), serde_json::to_string(record).unwrap());
    }

    /// What was signed for a repository.
    #[must_use]
    pub fn signing(&self, coordinate: &Coordinate) -> Signing {
        self.signing.get(coordinate).map(|json| serde_json::from_str(json).unwrap()).unwrap_or_default()
    }

    /// Writes what was signed for a repository.
    pub fn write_signing(&mut self, coordinate: &Coordinate, signing: &Signing) {
        self.signing.insert(coordinate.clone(), serde_json::to_string(signing).unwrap());
    }

    /// What became of a question.
    #[must_use]
    pub fn entry(&self, id: &EventId) -> Option<Entry> {
        self.journal.get(id).map(|json| serde_json::from_str(json).unwrap())
    }

    /// Writes down what became of a question.
    pub fn write_entry(&mut self, entry: &Entry) {
        self.journal.insert(entry.id, serde_json::to_string(entry).unwrap());
    }
}
