//! Who the bot is: its profile (NIP-01, NIP-24), its relays (NIP-65) and its inbox (NIP-17).
//!
//! What is given the newest event of its kind that is known says what is to be signed instead; `None` when nothing is.
//! What a person wrote there with another client stays.

use std::collections::BTreeSet;

use nostr::prelude::{Event, Kind, RelayUrl, Tag, Timestamp};
use serde_json::{Map, Value};

use crate::model::{draft::Draft, replace::dated_after};

/// What the bot says of itself where nobody has said something else.
pub const ABOUT: &str = "I keep git repositories published over Nostr (NIP-34) alive on GRASP servers. \
                         Send me a direct message: help";

/// The profile, kind 0, with `"bot": true` (NIP-24) and with `name` and [`ABOUT`] where it has none.
///
/// `nip05`, where there is one, takes the place of another: the operator's domain vouches for it. All other fields and
/// all tags stay as they are. A profile that cannot be read is left alone.
#[must_use]
pub fn profile(name: &str, nip05: Option<&str>, existing: Option<&Event>, now: Timestamp) -> Option<Draft> {
    let before = match existing.map(|event| event.content.as_str()) {
        None => Map::new(),
        Some(content) if content.trim().is_empty() => Map::new(),
        Some(content) => serde_json::from_str::<Map<String, Value>>(content).ok()?,
    };
    let mut fields = before.clone();
    for (field, value) in [("name", name), ("about", ABOUT)] {
        if fields.get(field).is_none_or(Value::is_null) {
            fields.insert(field.to_owned(), value.into());
        }
    }
    fields.insert("bot".to_owned(), true.into());
    if let Some(nip05) = nip05 {
        fields.insert("nip05".to_owned(), nip05.into());
    }
    if fields == before {
        return None;
    }
    Some(Draft {
        kind: Kind::Metadata,
        tags: existing.map(|event| event.tags.iter().cloned().collect()).unwrap_or_default(),
        content: Value::Object(fields).to_string(),
        created_at: dated_after(existing, now),
    })
}

/// Where the bot is met: its relays (NIP-65) and its inbox (NIP-17).
pub const PLACES: [Kind; 2] = [Kind::RelayList, Kind::InboxRelays];

/// No list of the bot's own adds more relays than this: it listens to each of them.
const RELAYS_MAX: usize = 20;

/// The relays that the operator wrote, then those that the bot's own `list` (one of [`PLACES`]) names besides. Whoever
/// has the bot's key may sign a newer one with any client; what the operator wrote is where that is read.
///
/// What was written `before` and is no more, is about to be taken off the list ([`places`]).
#[must_use]
pub fn met_at(written: &[RelayUrl], before: &[RelayUrl], list: Option<&Event>) -> Vec<RelayUrl> {
    let mut known: BTreeSet<String> = written.iter().chain(before).map(key).collect();
    let named = list.into_iter().flat_map(|list| list.tags.iter().filter_map(|tag| named(list.kind, tag)));
    let others = named.filter(|relay| known.insert(key(relay))).take(RELAYS_MAX);
    written.iter().cloned().chain(others.collect::<Vec<_>>()).collect()
}

