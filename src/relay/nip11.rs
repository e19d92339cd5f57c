//! What a server says about itself: its relay information document (NIP-11).

use std::{error::Error, time::Duration};

use grasp_mirror_commands::{clean, with_causes};
use nostr::prelude::Timestamp;
use reqwest::header;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{
    model::advertised::Advertised,
    plan::{live::Room, placement::Grasp, retry},
};

/// The longest document read, bytes.
const MAX_BYTES: usize = 256 * 1024;

/// A server's answer, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What kind of GRASP server it is.
    pub grasp: Grasp,
    /// `<software> <version>`, as far as it said.
    pub software: Option<String>,
    /// What it says it can do and demands.
    pub advertised: Advertised,
    /// How much may be asked of it on one connection.
    pub room: Room,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    supported_grasps: Option<Vec<String>>,
    #[serde(default)]
    software: Option<String>,
    #[serde(default)]
    version: Option<String>,
    /// Nothing depends on these, so what is wrong in them makes the document no worse.
    #[serde(default)]
    supported_nips: Value,
    #[serde(default)]
    limitation: Value,
}

impl Document {
    fn room(&self) -> Room {
        let says = |key: &str, default: usize| {
            let said = self.limitation.get(key).and_then(Value::as_u64);
            // Some say 0 for "no limit".
            said.filter(|most| *most > 0).map_or(default, |most| usize::try_from(most).unwrap_or(usize::MAX))
        };
        let usual = Room::default();
        Room {
            subscriptions: says("max_subscriptions", usual.subscriptions),
            filters: says("max_filters", usual.filters),
            message_bytes: says("max_message_length", usual.message_bytes),
        }
    }

    fn advertised(&self) -> Advertised {
        let nips = self.supported_nips.as_array().into_iter().flatten().filter_map(Value::as_u64);
        let says = |key: &str| self.limitation.get(key).and_then(Value::as_bool);
        let difficulty = self.limitation.get("min_pow_difficulty").and_then(Value::as_u64);
        Advertised {
            nips: nips.filter_map(|nip| u16::try_from(nip).ok()).collect(),
            auth: says("auth_required"),
            payment: says("payment_required"),
            writes: says("restricted_writes"),
            pow: difficulty.map(|difficulty| difficulty > 0),
        }
    }
}

/// Why a server did not introduce itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nip11Error {
    /// No connection, no whole answer, or one that says "not now": nothing is learned of what it is.
    #[error("it cannot be reached: {reason}")]
    Down {
        /// What happened.
        reason: String,
        /// For how long it wants to be left alone, in seconds (`Retry-After`).
        retry_after_secs: Option<u64>,
    },
    /// Something answers there, but not with a relay information document.
    #[error("it serves no relay information document (NIP-11): {0}")]
    NoDocument(String),
}

/// Asks the server at `http_base` who it is.
///
/// # Errors
///
/// [`Nip11Error`] when no document came within `timeout`. A document without `supported_grasps` is
/// [`Grasp::NotGrasp`], not an error.
pub async fn ask(
    client: &reqwest::Client,
    http_base: &Url,
    timeout: Duration,
) -> Result<Introduction, Nip11Error> {
    let failed = |error: reqwest::Error| {
        // A plain relay may hang up on whoever does not open a WebSocket: that is an answer. A connection that
        // is reset, and half a body, are none.
        let broke = error.is_body() || error.is_decode() || is_io(&error);
        let down = error.is_connect() || error.is_timeout() || broke;
        let reason = with_causes(&error.without_url());
        if down { down_now(reason, None) } else { Nip11Error::NoDocument(reason) }
    };
    let mut response = client
        .get(http_base.clone())
        .header(header::ACCEPT, "application/nostr+json")
        .timeout(timeout)
        .send()
        .await
        .map_err(failed)?;
    let status = response.status();
    // 403 is what guards in front of servers say to clients they do not know yet.
    if status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 425 | 429) {
        let later = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let later = later.and_then(|value| retry::retry_after_secs(value, Timestamp::now()));
        return Err(down_now(format!("HTTP {status}"), later));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(Nip11Error::NoDocument("its answer is too long".to_owned()));
        }
    }
    read(&body)
}

