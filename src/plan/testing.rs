//! Signed events for the tests of this room.

use nostr::prelude::{Event, EventBuilder, FinalizeEvent, Keys, Kind, Tag, Timestamp};

/// An event of `keys` of this kind, dated `at` Unix seconds, with these tags.
pub(super) fn event(keys: &Keys, kind: u16, at: u64, tags: &[&[&str]]) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .custom_created_at(Timestamp::from_secs(at))
        .finalize(keys)
        .unwrap()
}