/// The list `kind`, one of [`PLACES`], where it does not say what it should.
///
/// The operator makes the first one. What was `written` since `before` is added to it, and what is written no more is
/// taken off; all else that stands there stays, markers included. Without `before` nothing is taken off.
#[must_use]
pub fn places(
    kind: Kind,
    written: &[RelayUrl],
    before: &[RelayUrl],
    existing: Option<&Event>,
    now: Timestamp,
) -> Option<Draft> {
    let keys = |relays: &[RelayUrl]| relays.iter().map(key).collect::<BTreeSet<_>>();
    let was = if existing.is_some() { keys(before) } else { BTreeSet::new() };
    let is = keys(written);
    let old: Vec<&Tag> = existing.iter().flat_map(|event| event.tags.iter()).collect();
    let mut said = BTreeSet::new();
    let mut tags: Vec<Tag> = Vec::new();
    for tag in &old {
        match named(kind, tag).map(|relay| key(&relay)) {
            Some(relay) if was.contains(&relay) && !is.contains(&relay) => {}
            relay => {
                said.extend(relay);
                tags.push((*tag).clone());
            }
        }
    }
    let new = written.iter().filter(|relay| !was.contains(&key(relay)) && !said.contains(&key(relay)));
    tags.extend(new.map(|relay| Tag::custom(tag_of(kind), [relay.as_str()])));
    if tags.iter().eq(old) {
        return None;
    }
    let content = existing.map(|event| event.content.clone()).unwrap_or_default();
    Some(Draft { kind, tags, content, created_at: dated_after(existing, now) })
}

fn tag_of(kind: Kind) -> &'static str {
    if kind == Kind::InboxRelays { "relay" } else { "r" }
}

/// The relay that `tag` names in a list of this `kind`.
fn named(kind: Kind, tag: &Tag) -> Option<RelayUrl> {
    let named = (tag.kind() == tag_of(kind)).then(|| tag.content()).flatten()?;
    RelayUrl::parse(named).ok()
}

/// What two ways to write one address have in common.
fn key(relay: &RelayUrl) -> String {
    relay.as_str_without_trailing_slash().to_owned()
}

