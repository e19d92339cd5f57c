//! Pushing: one request that moves all refs of a server.

use std::{io, pin::Pin, task};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio_util::io::ReaderStream;
use url::Url;

use super::{
    AGENT, Advertisement, GitHttp, PushError, RefUpdate, WireError,
    advertisement::Discovered,
    http::{Service, malformed},
    pkt,
    report::{Outcome, PushAnswer},
    watch::Activity,
};
use crate::git::pack::{Pack, empty_pack};

/// How much of a pack is read from its file at once, in bytes: one such buffer for each push under way.
const READ_AT_ONCE: usize = 128 << 10;
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
    /// unknown until its refs are read again.
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
        let local = |source| WireError::Local { url: url.clone(), doing: "reading the pack to push", source };
        let head = request_head(server, commands).map_err(local)?;
        let activity = Activity::new();
        let mut len = head.len() as u64;
        let head = stream::iter([Ok(Bytes::from(head))]);
        let body: BodyStream = if commands.iter().all(RefUpdate::is_delete) {
            Box::pin(head)
        } else {
            len += pack.len();
            Box::pin(head.chain(pack_stream(pack).await.map_err(local)?))
        };
        let body = reqwest::Body::wrap_stream(Counted { body, activity: activity.clone() });
        let doing = "the push";
        let work = async {
            let limit = (MAX_REPORT, "the limit for answers to pushes");
            let mut answer =
                self.post(url, Service::ReceivePack, None, (body, len), doing, &activity, limit).await?;
            let mut reader = PushAnswer::default();
            while let Some(piece) = answer.next().await? {
                reader.feed(&piece).map_err(|reason| malformed(url, reason))?;
            }
            let names: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
            match reader.outcome(&names, server.can("report-status")) {
                Outcome::Done => Ok(Pushed { bytes_sent: len }),
                Outcome::Refused(reason) => Err(WireError::Refused { url: url.clone(), doing, reason }),
                Outcome::Unclear(reason) => Err(malformed(url, reason)),
            }
        };
        activity.watch(&self.limits, url, doing, work).await
    }
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

type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

async fn pack_stream(pack: &Pack) -> io::Result<BodyStream> {
    Ok(match pack.path() {
        None => Box::pin(stream::iter([Ok(Bytes::from(empty_pack()))])),
        Some(path) => {
            let file = tokio::fs::File::open(path).await?;
            Box::pin(ReaderStream::with_capacity(file, READ_AT_ONCE))
        }
    })
}

/// A body that tells the watch about every piece the connection takes.
struct Counted {
    body: BodyStream,
    activity: Activity,
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Option<Self::Item>> {
        let piece = self.body.as_mut().poll_next(cx);
        if let task::Poll::Ready(Some(Ok(bytes))) = &piece {
            self.activity.sent(bytes.len());
        }
        piece
    }
}
