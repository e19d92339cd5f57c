//! What a server says about itself: its relay information document (NIP-11).

use std::time::Duration;

use reqwest::header;
use serde::Deserialize;
use url::Url;

use crate::plan::placement::Grasp;

/// The longest document read, bytes.
const MAX_BYTES: usize = 256 * 1024;

/// A server's answer, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What kind of GRASP server it is.
    pub grasp: Grasp,
    /// `<software> <version>`, as far as it said.
    pub software: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    supported_grasps: Option<Vec<String>>,
    #[serde(default)]
    software: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

/// Why a server could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{server} cannot be reached: {reason}")]
pub struct Nip11Error {
    /// Its address.
    pub server: Url,
    /// What happened.
    pub reason: String,
}

/// Asks the server at `http_base` who it is.
///
/// # Errors
///
/// [`Nip11Error`] when no answer came within `timeout`. A server that answers something else than a relay
/// information document with `supported_grasps` is [`Grasp::NotGrasp`], not an error.
pub async fn ask(
    client: &reqwest::Client,
    http_base: &Url,
    timeout: Duration,
) -> Result<Introduction, Nip11Error> {
    let failed = |error: reqwest::Error| Nip11Error {
        server: http_base.clone(),
        reason: super::link::chain(&error.without_url()),
    };
    let mut response = client
        .get(http_base.clone())
        .header(header::ACCEPT, "application/nostr+json")
        .timeout(timeout)
        .send()
        .await
        .map_err(failed)?;
    if response.status().is_server_error() {
        return Err(Nip11Error { server: http_base.clone(), reason: format!("HTTP {}", response.status()) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Ok(not_grasp("its information document is too long"));
        }
    }
    Ok(read(&body))
}

fn not_grasp(reason: &str) -> Introduction {
    Introduction { grasp: Grasp::NotGrasp(reason.to_owned()), software: None }
}

fn read(body: &[u8]) -> Introduction {
    let Ok(document) = serde_json::from_slice::<Document>(body) else {
        return not_grasp("it serves no relay information document (NIP-11)");
    };
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
    Introduction { grasp, software: (!software.is_empty()).then_some(software) }
}

/// A program's name may come as the URL of its source: the last part is the name.
fn short(word: &str) -> String {
    let name = word.trim_end_matches('/').rsplit('/').next().unwrap_or(word);
    name.trim_end_matches(".git").chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_says_grasp_is_one() {
        let full = br#"{"supported_grasps":["GRASP-01","GRASP-02"],"software":"https://x/ngit-grasp","version":"3.0.9"}"#;
        assert_eq!(
            read(full),
            Introduction { grasp: Grasp::Full, software: Some("ngit-grasp 3.0.9".to_owned()) }
        );
        assert_eq!(read(br#"{"supported_grasps":["GRASP-05"]}"#).grasp, Grasp::ArchiveOnly);
        for other in [&br#"{"name":"a relay"}"#[..], b"<html>", b"", br#"{"supported_grasps":"x"}"#] {
            assert!(matches!(read(other).grasp, Grasp::NotGrasp(_)));
        }
    }
}
