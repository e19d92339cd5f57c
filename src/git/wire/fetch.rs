//! Fetching: the refs a server offers, and packs.

use std::{collections::BTreeSet, path::Path};

use tempfile::TempPath;
use tokio::io::{AsyncWriteExt, BufWriter};
use url::Url;

use super::{
    AGENT, GitHttp, RemoteRefs, WireError,
    advertisement::{Discovered, ls_refs},
    fetched::{NoPack, PackAnswer, PackCheck},
    http::{Answer, Service, malformed},
    pkt,
    watch::Activity,
};
use crate::model::refs::ObjectId;

/// Most `have` lines sent; what a server does not hear of it sends again.
const MAX_HAVES: usize = 256;

/// A pack as it came from a server: header and checksum are right, the objects are not looked at.
#[derive(Debug)]
pub struct FetchedPack {
    /// The file; it goes when this goes.
    pub path: TempPath,
    /// Its length.
    pub bytes: u64,
}

impl GitHttp {
    /// The refs that the repository at `url` offers, under `refs/heads/`, `refs/tags/` and `refs/nostr/`
    /// (from servers that speak v0 only: all of them).
    ///
    /// # Errors
    ///
    /// [`WireError`]; a listing that is cut short is an error, never a shorter listing.
    pub async fn ls_refs(&self, url: &Url) -> Result<RemoteRefs, WireError> {
        let doing = "listing the refs";
        let activity = Activity::new();
        let work = async {
            let (to, found) = self.discover(url, Service::UploadPack, &activity).await?;
            let capabilities = match found {
                Discovered::V0(listing) => return Ok(listing.remote),
                Discovered::V2(capabilities) => capabilities,
            };
            let mut arguments: Vec<&[u8]> = vec![b"peel\n", b"symrefs\n"];
            arguments.extend([b"ref-prefix HEAD\n".as_slice(), b"ref-prefix refs/heads/\n"]);
            arguments.extend([b"ref-prefix refs/tags/\n".as_slice(), b"ref-prefix refs/nostr/\n"]);
            let body = v2_request("ls-refs", &capabilities, &arguments);
            let limit = self.advertisement_limit();
            let answer = self.ask(&to, Some("version=2"), body, doing, &activity, limit).await?;
            let lines = answer.lines().await?;
            ls_refs(&lines, self.limits.max_refs).map_err(|error| self.unreadable(url, doing, error))
        };
        activity.watch(&self.limits, url, doing, work).await
    }

    /// Fetches `wants` and what they need beyond `haves` from the repository at `url`, as one pack that
    /// needs nothing but `haves` and what they reach, into a new file in `into_dir`.
    ///
    /// The bytes go straight to the file; the pack's size is limited while it comes in.
    ///
    /// # Errors
    ///
    /// [`WireError::Refused`] with the server's words when it does not have a want; the file is gone then.
    pub async fn fetch_pack(
        &self,
        url: &Url,
        wants: &[ObjectId],
        haves: &[ObjectId],
        into_dir: &Path,
    ) -> Result<FetchedPack, WireError> {
        let doing = "fetching";
        let activity = Activity::new();
        let work = async {
            let (to, found) = self.discover(url, Service::UploadPack, &activity).await?;
            let (version, body) = match found {
                Discovered::V2(capabilities) => (Some("version=2"), v2_fetch(&capabilities, wants, haves)),
                Discovered::V0(listing) => (None, v0_fetch(&listing.capabilities, wants, haves)),
            };
            // The sidebands and progress around the pack come on top of the pack's own size.
            let limit =
                self.limits.max_pack_bytes.saturating_add(self.limits.max_pack_bytes / 64 + (1 << 20));
            let limit = (limit, "limits.max_repo_bytes");
            let mut answer = self.ask(&to, version, body, doing, &activity, limit).await?;
            self.receive(url, doing, &mut answer, into_dir).await
        };
        activity.watch(&self.limits, url, doing, work).await
    }

