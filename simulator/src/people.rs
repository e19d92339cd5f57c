//! Keys and events. Nobody in here signs: a relay's library has checked signatures before the core sees an event, and
//! the core does not look at them. What a schedule costs is then hashing.

use grasp_mirror::model::draft::Draft;
use nostr::{
    event::{Event, EventId, Kind, Signature, Tag, Tags},
    key::PublicKey,
    types::Timestamp,
};

/// The public key of somebody with this number.
#[must_use]
pub fn key(number: u8) -> PublicKey {
    let mut bytes = [0x5a; 32];
    bytes[0] = number;
    PublicKey::from_byte_array(bytes)
}

/// An event of `author`.
#[must_use]
pub fn event(author: PublicKey, kind: u16, at: Timestamp, content: &str, tags: Vec<Vec<String>>) -> Event {
    let tags = tags.into_iter().map(|tag| Tag::parse(tag).unwrap()).collect();
    finish(author, Kind::from(kind), at, content, tags)
}

/// What `author` would have signed.
#[must_use]
pub fn sign(author: PublicKey, draft: Draft) -> Event {
    finish(author, draft.kind, draft.created_at, &draft.content, draft.tags)
}

fn finish(author: PublicKey, kind: Kind, at: Timestamp, content: &str, tags: Vec<Tag>) -> Event {
    let list = Tags::from_list(tags.clone());
    let id = EventId::compute(&author, &at, &kind, &list, content);
    Event::new(id, author, at, kind, tags, content, Signature::from_byte_array([1; 64]))
}

/// A tag of these words.
#[must_use]
pub fn tag<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}
