//! Signed events and records for tests.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, EventBuilder, FinalizeEvent, Keys, Kind, Tag, Timestamp};

use super::{
    catalog::{Limits, Repository, Watched, build},
    record::MirrorRecord,
};
use crate::model::{placement::Placement, server::ServerUrl, status::MirrorStatus};

impl MirrorRecord {
    /// A listed mirror of which nothing is known but its status.
    pub(crate) fn sample(status: MirrorStatus) -> Self {
        Self {
            status,
            placement: Placement::Listed,
            reason: None,
            since: 1,
            read_back_at: None,
            retry_at: None,
            failures: 0,
            failure: None,
            state: None,
            refs_differ: None,
            look_again: None,
            unlisted: Default::default(),
            refused: BTreeMap::new(),
            conversation: None,
        }
    }
}

/// The server called so.
pub(super) fn server(name: &str) -> ServerUrl {
    format!("wss://{name}.example").parse().unwrap()
}

/// An event of `keys` of this kind, dated `at` Unix seconds, with these tags.
pub(super) fn event(keys: &Keys, kind: u16, at: u64, tags: &[&[&str]]) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .custom_created_at(Timestamp::from_secs(at))
        .finalize(keys)
        .unwrap()
}

/// The only repository of `owner` that `events` make.
pub(super) fn catalogued(owner: &Keys, events: &[Event]) -> Repository {
    let watched = Watched { authors: BTreeSet::from([owner.public_key()]), ..Watched::default() };
    let limits = Limits { max_refs: 100, max_repos_per_author: 10 };
    build(events, &watched, &Keys::generate().public_key(), limits).repositories.remove(0)
}
