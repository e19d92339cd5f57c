//! Requests and bounded answers.

use bytes::Bytes;
use nostr::prelude::Timestamp;
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use url::Url;

use super::{
    GitHttp, WireError,
    advertisement::{Discovered, Unreadable, check_format, discovered},
    error::words,
    pkt::{Pkt, decode_all},
    watch::Activity,
};
use crate::plan::retry;

/// One of git's two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// Version 2 has no pushing.
    fn protocol(self) -> Option<&'static str> {
        (self == Self::UploadPack).then_some("version=2")
    }
}

/// An answer being read, counted against a limit.
pub(super) struct Answer<'a> {
    response: Response,
    url: &'a Url,
    doing: &'static str,
    activity: &'a Activity,
    /// How many bytes may still come.
    left: u64,
    limit: (u64, &'static str),
}

impl Answer<'_> {
    /// The next piece of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        let piece = self.response.chunk().await;
        let piece = piece.map_err(|source| broken(self.url, self.doing, self.activity, source))?;
        self.activity.moved();
        let Some(piece) = piece else { return Ok(None) };
        let (limit, setting) = self.limit;
        self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(|| WireError::TooLarge {
            url: self.url.clone(),
            limit,
            unit: "bytes",
            setting,
        })?;
        Ok(Some(piece))
    }

    /// The whole body, as pkt-lines.
    pub(super) async fn lines(mut self) -> Result<Vec<Pkt>, WireError> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            body.extend_from_slice(&piece);
        }
        decode_all(&body).map_err(|reason| malformed(self.url, reason))
    }
}

impl GitHttp {
    /// Asks `url` for the refs or capabilities of `service`; also where further requests are to go.
    pub(super) async fn discover(
        &self,
        url: &Url,
        service: Service,
        activity: &Activity,
    ) -> Result<(Url, Discovered), WireError> {
        let doing = "listing the refs";
        let mut asked = below(url, "info/refs");
        asked.query_pairs_mut().append_pair("service", service.name());
        let send = || {
            let mut request = self.client.get(asked.clone());
            if let Some(version) = service.protocol() {
                request = request.header("Git-Protocol", version);
            }
            request.send()
        };
        let response = match send().await {
            // A connection that the server had closed while nobody used it. Asking twice changes nothing.
            Err(error) if error.is_request() && !error.is_connect() => send().await,
            response => response,
        };
        let response = response.map_err(|source| broken(url, doing, activity, source))?;
        activity.moved();
        let effective = above(response.url(), "/info/refs").unwrap_or_else(|| url.clone());
        let expected = format!("application/x-{}-advertisement", service.name());
        let answer =
            self.answer(response, url, doing, activity, &expected, self.advertisement_limit()).await?;
        let found = discovered(&answer.lines().await?, self.limits.max_refs);
        if let Ok(Discovered::V2(capabilities)) = &found {
            check_format(capabilities).map_err(|error| self.unreadable(url, doing, error))?;
        }
        Ok((effective, found.map_err(|error| self.unreadable(url, doing, error))?))
    }

