//! What is written down for people who look back: the changes of each mirror, and how the servers did.

use std::{
    collections::BTreeMap,
    mem,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use nostr::prelude::Timestamp;

use super::world::World;
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl},
    plan::record::MirrorRecord,
    report::{
        history::{self, History},
        scoreboard::{self, Samples, Scoreboard},
    },
    store::StoreError,
};

impl World {
    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server was asked who it is, and took so long to answer.
    pub(super) fn note_asked(&self, server: &ServerUrl, took: Option<Duration>) {
        let latency_ms = took.map(|took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        self.samples().asked(server, latency_ms);
    }

    /// The mirrors of a repository were walked, or seen to be at rest.
    pub(super) async fn note_changes(
        &self,
        coordinate: &Coordinate,
        before: &BTreeMap<ServerUrl, MirrorRecord>,
        after: &BTreeMap<ServerUrl, MirrorRecord>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for (server, mirror) in after {
            self.samples().tried(server, before.get(server), mirror);
        }
        if !history::has_changed(before, after) {
            return Ok(());
        }
        let name = history::record_name(coordinate);
        self.records.update(&name, |history: &mut History| history.note(after, now.as_secs())).await
    }

    /// Writes down how the servers did since the last time.
    pub(super) async fn write_scoreboards(&self, now: Timestamp) -> Result<(), StoreError> {
        let samples = mem::take(&mut *self.samples());
        for (server, seen) in samples.each() {
            let name = scoreboard::record_name(&server);
            self.records.update(&name, |board: &mut Scoreboard| board.note(seen, now.as_secs())).await?;
        }
        Ok(())
    }
}
