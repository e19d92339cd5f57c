//! How the servers are, for whoever looks for relays: discovery events (kind 30166) and what announces them (kind 10166),
//! both of NIP-66.
//!
//! A monitor speaks of a relay while it is online; of one that is down it says nothing new, and what it said grows old.

use std::{collections::BTreeSet, time::Duration};

use nostr::prelude::{Event, Kind, NetworkType, Nip66Tag, Requirement, Tag, Timestamp};

use super::scoreboard::Slot;
use crate::model::{advertised::Advertised, draft::Draft, replace::dated_after, server::ServerUrl};

/// How often, in seconds, everything is said anew, as kind 10166 promises.
pub const FREQUENCY_SECS: u64 = 86_400;

/// How long, in seconds, a server that changes what it says of itself is left as it was announced.
const CHANGES_SECS: u64 = 3_600;

/// As many NIPs as are repeated: the list is the server's.
const NIPS_MAX: usize = 100;

/// How long it took to open the connection.
const RTT_OPEN: &str = "rtt-open";

/// The scoreboard's last seven days: no tag of NIP-66; each of its values is a key and a number, as in `imeta` (NIP-92).
const WEEK: &str = "week";

/// What was seen of one server that is up.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Which one.
    pub server: &'a ServerUrl,
    /// What it says of itself.
    pub advertised: &'a Advertised,
    /// How long it took to open the connection that is in use, or was last.
    pub opened_in: Option<Duration>,
    /// Its last seven days.
    pub week: Slot,
}

/// What is said of one server.
#[must_use]
pub fn discovery(probe: &Probe<'_>, now: Timestamp) -> Draft {
    let Probe { server, advertised, opened_in, week } = probe;
    let mut tags = vec![
        Tag::identifier(normalized(server)),
        Nip66Tag::NetworkType(network(server.http_base().host_str().unwrap_or_default())).into(),
        Nip66Tag::Topic("grasp".to_owned()).into(),
    ];
    tags.extend(advertised.nips.iter().take(NIPS_MAX).map(|nip| Nip66Tag::Nip(nip.to_string()).into()));
    for (requirement, is_required) in [
        (Requirement::Auth, advertised.auth),
        (Requirement::Payment, advertised.payment),
        (Requirement::Writes, advertised.writes),
        (Requirement::Pow, advertised.pow),
    ] {
        tags.extend(is_required.map(|is_required| Nip66Tag::Requirement { requirement, is_required }.into()));
    }
    tags.extend(opened_in.map(|took| Nip66Tag::RttOpen(took).into()));
    if week.asked > 0 {
        let counts = [
            ("asked", week.asked),
            ("answered", week.answered),
            ("failures", week.failures),
            ("refusals", week.refusals),
        ];
        tags.push(Tag::custom(WEEK, counts.map(|(what, number)| format!("{what} {number}"))));
    }
    Draft { kind: Kind::RelayDiscovery, tags, content: String::new(), created_at: now }
}

/// `draft` as it is to be signed in place of `before`; `None` while there is nothing to say. The next chance comes
/// `interval_secs` later.
#[must_use]
pub fn when_due(mut draft: Draft, before: Option<&Event>, interval_secs: u64) -> Option<Draft> {
    if let Some(before) = before {
        let age = draft.created_at.as_secs().saturating_sub(before.created_at.as_secs());
        let too_old = age.saturating_add(interval_secs) >= FREQUENCY_SECS;
        let changed = lasting(before.tags.iter()) != lasting(&draft.tags) && age >= CHANGES_SECS;
        if !too_old && !changed {
            return None;
        }
    }
    draft.created_at = dated_after(before, draft.created_at);
    Some(draft)
}

/// What does not differ from one look to the next.
fn lasting<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> BTreeSet<&'a [String]> {
    let tags = tags.into_iter().map(Tag::as_slice);
    tags.filter(|tag| !matches!(tag.first().map(String::as_str), Some(RTT_OPEN | WEEK))).collect()
}

/// The deletion request (NIP-09) for all that was said, in every version until `now`: nobody is to go by what nobody looks
/// after. `None` when nothing was said.
#[must_use]
pub fn taken_back(said: &[Event], now: Timestamp) -> Option<Draft> {
    // One of them may be dated later than our clock.
    let created_at = said.iter().map(|event| event.created_at).max()?.max(now);
    let names: Vec<_> = said.iter().map(|event| event.tags.identifier().unwrap_or_default()).collect();
    let called = said.iter().zip(&names).map(|(event, name)| (event.kind, &**name));
    let (author, events) = (&said.first()?.pubkey, said.iter().map(|event| event.id));
    Some(Draft::deletion(author, events, called, "I publish no more how servers are", created_at))
}

/// That this bot says so, how often, and what it looks at.
#[must_use]
pub fn announcement(now: Timestamp) -> Draft {
    let tags = vec![
        Tag::custom("frequency", [FREQUENCY_SECS.to_string()]),
        Tag::custom("c", ["open"]),
        Tag::custom("c", ["nip11"]),
    ];
    Draft { kind: Kind::RelayMonitor, tags, content: String::new(), created_at: now }
}