    /// Sends `body` to `service` of the repository at `url`.
    ///
    /// `limit` bounds the answer: bytes, and the setting they come from.
    #[allow(clippy::too_many_arguments, reason = "one private place where every request is made")]
    pub(super) async fn post<'a>(
        &self,
        url: &'a Url,
        service: Service,
        version: Option<&'static str>,
        (body, len): (reqwest::Body, u64),
        doing: &'static str,
        activity: &'a Activity,
        limit: (u64, &'static str),
    ) -> Result<Answer<'a>, WireError> {
        let expected = format!("application/x-{}-result", service.name());
        let mut request = self
            .client
            .post(below(url, service.name()))
            .header(CONTENT_TYPE, format!("application/x-{}-request", service.name()))
            .header(ACCEPT, expected.as_str())
            // Known in advance, and some servers cannot do without.
            .header(CONTENT_LENGTH, len);
        if let Some(version) = version {
            request = request.header("Git-Protocol", version);
        }
        let response = request.body(body).send().await;
        let response = response.map_err(|source| broken(url, doing, activity, source))?;
        activity.moved();
        self.answer(response, url, doing, activity, &expected, limit).await
    }

    /// Turns away what is no answer of a git server.
    async fn answer<'a>(
        &self,
        response: Response,
        url: &'a Url,
        doing: &'static str,
        activity: &'a Activity,
        expected_type: &str,
        limit: (u64, &'static str),
    ) -> Result<Answer<'a>, WireError> {
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec());
        let retry_after_secs = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry::retry_after_secs(value.to_str().ok()?, Timestamp::now()));
        let mut answer = Answer { response, url, doing, activity, left: limit.0, limit };
        if status == StatusCode::NOT_FOUND {
            return Err(WireError::RepositoryUnknown { url: url.clone() });
        }
        if status != StatusCode::OK {
            // The start of the text is enough; what cannot be read of it is no second failure.
            let said = answer.next().await.ok().flatten().unwrap_or_default();
            let mut reason = words(&said);
            if reason.is_empty() {
                reason = status.canonical_reason().unwrap_or("no reason given").to_owned();
            }
            let (url, status) = (url.clone(), status.as_u16());
            return Err(WireError::Status { url, status, reason, retry_after_secs });
        }
        let kind = kind.unwrap_or_default();
        if kind.split(|byte| *byte == b';').next().is_none_or(|kind| kind != expected_type.as_bytes()) {
            let reason = format!("its type is {:?}, not {expected_type}: no git server there?", words(&kind));
            return Err(malformed(url, reason));
        }
        Ok(answer)
    }

    pub(super) fn advertisement_limit(&self) -> (u64, &'static str) {
        (self.limits.max_advertisement_bytes, "the limit for lists of refs")
    }

    pub(super) fn unreadable(&self, url: &Url, doing: &'static str, error: Unreadable) -> WireError {
        match error {
            Unreadable::Refused(reason) => WireError::Refused { url: url.clone(), doing, reason },
            Unreadable::Malformed(reason) => malformed(url, reason),
            Unreadable::TooMany => WireError::TooLarge {
                url: url.clone(),
                limit: self.limits.max_refs as u64,
                unit: "refs",
                setting: "limits.max_refs",
            },
        }
    }
}

pub(super) fn malformed(url: &Url, reason: impl Into<String>) -> WireError {
    WireError::Malformed { url: url.clone(), reason: reason.into() }
}

/// What a failed request was: not even connected, or broken on the way.
pub(super) fn broken(
    url: &Url,
    doing: &'static str,
    activity: &Activity,
    source: reqwest::Error,
) -> WireError {
    // The error's own URL repeats ours, query and all.
    let source = source.without_url();
    if source.is_connect() {
        WireError::Unreachable { url: url.clone(), source }
    } else {
        WireError::Broken { url: url.clone(), doing, sent_bytes: activity.sent_bytes(), source }
    }
}

/// `url` with `path` appended to its path.
fn below(url: &Url, path: &str) -> Url {
    let mut below = url.clone();
    below.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    below
}

/// `url` without `end` at the end of its path, and without a query.
fn above(url: &Url, end: &str) -> Option<Url> {
    let path = url.path().strip_suffix(end)?;
    let mut above = url.clone();
    above.set_path(path);
    above.set_query(None);
    Some(above)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_appended_and_taken_off() {
        let url = Url::parse("https://h/git/npub1x/a%20b%2Fc.git/").unwrap();
        let asked = below(&url, "info/refs");
        assert_eq!(asked.as_str(), "https://h/git/npub1x/a%20b%2Fc.git/info/refs");
        assert_eq!(above(&asked, "/info/refs").unwrap().as_str(), "https://h/git/npub1x/a%20b%2Fc.git");
        assert_eq!(above(&url, "/info/refs"), None);
    }
}