fn down_now(reason: String, retry_after_secs: Option<u64>) -> Nip11Error {
    Nip11Error::Down { reason, retry_after_secs }
}

fn is_io(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn read(body: &[u8]) -> Result<Introduction, Nip11Error> {
    let document: Document =
        // The parser quotes what it met, however long that is.
        serde_json::from_slice(body).map_err(|error| Nip11Error::NoDocument(clean(&error.to_string(), 300)))?;
    let supports = |name: &str| {
        document.supported_grasps.as_deref().unwrap_or_default().iter().any(|grasp| grasp == name)
    };
    let grasp = if supports("GRASP-01") {
        Grasp::Full
    } else if supports("GRASP-05") {
        Grasp::ArchiveOnly
    } else {
        Grasp::NotGrasp("its information document names no supported_grasps".to_owned())
    };
    let words = [&document.software, &document.version];
    let software = words.into_iter().flatten().map(|word| short(word)).collect::<Vec<_>>().join(" ");
    let software = (!software.is_empty()).then_some(software);
    Ok(Introduction { grasp, software, advertised: document.advertised(), room: document.room() })
}

/// A program's name may come as the URL of its source: the last part is the name.
fn short(word: &str) -> String {
    let name = word.trim_end_matches('/').rsplit('/').next().unwrap_or(word);
    clean(name.trim_end_matches(".git"), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_of_abilities_and_demands_is_taken_as_far_as_it_makes_sense() {
        let advertised = |rest: &str| {
            let body = format!(r#"{{"supported_grasps":["GRASP-01"],{rest}}}"#);
            read(body.as_bytes()).map(|introduction| introduction.advertised)
        };
        let said = advertised(
            r#""supported_nips":[77,1,"7D",-1,70000,1],
               "limitation":{"auth_required":true,"payment_required":false,"min_pow_difficulty":0,"restricted_writes":"x"}"#,
        );
        let expected = Advertised {
            nips: [1, 77].into(),
            auth: Some(true),
            payment: Some(false),
            writes: None,
            pow: Some(false),
        };
        assert_eq!(said, Ok(expected));
        for nonsense in
            [r#""supported_nips":null,"limitation":[]"#, r#""supported_nips":{},"limitation":"no""#]
        {
            assert_eq!(advertised(nonsense), Ok(Advertised::default()), "{nonsense}");
        }
    }

    #[test]
    fn the_room_that_it_says_it_has_is_believed() {
        let room = |limitation: &str| {
            read(format!(r#"{{"limitation":{limitation}}}"#).as_bytes()).map(|introduction| introduction.room)
        };
        let said = r#"{"max_subscriptions":8,"max_filters":3,"max_message_length":20000}"#;
        assert_eq!(room(said), Ok(Room { subscriptions: 8, filters: 3, message_bytes: 20_000 }));
        for nonsense in [r#"{"max_subscriptions":0,"max_filters":-3,"max_message_length":"x"}"#, "[]", "null"]
        {
            assert_eq!(room(nonsense), Ok(Room::default()), "{nonsense}");
        }
    }

    #[test]
    fn only_a_server_that_says_grasp_is_one() {
        let full = br#"{"supported_grasps":["GRASP-01","GRASP-02"],"software":"https://x/ngit-grasp","version":"3.0.9"}"#;
        assert_eq!(
            read(full),
            Ok(Introduction {
                grasp: Grasp::Full,
                software: Some("ngit-grasp 3.0.9".to_owned()),
                advertised: Advertised::default(),
                room: Room::default(),
            })
        );
        let grasp = |body: &[u8]| read(body).map(|introduction| introduction.grasp);
        assert_eq!(grasp(br#"{"supported_grasps":["GRASP-05"]}"#), Ok(Grasp::ArchiveOnly));
        assert!(matches!(grasp(br#"{"name":"a relay"}"#), Ok(Grasp::NotGrasp(_))));
        for other in [&b"<html>"[..], b"", br#"{"supported_grasps":"x"}"#] {
            assert!(matches!(read(other), Err(Nip11Error::NoDocument(_))));
        }
        let long = format!(r#"{{"supported_grasps":"{}"}}"#, "x".repeat(100_000));
        assert!(read(long.as_bytes()).is_err_and(|error| error.to_string().len() < 500));
    }
}
