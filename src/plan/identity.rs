//! Who the bot is: its profile (NIP-01, NIP-24), its relays (NIP-65) and its inbox (NIP-17).
//!
//! Each function is given the newest event of its kind that is known and says what is to be signed instead;
//! `None` when nothing is. What a person wrote there with another client stays.

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

/// The relay list, kind 10002 (NIP-65): the bot reads and writes at all of `relays`.
///
/// Markers on a list that names the same relays stay.
#[must_use]
pub fn relay_list(relays: &[RelayUrl], existing: Option<&Event>, now: Timestamp) -> Option<Draft> {
    list(Kind::RelayList, "r", relays, existing, now)
}

/// The inbox, kind 10050 (NIP-17): direct messages to the bot belong at `relays`.
#[must_use]
pub fn inbox(relays: &[RelayUrl], existing: Option<&Event>, now: Timestamp) -> Option<Draft> {
    list(Kind::InboxRelays, "relay", relays, existing, now)
}

/// A list of relays in tags called `name`, when it is not the same set already.
fn list(
    kind: Kind,
    name: &str,
    relays: &[RelayUrl],
    existing: Option<&Event>,
    now: Timestamp,
) -> Option<Draft> {
    let wanted: BTreeSet<&str> = relays.iter().map(RelayUrl::as_str_without_trailing_slash).collect();
    let (named, others): (Vec<&Tag>, Vec<&Tag>) =
        existing.iter().flat_map(|event| event.tags.iter()).partition(|tag| tag.kind() == name);
    let said: BTreeSet<String> = named
        .iter()
        .filter_map(|tag| tag.content())
        .map(|text| match RelayUrl::parse(text) {
            Ok(relay) => relay.as_str_without_trailing_slash().to_owned(),
            Err(_) => text.to_owned(),
        })
        .collect();
    if said.iter().map(String::as_str).eq(wanted) {
        return None;
    }
    let mut tags: Vec<Tag> = relays.iter().map(|relay| Tag::custom(name, [relay.as_str()])).collect();
    tags.extend(others.into_iter().cloned());
    Some(Draft {
        kind,
        tags,
        content: existing.map(|event| event.content.clone()).unwrap_or_default(),
        created_at: dated_after(existing, now),
    })
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

    #[test]
    fn lists_are_said_again_only_when_other_relays_are_meant() {
        let two = relays(&["wss://b.example", "wss://a.example/"]);
        let draft = relay_list(&two, None, NOW).unwrap();
        assert_eq!(draft.kind, Kind::RelayList);
        let said: Vec<_> = draft.tags.iter().map(|tag| tag.as_slice().join(" ")).collect();
        assert_eq!(said, ["r wss://b.example", "r wss://a.example/"]);

        let same: &[&[&str]] = &[&["r", "wss://A.example", "read"], &["r", "wss://b.example/"]];
        assert_eq!(relay_list(&two, Some(&event(Kind::RelayList, "", same)), NOW), None);

        let other: &[&[&str]] = &[&["relay", "wss://c.example"], &["alt", "inbox"], &["relay"]];
        let draft = inbox(&two, Some(&event(Kind::InboxRelays, "", other)), NOW).unwrap();
        let said: Vec<_> = draft.tags.iter().map(|tag| tag.as_slice().join(" ")).collect();
        assert_eq!(said, ["relay wss://b.example", "relay wss://a.example/", "alt inbox"]);
        assert_eq!(draft.created_at, NOW + 1u64);
    }

    #[test]
    fn no_relays_and_no_list_are_the_same() {
        assert_eq!(inbox(&[], None, NOW), None);
        let some = event(Kind::InboxRelays, "", &[&["relay", "wss://a.example"]]);
        assert_eq!(inbox(&[], Some(&some), NOW).map(|draft| draft.tags), Some(Vec::new()));
    }
}