/// As RFC 3986 has it: where there is no path, a slash.
fn normalized(server: &ServerUrl) -> String {
    let url = server.relay_url().as_str_without_trailing_slash();
    if server.http_base().path() == "/" { format!("{url}/") } else { url.to_owned() }
}

fn network(host: &str) -> NetworkType {
    match host.rsplit('.').next() {
        Some("onion") => NetworkType::Tor,
        Some("i2p") => NetworkType::I2p,
        Some("loki") => NetworkType::Loki,
        _ => NetworkType::Clearnet,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;

    use super::*;

    const NOW: u64 = 1_790_000_000;
    const HOUR: u64 = 3_600;

    fn said(server: &str, advertised: &Advertised, rtt_ms: u64, answered: u32, at: u64) -> Draft {
        let server: ServerUrl = server.parse().unwrap();
        let week = Slot { asked: answered, answered, failures: 2, ..Slot::default() };
        let opened_in = Some(Duration::from_millis(rtt_ms));
        discovery(&Probe { server: &server, advertised, opened_in, week }, Timestamp::from_secs(at))
    }

    fn written(draft: &Draft) -> Vec<String> {
        draft.tags.iter().map(|tag| tag.as_slice().join(" | ")).collect()
    }

    #[test]
    fn it_says_what_was_seen_and_what_the_server_says() {
        let advertised = Advertised {
            nips: BTreeSet::from([77, 1]),
            auth: Some(false),
            pow: Some(true),
            ..Advertised::default()
        };
        insta::assert_debug_snapshot!(written(&said("wss://a.example", &advertised, 120, 9, NOW)), @r#"
        [
            "d | wss://a.example/",
            "n | clearnet",
            "t | grasp",
            "N | 1",
            "N | 77",
            "R | !auth",
            "R | pow",
            "rtt-open | 120",
            "week | asked 9 | answered 9 | failures 2 | refusals 0",
        ]
        "#);
        let nothing = Advertised::default();
        let bare = written(&said("wss://abc.onion:81/grasp", &nothing, 0, 0, NOW));
        assert_eq!(bare, ["d | wss://abc.onion:81/grasp", "n | tor", "t | grasp", "rtt-open | 0"]);
        let many = Advertised { nips: (0..1_000).collect(), ..nothing };
        assert_eq!(said("wss://a.example", &many, 1, 0, NOW).tags.len(), NIPS_MAX + 4);
    }

    #[test]
    fn all_that_was_said_is_taken_back_in_every_version() {
        let keys = Keys::generate();
        let about = said("wss://a.example", &Advertised::default(), 7, 1, NOW).sign(&keys).unwrap();
        let monitor = announcement(Timestamp::from_secs(NOW + 5)).sign(&keys).unwrap();
        let draft = taken_back(&[about.clone(), monitor.clone()], Timestamp::from_secs(NOW + 2)).unwrap();
        assert_eq!(draft.created_at.as_secs(), NOW + 5, "not before what it deletes");
        let bot = keys.public_key().to_hex();
        let expected = [
            format!("e | {}", about.id.to_hex()),
            format!("e | {}", monitor.id.to_hex()),
            format!("a | 30166:{bot}:wss://a.example/"),
            format!("a | 10166:{bot}:"),
            "k | 10166".to_owned(),
            "k | 30166".to_owned(),
        ];
        assert_eq!(written(&draft), expected);
        assert_eq!(taken_back(&[], Timestamp::from_secs(NOW)), None);
    }

    #[test]
    fn it_is_said_again_when_it_is_old_or_has_changed_and_never_often() {
        let keys = Keys::generate();
        let (old, new) = (Advertised::default(), Advertised { auth: Some(true), ..Advertised::default() });
        let before = said("wss://a.example", &old, 120, 9, NOW).sign(&keys).unwrap();
        let due = |advertised: &Advertised, later: u64| {
            when_due(said("wss://a.example", advertised, 7, 12, NOW + later), Some(&before), HOUR)
                .map(|draft| draft.created_at.as_secs() - NOW)
        };
        assert_eq!(due(&old, 2 * HOUR), None, "other numbers alone");
        assert_eq!(due(&old, 23 * HOUR - 1), None);
        assert_eq!(due(&old, 23 * HOUR), Some(23 * HOUR), "an hour later it would be too old");
        assert_eq!((due(&new, HOUR - 1), due(&new, HOUR)), (None, Some(HOUR)));
        let first = said("wss://a.example", &old, 7, 1, NOW);
        assert_eq!(when_due(first.clone(), None, HOUR), Some(first.clone()));
        // A clock that ran ahead: what is said next still replaces it.
        let draft = when_due(first, Some(&before), FREQUENCY_SECS).unwrap();
        assert!(draft.created_at > before.created_at);
    }
}
