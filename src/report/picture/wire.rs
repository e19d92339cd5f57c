//! The picture as the dashboard reads it.

use std::collections::BTreeMap;

use grasp_mirror_commands::clean;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Failed, Picture, Row, Running};
use crate::{
    model::{
        coordinate::{Coordinate, npub},
        server::ServerUrl,
        status::MirrorStatus,
    },
    report::{
        document::{CycleSummary, ReportedServer, Totals},
        health::{self, Health},
    },
};

/// Repositories that are left alone, or not found, as far as they are named: the header goes to the page with each change.
const WISHES_MAX: usize = 50;

impl Picture {
    /// All but the repositories, for the dashboard.
    #[must_use]
    pub fn header(&self, now: u64) -> Header<'_> {
        Header {
            software: &self.report.software,
            bot: Shown { npub: npub(&self.bot.key), name: &self.bot.name, nip05: self.bot.nip05.as_deref() },
            phase: self.phase(),
            started_at: self.started_at,
            interval_secs: self.interval_secs,
            running: self.running.as_ref(),
            failed: self.failed.as_ref(),
            health: health::of(self, now),
            cycle: &self.report.cycle,
            totals: &self.report.totals,
            redundancy: self.redundancy(),
            columns: self.columns(),
            servers: &self.report.servers,
            left_alone: Left {
                wanted: self.report.left_alone.forgotten.len(),
                by: self.wishes(),
                deleted: self.report.left_alone.deleted.len(),
                private: self.report.left_alone.private,
                over_limit: self.report.left_alone.over_limit,
            },
            not_found: self.not_found(),
            silent_inboxes: self.report.silent_inboxes.iter().map(ToString::to_string).collect(),
        }
    }

    fn not_found(&self) -> Vec<Missing> {
        let missing =
            |name: &Coordinate| Missing { npub: npub(&name.owner), d: clean(&name.identifier, 200) };
        self.report.not_found.repos.iter().take(WISHES_MAX).map(missing).collect()
    }

    fn wishes(&self) -> Vec<Wish> {
        let wish = |(name, reason): (&Coordinate, &String)| Wish {
            npub: npub(&name.owner),
            d: clean(&name.identifier, 200),
            reason: clean(reason, 200),
        };
        self.report.left_alone.forgotten.iter().take(WISHES_MAX).map(wish).collect()
    }
}

/// All but the repositories, as the dashboard reads it.
#[derive(Debug, Serialize)]
pub struct Header<'a> {
    software: &'a str,
    bot: Shown<'a>,
    phase: &'static str,
    started_at: u64,
    interval_secs: u64,
    running: Option<&'a Running>,
    failed: Option<&'a Failed>,
    health: Health,
    cycle: &'a CycleSummary,
    totals: &'a Totals,
    redundancy: BTreeMap<usize, usize>,
    columns: Vec<ServerUrl>,
    servers: &'a [ReportedServer],
    left_alone: Left,
    not_found: Vec<Missing>,
    silent_inboxes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    npub: String,
    name: &'a str,
    nip05: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Left {
    /// How many repositories somebody wants to be left alone.
    wanted: usize,
    /// The first of them.
    by: Vec<Wish>,
    deleted: usize,
    private: usize,
    over_limit: usize,
}

/// A repository that is watched and that nobody announces.
#[derive(Debug, Serialize)]
struct Missing {
    npub: String,
    d: String,
}

#[derive(Debug, Serialize)]
struct Wish {
    npub: String,
    d: String,
    /// Who wants it so.
    reason: String,
}

/// A row as the dashboard reads it: one letter a column, and the reasons beside it. Some hundred bytes, since there may
/// be thousands.
#[derive(Debug)]
pub struct Brief<'a> {
    /// Which row.
    pub row: &'a Row,
    /// In this order.
    pub columns: &'a [ServerUrl],
}

#[derive(Serialize)]
struct Why<'a> {
    reason: &'a str,
    since: u64,
    retry_at: Option<u64>,
}

/// The letter of a status; `.` stands for no mirror.
fn letter(status: MirrorStatus) -> char {
    match status {
        MirrorStatus::InSync => 'i',
        MirrorStatus::Pending => 'p',
        MirrorStatus::Failing => 'f',
        MirrorStatus::Refused => 'r',
        MirrorStatus::Blocked => 'b',
        MirrorStatus::AwaitingSignature => 'a',
        MirrorStatus::Unreachable => 'u',
    }
}

impl Serialize for Brief<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cells = || self.columns.iter().map(|server| self.row.cells.get(server));
        let letters: String = cells().map(|cell| cell.map_or('.', |cell| letter(cell.status))).collect();
        let why: BTreeMap<usize, Why<'_>> = cells()
            .enumerate()
            .filter_map(|(column, cell)| {
                Some((column, cell.filter(|cell| cell.status != MirrorStatus::InSync)?))
            })
            .map(|(column, cell)| {
                let reason = cell.reason.as_deref().unwrap_or_default();
                (column, Why { reason, since: cell.since, retry_at: cell.retry_at })
            })
            .collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("npub", &npub(&self.row.coordinate.owner))?;
        map.serialize_entry("d", &self.row.coordinate.identifier)?;
        map.serialize_entry("s", &letters)?;
        map.serialize_entry("wanted", &self.row.wanted)?;
        if !why.is_empty() {
            map.serialize_entry("why", &why)?;
        }
        if !self.row.notes.is_empty() {
            map.serialize_entry("notes", &self.row.notes)?;
        }
        if self.row.held {
            map.serialize_entry("held", &true)?;
        }
        map.end()
    }
}
