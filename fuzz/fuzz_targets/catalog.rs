//! Announcements, states and deletions of several people, with tags as nobody would write them.
//!
//! An input is lines, one an event: kind, author, date, then tags. `,` ends a value and `;` a tag; bytes from 0x80 on
//! stand for the words in [`WORDS`].
#![no_main]

use std::collections::BTreeSet;

use grasp_mirror::plan::catalog::{Limits, Watched, build};
use nostr::{
    event::Signature,
    prelude::{Event, EventId, Kind, PublicKey, Tag, Timestamp},
};

const PEOPLE: [&str; 4] = [
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
    "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
    "e493dbf1c10d80f3581e4904930b1404cc6c13900ee0758474fa94abe8c4cd13",
];

const WORDS: [&str; 28] = [
    PEOPLE[0],
    PEOPLE[1],
    PEOPLE[2],
    PEOPLE[3],
    "d",
    "a",
    "e",
    "p",
    "clone",
    "relays",
    "web",
    "maintainers",
    "r",
    "HEAD",
    "ref: ",
    "refs/heads/",
    "refs/tags/",
    "^{}",
    "1111111111111111111111111111111111111111",
    "0000000000000000000000000000000000000000",
    "wss://relay.example",
    "https://relay.example/",
    "npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d",
    ".git",
    "30617:",
    "30618:",
    "euc",
    "private",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let people = PEOPLE.map(|hex| PublicKey::from_hex(hex).expect("a key"));
    let events: Vec<Event> = bytes
        .split(|byte| *byte == b'\n')
        .take(64)
        .zip(1..)
        .filter_map(|(line, number)| event(line, number, &people))
        .collect();
    let watched = Watched { authors: BTreeSet::from([people[0], people[1]]), ..Watched::default() };
    let limits = Limits { max_refs: 8, max_repos_per_author: 3 };
    let catalog = build(&events, &watched, &people[3], limits);
    assert!(catalog.repositories.len() <= 6);
    for repository in &catalog.repositories {
        assert!(watched.authors.contains(&repository.coordinate.owner));
        assert!(!repository.announcements.iter().any(|announcement| announcement.private));
        if let Some(state) = &repository.state {
            assert!(state.refs.len() <= 8);
            let authority = repository.authority.as_ref().expect("somebody signed it");
            assert!(authority.confirmed.contains(&state.event.pubkey));
        }
        for announcement in &repository.announcements {
            let _ = repository.introduced_by(&announcement.author());
        }
        assert!(!repository.folder.contains('/') && repository.folder != "..");
        let _ = (repository.clone_urls(), repository.coordinates());
    }
});

fn event(line: &[u8], number: u8, people: &[PublicKey; 4]) -> Option<Event> {
    let (kind, rest) = line.split_first()?;
    let (author, rest) = rest.split_first()?;
    let (date, rest) = rest.split_first()?;
    let kind = match kind % 4 {
        0 | 1 => Kind::GitRepoAnnouncement,
        2 => Kind::RepoState,
        _ => Kind::EventDeletion,
    };
    let tags = rest.split(|byte| *byte == b';').filter_map(|tag| {
        let values = tag.split(|byte| *byte == b',').map(|value| {
            let mut text = String::new();
            for byte in value {
                match WORDS.get(usize::from(byte.wrapping_sub(0x80))) {
                    Some(word) if *byte >= 0x80 => text.push_str(word),
                    _ => text.push(char::from(*byte)),
                }
            }
            text
        });
        Tag::parse(values).ok()
    });
    Some(Event::new(
        EventId::from_byte_array([number; 32]),
        people[usize::from(author % 4)],
        Timestamp::from_secs(u64::from(*date)),
        kind,
        tags.collect::<Vec<_>>(),
        "",
        Signature::from_byte_array([0; 64]),
    ))
}
