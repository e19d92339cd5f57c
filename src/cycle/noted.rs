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
    plan::per_server::Mirrors,
    report::{
        Report,
        history::{self, History},
        scoreboard::{self, Samples, Scoreboard, Weeks},
    },
    store::{StoreError, records::Records},
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
        before: &Mirrors,
        after: &Mirrors,
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

    /// How the servers that `report` names did over the last seven days.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn weeks(&self, report: &Report) -> Result<Weeks, StoreError> {
        weeks(&self.records, report).await
    }
}

/// What is kept of how `servers` did; those of which nothing is are left out.
///
/// # Errors
///
/// [`StoreError`].
pub async fn scoreboards(
    records: &Records,
    servers: Vec<ServerUrl>,
) -> Result<BTreeMap<ServerUrl, Scoreboard>, StoreError> {
    let mut boards = BTreeMap::new();
    for server in servers {
        let board: Option<Scoreboard> = records.read(&scoreboard::record_name(&server)).await?;
        boards.extend(board.map(|board| (server, board)));
    }
    Ok(boards)
}

/// How the servers that `report` names did over the last seven days.
///
/// # Errors
///
/// [`StoreError`].
pub async fn weeks(records: &Records, report: &Report) -> Result<Weeks, StoreError> {
    let now = Timestamp::now().as_secs();
    let servers = report.servers.iter().map(|server| server.url.clone()).collect();
    let boards = scoreboards(records, servers).await?;
    Ok(boards.into_iter().map(|(server, board)| (server, board.week(now))).collect())
}