#[cfg(test)]
mod tests {
    use nostr::prelude::Keys;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn event(kind: Kind, content: &str, tags: &[&[&str]]) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()).collect();
        let draft = Draft { kind, tags, content: content.to_owned(), created_at: NOW };
        draft.sign(&Keys::generate()).unwrap()
    }

    fn relays(urls: &[&str]) -> Vec<RelayUrl> {
        urls.iter().map(|url| url.parse().unwrap()).collect()
    }

    fn fields(draft: &Draft) -> Value {
        serde_json::from_str(&draft.content).unwrap()
    }

    #[test]
    fn a_bot_without_a_profile_gets_one() {
        let draft = profile("keeper", None, None, NOW).unwrap();
        assert_eq!((draft.kind, draft.created_at), (Kind::Metadata, NOW));
        assert_eq!(fields(&draft), serde_json::json!({ "name": "keeper", "about": ABOUT, "bot": true }));
        let published = draft.sign(&Keys::generate()).unwrap();
        assert_eq!(profile("keeper", None, Some(&published), NOW), None);
        assert_eq!(profile("another name in config.toml", None, Some(&published), NOW), None);
    }

    #[test]
    fn what_a_person_wrote_into_the_profile_stays() {
        let before = event(
            Kind::Metadata,
            r#"{"name":"Robi","picture":"https://x/y.png","about":"","bot":false,"fields":[["a",1]]}"#,
            &[&["i", "github:robi", "proof"]],
        );
        let draft = profile("keeper", None, Some(&before), NOW).unwrap();
        assert_eq!(
            fields(&draft),
            serde_json::json!({
                "name": "Robi", "picture": "https://x/y.png", "about": "", "bot": true, "fields": [["a", 1]],
            })
        );
        assert!(before.tags.iter().eq(&draft.tags));
        assert_eq!(draft.created_at, NOW + 1u64, "it has to win over what was there");
    }

    #[test]
    fn the_name_that_the_operator_s_domain_vouches_for_is_said() {
        let draft = profile("keeper", Some("bot@a.example"), None, NOW).unwrap();
        assert_eq!(fields(&draft)["nip05"], "bot@a.example");
        let published = draft.sign(&Keys::generate()).unwrap();
        assert_eq!(profile("keeper", Some("bot@a.example"), Some(&published), NOW), None);
        let draft = profile("keeper", Some("_@b.example"), Some(&published), NOW).unwrap();
        assert_eq!(fields(&draft)["nip05"], "_@b.example");
        assert_eq!(
            profile("keeper", None, Some(&published), NOW),
            None,
            "it is taken off by whoever wrote it"
        );
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_left_alone() {
        for content in ["{", "[]", "\"keeper\"", "{\"name\":\"a\"} x"] {
            assert_eq!(
                profile("keeper", None, Some(&event(Kind::Metadata, content, &[])), NOW),
                None,
                "{content}"
            );
        }
        assert!(profile("keeper", None, Some(&event(Kind::Metadata, " ", &[])), NOW).is_some());
    }

    fn tags(draft: &Draft) -> Vec<String> {
        draft.tags.iter().map(|tag| tag.as_slice().join(" ")).collect()
    }

    #[test]
    fn the_operator_makes_the_first_lists() {
        let two = relays(&["wss://b.example", "wss://a.example/"]);
        let draft = places(Kind::RelayList, &two, &[], None, NOW).unwrap();
        assert_eq!((draft.kind, draft.created_at), (Kind::RelayList, NOW));
        assert_eq!(tags(&draft), ["r wss://b.example", "r wss://a.example/"]);
        // Also when it was deleted.
        assert!(places(Kind::InboxRelays, &two, &two, None, NOW).is_some());
        assert_eq!(places(Kind::InboxRelays, &[], &two, None, NOW), None);
    }

    #[test]
    fn a_list_changes_as_the_operator_s_words_do() {
        let two = relays(&["wss://b.example", "wss://a.example/"]);
        let listed = |tags: &[&[&str]]| event(Kind::RelayList, "", tags);
        let say = |list: &Event, before: &[RelayUrl], written: &[RelayUrl]| {
            places(Kind::RelayList, written, before, Some(list), NOW)
        };
        let same = listed(&[&["r", "wss://A.example", "read"], &["r", "wss://b.example/"]]);
        for before in [&[][..], &two] {
            assert_eq!(say(&same, before, &two), None);
        }
        // Somebody took one off with another client, and wrote another one: so it is.
        let other = listed(&[&["r", "wss://c.example"], &["alt", "x"], &["r"], &["r", "wss://b.example"]]);
        assert_eq!(say(&other, &two, &two), None);
        assert_eq!(
            met_at(&two, &two, Some(&other)),
            relays(&["wss://b.example", "wss://a.example/", "wss://c.example"])
        );
        // Nothing is known of what was written before: nothing is taken off.
        let draft = say(&other, &[], &two).unwrap();
        assert_eq!(
            tags(&draft),
            ["r wss://c.example", "alt x", "r", "r wss://b.example", "r wss://a.example/"]
        );
        assert_eq!(draft.created_at, NOW + 1u64, "it has to win over what was there");
        // The operator wrote another one instead of the second.
        let written = relays(&["wss://d.example", "wss://a.example"]);
        let draft = say(&other, &two, &written).unwrap();
        assert_eq!(
            met_at(&written, &two, Some(&other)),
            relays(&["wss://d.example", "wss://a.example", "wss://c.example"])
        );
        assert_eq!(tags(&draft), ["r wss://c.example", "alt x", "r", "r wss://d.example"]);
    }

    #[test]
    fn no_list_makes_the_bot_listen_to_too_many() {
        let own = relays(&["wss://a.example"]);
        assert_eq!(met_at(&own, &[], None), own);
        let names: Vec<String> = (0..50).map(|number| format!("wss://{number}.example")).collect();
        let all: Vec<[&str; 2]> = names.iter().map(|name| ["relay", name]).collect();
        let all: Vec<&[&str]> = all.iter().map(|tag| &tag[..]).collect();
        assert_eq!(met_at(&own, &[], Some(&event(Kind::InboxRelays, "", &all))).len(), 1 + RELAYS_MAX);
        // An inbox is no list of relays.
        assert_eq!(met_at(&own, &[], Some(&event(Kind::RelayList, "", &all))), own);
    }
}
