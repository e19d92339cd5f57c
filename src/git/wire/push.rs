//! Pushing: one request that moves all refs of a server.

use std::io;

use bytes::Bytes;
use url::Url;

use super::{
    AGENT, Advertisement, GitHttp, PushError, RefUpdate, WireError,
    advertisement::Discovered,
    http::{Service, malformed},
    pkt,
    report::{Outcome, PushAnswer},
    upload,
    watch::Activity,
};
use crate::git::pack::Pack;

/// Largest answer to a push, in bytes. A report has a line for each ref; `quiet` stops most else.
const MAX_REPORT: u64 = 16 << 20;

/// A push that the server reported as carried out in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Length of the request's body in bytes; 0 when there was nothing to ask for.
    pub bytes_sent: u64,
}

impl GitHttp {
    /// The refs that the repository at `url` has for pushing, all of them, and what the server can do.
    ///
    /// # Errors
    ///
    /// [`WireError`]; a listing that is cut short is an error, never a shorter listing.
    pub async fn receive_pack_refs(&self, url: &Url) -> Result<Advertisement, WireError> {
        let activity = Activity::new();
        let work = async {
            match self.discover(url, Service::ReceivePack, &activity).await? {
                (_, Discovered::V2(_)) => Err(malformed(url, "version 2 of the protocol for a push")),
                (to, Discovered::V0(listing)) => Ok(Advertisement {
                    url: to,
                    refs: listing.remote.refs,
                    also_has: listing.also_has,
                    capabilities: listing.capabilities,
                }),
            }
        };
        activity.watch(&self.limits, url, "listing the refs", work).await
    }

    /// Carries out `commands` on the repository that `server` was read from, in one request.
    ///
    /// `pack` holds every object the server lacks (a superset is fine, [`Pack::Empty`] if it lacks none);
    /// it is not sent when `commands` only delete. Its bytes go from the file to the connection; several
    /// pushes may stream one file at once. Without commands nothing is sent.
    ///
    /// # Errors
    ///
    /// [`WireError::Refused`] carries the server's own words. After any error what the server has is
    /// unknown until its refs are read again. A request that broke before it was sent to its end is sent once more;
    /// one that the server may have seen whole never is ([`WireError::Unanswered`]).
    ///
    /// Protocol: `gitprotocol-pack(5)`, "Reference Update Request and Packfile Transfer"; GRASP-01 demands
    /// the exact state in one push.
    pub async fn push(
        &self,
        server: &Advertisement,
        commands: &[RefUpdate],
        pack: &Pack,
    ) -> Result<Pushed, PushError> {
        if commands.is_empty() {
            return Ok(Pushed { bytes_sent: 0 });
        }
        let url = &server.url;
        let head = Bytes::from(request_head(server, commands).map_err(|source| reading(url, source))?);
        let pack = (!commands.iter().all(RefUpdate::is_delete)).then_some(pack);
        let len = head.len() as u64 + pack.map_or(0, Pack::len);
        let request = Request { server, commands, head, pack, len };
        match self.push_once(&request).await {
            // It cannot have done anything: a request that did not come in whole is none.
            Err(error @ WireError::Broken { sent_bytes, .. }) if sent_bytes < len => {
                tracing::debug!(%url, sent_bytes, %error, "a push broke before it was sent; once more");
                self.push_once(&request).await
            }
            pushed => pushed,
        }
    }

    async fn push_once(&self, request: &Request<'_>) -> Result<Pushed, PushError> {
        let Request { server, commands, head, pack, len } = request;
        let (url, doing) = (&server.url, "the push");
        let activity = Activity::new();
        let body = upload::body(head.clone(), *pack, (&self.upload, &self.recent), &activity).await;
        let body = body.map_err(|source| reading(url, source))?;
        let work = async {
            let limit = (MAX_REPORT, "the limit for answers to pushes");
            let mut answer =
                self.post(url, Service::ReceivePack, None, (body, *len), doing, &activity, limit).await?;
            let mut reader = PushAnswer::default();
            while let Some(piece) = answer.next().await? {
                reader.feed(&piece).map_err(|reason| malformed(url, reason))?;
            }
            let names: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
            match reader.outcome(&names, server.can("report-status")) {
                Outcome::Done => Ok(Pushed { bytes_sent: *len }),
                Outcome::Refused(reason) => Err(WireError::Refused { url: url.clone(), doing, reason }),
                Outcome::Unclear(reason) => Err(malformed(url, reason)),
            }
        };
        match activity.watch(&self.limits, url, doing, work).await {
            Err(problem @ (WireError::Broken { .. } | WireError::TimedOut { .. }))
                if activity.sent_bytes() >= *len =>
            {
                Err(WireError::Unanswered { url: url.clone(), problem: Box::new(problem) })
            }
            pushed => pushed,
        }
    }
}

/// One push, as it can be sent again.
struct Request<'a> {
    server: &'a Advertisement,
    commands: &'a [RefUpdate],
    head: Bytes,
    /// None where only refs are deleted.
    pack: Option<&'a Pack>,
    /// The length of the body.
    len: u64,
}

fn reading(url: &Url, source: io::Error) -> WireError {
    WireError::Local { url: url.clone(), doing: "reading the pack to push", source }
}

/// The commands, with the capabilities asked for on the first line.
fn request_head(server: &Advertisement, commands: &[RefUpdate]) -> io::Result<Vec<u8>> {
    let mut asked: Vec<&str> = vec!["report-status", "side-band-64k", "quiet", "object-format=sha1"];
    asked.retain(|capability| server.can(capability));
    if server.capabilities.iter().any(|capability| capability.starts_with("agent=")) {
        asked.push(AGENT);
    }
    let mut head = Vec::with_capacity(commands.len() * 128 + 64);
    for (number, RefUpdate { name, old, new }) in commands.iter().enumerate() {
        let mut line = format!("{old} {new} {name}");
        if number == 0 {
            line.push('\0');
            line.push_str(&asked.join(" "));
        }
        line.push('\n');
        pkt::put(&mut head, line.as_bytes())?;
    }
    pkt::put_flush(&mut head);
    Ok(head)
}
