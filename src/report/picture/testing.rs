//! Pictures for tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nostr::prelude::PublicKey;

use super::{Card, Picture};
use crate::{
    model::{coordinate::Coordinate, status::MirrorStatus},
    plan::record::MirrorRecord,
    report::document::{CycleSummary, LeftAlone, Report, RepositoryOutcome},
};

pub(crate) const NOW: u64 = 1_790_000_000;

pub(crate) fn key() -> PublicKey {
    PublicKey::from_hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap()
}

/// A daemon that has just started for the first time, with a cycle an hour.
pub(crate) fn picture() -> Picture {
    let bot = Card { key: key(), name: "keeper".to_owned(), nip05: None };
    let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
    Picture::new(bot, 3_600, report, NOW)
}

pub(crate) fn mirror(status: MirrorStatus, reason: Option<&str>) -> MirrorRecord {
    MirrorRecord { reason: reason.map(str::to_owned), since: NOW, ..MirrorRecord::sample(status) }
}

pub(crate) fn outcome(d: &str, mirrors: &[(&str, MirrorRecord)]) -> RepositoryOutcome {
    RepositoryOutcome {
        coordinate: Coordinate::new(key(), d),
        state: None,
        mirrors: mirrors
            .iter()
            .map(|(host, mirror)| (format!("wss://{host}").parse().unwrap(), mirror.clone()))
            .collect(),
        notes: Vec::new(),
        wanted: mirrors.len(),
        rewritten_at: None,
        held: None,
        repaired: 0,
    }
}