    async fn ask<'a>(
        &self,
        url: &'a Url,
        version: Option<&'static str>,
        body: Vec<u8>,
        doing: &'static str,
        activity: &'a Activity,
        limit: (u64, &'static str),
    ) -> Result<Answer<'a>, WireError> {
        let len = body.len() as u64;
        self.post(url, Service::UploadPack, version, (body.into(), len), doing, activity, limit).await
    }

    async fn receive(
        &self,
        url: &Url,
        doing: &'static str,
        answer: &mut Answer<'_>,
        into_dir: &Path,
    ) -> Result<FetchedPack, WireError> {
        let local = |source| WireError::Local { url: url.clone(), doing: "storing a fetched pack", source };
        let file = tempfile::Builder::new().prefix("fetch-").suffix(".pack").tempfile_in(into_dir);
        let (file, path) = file.map_err(local)?.into_parts();
        let mut file = BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(file));
        let mut reader = PackAnswer::default();
        let mut check = PackCheck::new();
        while let Some(piece) = answer.next().await? {
            reader.feed(&piece);
            while let Some(pack) = reader.next().map_err(|error| no_pack(url, doing, error))? {
                check.feed(&pack).map_err(|reason| malformed(url, reason))?;
                if check.bytes() > self.limits.max_pack_bytes {
                    let limit = self.limits.max_pack_bytes;
                    let (unit, setting) = ("bytes", "limits.max_repo_bytes");
                    return Err(WireError::TooLarge { url: url.clone(), limit, unit, setting });
                }
                file.write_all(&pack).await.map_err(local)?;
            }
        }
        if !reader.is_complete() {
            return Err(malformed(url, "the pack was cut off"));
        }
        file.flush().await.map_err(local)?;
        let bytes = check.bytes();
        check.finish().map_err(|reason| malformed(url, reason))?;
        Ok(FetchedPack { path, bytes })
    }
}

fn no_pack(url: &Url, doing: &'static str, error: NoPack) -> WireError {
    match error {
        NoPack::Refused(reason) => WireError::Refused { url: url.clone(), doing, reason },
        NoPack::Malformed(reason) => malformed(url, reason),
    }
}

/// A v2 command. Its lines are all short, so writing them cannot fail.
fn v2_request(command: &str, capabilities: &BTreeSet<String>, arguments: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = pkt::put(&mut body, format!("command={command}\n").as_bytes());
    if capabilities.iter().any(|capability| capability.starts_with("agent=")) {
        let _ = pkt::put(&mut body, AGENT.as_bytes());
    }
    if capabilities.contains("object-format=sha1") {
        let _ = pkt::put(&mut body, b"object-format=sha1");
    }
    pkt::put_delimiter(&mut body);
    for argument in arguments {
        let _ = pkt::put(&mut body, argument);
    }
    pkt::put_flush(&mut body);
    body
}

/// `done` at once: no negotiation, one request. No thin-pack: the pack is to stand on its own.
fn v2_fetch(capabilities: &BTreeSet<String>, wants: &[ObjectId], haves: &[ObjectId]) -> Vec<u8> {
    let lines: Vec<String> = want_lines(wants).chain(have_lines(haves)).collect();
    let mut arguments: Vec<&[u8]> = vec![b"ofs-delta\n", b"no-progress\n"];
    arguments.extend(lines.iter().map(String::as_bytes));
    arguments.push(b"done\n");
    v2_request("fetch", capabilities, &arguments)
}

fn v0_fetch(capabilities: &BTreeSet<String>, wants: &[ObjectId], haves: &[ObjectId]) -> Vec<u8> {
    let mut asked: Vec<&str> = vec!["side-band-64k", "ofs-delta", "no-progress"];
    asked.retain(|capability| capabilities.contains(*capability));
    if capabilities.iter().any(|capability| capability.starts_with("agent=")) {
        asked.push(AGENT);
    }
    let mut body = Vec::new();
    for (number, line) in want_lines(wants).enumerate() {
        let line = if number == 0 { format!("{} {}\n", line.trim_end(), asked.join(" ")) } else { line };
        let _ = pkt::put(&mut body, line.as_bytes());
    }
    pkt::put_flush(&mut body);
    for line in have_lines(haves) {
        let _ = pkt::put(&mut body, line.as_bytes());
    }
    let _ = pkt::put(&mut body, b"done\n");
    body
}

fn want_lines(wants: &[ObjectId]) -> impl Iterator<Item = String> {
    let each: BTreeSet<_> = wants.iter().collect();
    each.into_iter().map(|id| format!("want {id}\n"))
}

fn have_lines(haves: &[ObjectId]) -> impl Iterator<Item = String> {
    let each: BTreeSet<_> = haves.iter().collect();
    each.into_iter().take(MAX_HAVES).map(|id| format!("have {id}\n"))
}
