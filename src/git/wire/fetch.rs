//! Fetching: the refs a server offers, and packs.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

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

/// The setting that limits a repository's size.
const SIZE_SETTING: &str = "limits.max_repo_bytes";

/// A pack as it came from a server: header and checksum are right, the objects are not looked at.
#[derive(Debug)]
pub struct FetchedPack {
    /// The file; it goes when this goes.
    pub path: TempPath,
    /// Its length.
    pub bytes: u64,
    /// What the server was told is here. The pack holds nothing that these reach, and may hold deltas
    /// against it: it is for who has all of them.
    pub haves: Vec<ObjectId>,
}

/// How large a pack may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: u64,
    /// Whether the disk sets the limit, not the configuration.
    pub is_disk: bool,
}

impl Room {
    /// As large as the configuration allows.
    #[must_use]
    pub fn up_to(bytes: u64) -> Self {
        Self { bytes, is_disk: false }
    }
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
    /// needs nothing but `haves` and what they reach, into a new file in `into_dir`. Of `haves` the first
    /// 256 are sent. With `haves` the pack may be thin.
    ///
    /// The bytes go straight to the file; its size is limited to `room` while they come in.
    ///
    /// # Errors
    ///
    /// [`WireError::Refused`] with the server's words when it does not have a want; the file is gone then.
    pub async fn fetch_pack(
        &self,
        url: &Url,
        wants: &[ObjectId],
        haves: &[ObjectId],
        room: Room,
        into_dir: &Path,
    ) -> Result<FetchedPack, WireError> {
        let haves = first_haves(haves);
        let doing = "fetching";
        let activity = Activity::new();
        let work = async {
            let (to, found) = self.discover(url, Service::UploadPack, &activity).await?;
            let (version, body) = match found {
                Discovered::V2(capabilities) => (Some("version=2"), v2_fetch(&capabilities, wants, &haves)),
                Discovered::V0(listing) => (None, v0_fetch(&listing.capabilities, wants, &haves)),
            };
            // The sidebands and progress around the pack come on top of the pack's own size.
            let limit = room.bytes.saturating_add(room.bytes / 64 + (1 << 20));
            let limit = (limit, SIZE_SETTING);
            let mut answer = self.ask(&to, version, body, doing, &activity, limit).await?;
            self.receive(url, doing, &mut answer, room, into_dir).await
        };
        let (path, bytes) = activity.watch(&self.limits, url, doing, work).await?;
        Ok(FetchedPack { path, bytes, haves })
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
        room: Room,
        into_dir: &Path,
    ) -> Result<(TempPath, u64), WireError> {
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
                if check.bytes() > room.bytes {
                    let (url, limit) = (url.clone(), room.bytes);
                    return Err(if room.is_disk {
                        WireError::NoRoom { url, room_bytes: limit }
                    } else {
                        WireError::TooLarge { url, limit, unit: "bytes", setting: SIZE_SETTING }
                    });
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
        Ok((path, bytes))
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

/// `done` at once: no negotiation, one request. Thin where something is here: servers that had the same get the
/// pack as it comes, and it is completed for the local copy only.
fn v2_fetch(capabilities: &BTreeSet<String>, wants: &[ObjectId], haves: &[ObjectId]) -> Vec<u8> {
    let lines: Vec<String> = want_lines(wants).chain(have_lines(haves)).collect();
    let mut arguments: Vec<&[u8]> = vec![b"ofs-delta\n", b"no-progress\n"];
    if !haves.is_empty() {
        arguments.push(b"thin-pack\n");
    }
    arguments.extend(lines.iter().map(String::as_bytes));
    arguments.push(b"done\n");
    v2_request("fetch", capabilities, &arguments)
}

fn v0_fetch(capabilities: &BTreeSet<String>, wants: &[ObjectId], haves: &[ObjectId]) -> Vec<u8> {
    let mut asked: Vec<&str> = vec!["side-band-64k", "ofs-delta", "no-progress"];
    if !haves.is_empty() {
        asked.push("thin-pack");
    }
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

/// The first `MAX_HAVES` different ones: what tells a server most should come first.
fn first_haves(haves: &[ObjectId]) -> Vec<ObjectId> {
    let mut seen = HashSet::new();
    haves.iter().copied().filter(|id| seen.insert(*id)).take(MAX_HAVES).collect()
}

fn have_lines(haves: &[ObjectId]) -> impl Iterator<Item = String> {
    haves.iter().map(|id| format!("have {id}\n"))
}
