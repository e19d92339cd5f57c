//! What a server says it has: `info/refs` in protocol v0, capabilities and `ls-refs` in v2.
//!
//! Formats: `gitprotocol-http(5)`, `gitprotocol-pack(5)` "Reference Discovery", `gitprotocol-v2(5)`.
//! Pure: bytes in, refs out, an error for everything else.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::{
    error::words,
    pkt::{Pkt, trim},
};
use crate::model::refs::ObjectId;

/// The refs a server takes pushes for, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Where requests go: the URL asked for, or where it redirected to.
    pub url: Url,
    /// Every ref with its object, `refs/nostr/…` included.
    pub refs: BTreeMap<String, ObjectId>,
    /// Objects the server has from elsewhere (`.have` lines, shared storage).
    pub also_has: Vec<ObjectId>,
    /// Capabilities, as `name` or `name=value`.
    pub capabilities: BTreeSet<String>,
}

impl Advertisement {
    /// Every object the server is known to have: what [`Repository::pack_for`] takes as `haves`.
    ///
    /// [`Repository::pack_for`]: crate::git::Repository::pack_for
    #[must_use]
    pub fn haves(&self) -> Vec<ObjectId> {
        self.refs.values().chain(&self.also_has).copied().collect()
    }

    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }
}

/// The refs a server offers for fetching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteRefs {
    /// Refs under `refs/` with their objects (an annotated tag's own object).
    pub refs: BTreeMap<String, ObjectId>,
    /// For annotated tags the object they lead to in the end.
    pub peeled: BTreeMap<String, ObjectId>,
    /// The branch `HEAD` names, if the server says so.
    pub head: Option<String>,
}

/// Capabilities read; servers have a dozen.
const MAX_CAPABILITIES: usize = 256;

/// Why an answer gives no refs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The server said no, in these words.
    Refused(String),
    /// It is not git's protocol.
    Malformed(String),
    /// More refs than the limit.
    TooMany,
}

/// The answer to `info/refs`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Discovered {
    /// The server speaks v0 (or v1): refs, and capabilities.
    V0(Listing),
    /// The server speaks v2: capabilities only.
    V2(BTreeSet<String>),
}

/// A v0 listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) remote: RemoteRefs,
    pub(super) also_has: Vec<ObjectId>,
    pub(super) capabilities: BTreeSet<String>,
}

fn malformed(reason: impl Into<String>) -> Unreadable {
    Unreadable::Malformed(reason.into())
}

/// Reads the answer to `info/refs?service=…`.
pub(super) fn discovered(lines: &[Pkt], max_refs: usize) -> Result<Discovered, Unreadable> {
    let mut lines = lines;
    if let [Pkt::Data(first), rest @ ..] = lines
        && first.starts_with(b"# service=")
    {
        lines = if let [Pkt::Flush, rest @ ..] = rest { rest } else { rest };
    }
    match lines {
        [Pkt::Data(first), rest @ ..] if trim(first) == b"version 2" => {
            let texts = rest.iter().map_while(|line| match line {
                Pkt::Data(data) => Some(String::from_utf8_lossy(trim(data)).into_owned()),
                _ => None,
            });
            Ok(Discovered::V2(texts.take(MAX_CAPABILITIES).collect()))
        }
        [Pkt::Data(first), rest @ ..] if trim(first) == b"version 1" => listing(rest, max_refs),
        _ => listing(lines, max_refs),
    }
}

fn listing(lines: &[Pkt], max_refs: usize) -> Result<Discovered, Unreadable> {
    let mut found = Listing::default();
    let mut ended = false;
    for (number, line) in lines.iter().enumerate() {
        let Pkt::Data(line) = line else {
            ended = true;
            break;
        };
        check_refusal(line)?;
        let mut parts = trim(line).splitn(2, |byte| *byte == 0);
        let (reference, capabilities) = (parts.next().unwrap_or_default(), parts.next());
        if number == 0 {
            let text = String::from_utf8_lossy(capabilities.unwrap_or_default());
            found.capabilities = text.split_ascii_whitespace().map(str::to_owned).collect();
            check_format(&found.capabilities)?;
        }
        if reference.starts_with(b"shallow ") {
            continue;
        }
        let (id, name) = id_and_rest(reference)?;
        add(&mut found, id, name, max_refs)?;
    }
    // A listing cut short must not look like a server with fewer refs.
    if !ended {
        return Err(malformed("the list of refs has no end"));
    }
    found.remote.head = found
        .capabilities
        .iter()
        .find_map(|capability| capability.strip_prefix("symref=HEAD:"))
        .map(str::to_owned);
    Ok(Discovered::V0(found))
}

fn add(found: &mut Listing, id: ObjectId, name: &[u8], max_refs: usize) -> Result<(), Unreadable> {
    match std::str::from_utf8(name) {
        // An empty repository has no ref to carry its capabilities.
        Ok("capabilities^{}" | "HEAD") => {}
        Ok(".have") => found.also_has.push(id),
        Ok(name) => match name.strip_suffix("^{}") {
            Some(tag) => drop(found.remote.peeled.insert(tag.to_owned(), id)),
            None => drop(found.remote.refs.insert(name.to_owned(), id)),
        },
        // No name that could be mirrored, and none that could be written into a command.
        Err(_) => {}
    }
    let most = found.remote.refs.len().max(found.remote.peeled.len()).max(found.also_has.len());
    if most > max_refs {
        return Err(Unreadable::TooMany);
    }
    Ok(())
}

/// Reads the answer to v2's `ls-refs`.
pub(super) fn ls_refs(lines: &[Pkt], max_refs: usize) -> Result<RemoteRefs, Unreadable> {
    let mut found = RemoteRefs::default();
    for line in lines {
        let Pkt::Data(line) = line else { return Ok(found) };
        check_refusal(line)?;
        let text = String::from_utf8_lossy(trim(line));
        let mut words = text.split(' ');
        let (id, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut peeled = None;
        let mut target = None;
        for attribute in words {
            if let Some(id) = attribute.strip_prefix("peeled:") {
                peeled = Some(object_id(id.as_bytes())?);
            } else if let Some(name) = attribute.strip_prefix("symref-target:") {
                target = Some(name.to_owned());
            }
        }
        if name == "HEAD" {
            found.head = target;
        }
        if name.is_empty() {
            return Err(malformed("a ref without a name"));
        }
        if id == "unborn" || name == "HEAD" || name.contains('\u{fffd}') {
            continue;
        }
        found.refs.insert(name.to_owned(), object_id(id.as_bytes())?);
        if let Some(peeled) = peeled {
            found.peeled.insert(name.to_owned(), peeled);
        }
        if found.refs.len() > max_refs {
            return Err(Unreadable::TooMany);
        }
    }
    Err(malformed("the list of refs has no end"))
}

pub(super) fn check_refusal(line: &[u8]) -> Result<(), Unreadable> {
    match line.strip_prefix(b"ERR ") {
        Some(reason) => Err(Unreadable::Refused(words(reason))),
        None => Ok(()),
    }
}

pub(super) fn check_format(capabilities: &BTreeSet<String>) -> Result<(), Unreadable> {
    let format = capabilities.iter().find_map(|capability| capability.strip_prefix("object-format="));
    match format {
        None | Some("sha1") => Ok(()),
        Some(other) => Err(malformed(format!("object format {}, not sha1", words(other.as_bytes())))),
    }
}

fn id_and_rest(line: &[u8]) -> Result<(ObjectId, &[u8]), Unreadable> {
    let (id, rest) = line.split_at_checked(40).ok_or_else(|| malformed("a ref line that is too short"))?;
    let name = rest.strip_prefix(b" ").ok_or_else(|| malformed("a ref line without a name"))?;
    Ok((object_id(id)?, name))
}

fn object_id(hex: &[u8]) -> Result<ObjectId, Unreadable> {
    if hex.len() != 40 {
        return Err(malformed("an object id that is not 40 hex digits"));
    }
    ObjectId::from_hex(hex).map_err(|_| malformed("an object id that is not 40 hex digits"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::{super::pkt::decode_all, *};

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn pkts(lines: &[&str]) -> Vec<Pkt> {
        lines
            .iter()
            .map(|line| match *line {
                "0000" => Pkt::Flush,
                line => Pkt::Data(line.as_bytes().to_vec().into()),
            })
            .collect()
    }

    #[test]
    fn a_push_listing() {
        let lines = pkts(&[
            "# service=git-receive-pack\n",
            "0000",
            &format!("{A} refs/heads/main\0report-status delete-refs object-format=sha1\n"),
            &format!("{B} refs/nostr/{A}\n"),
            &format!("{B} .have\n"),
            "0000",
        ]);
        let Discovered::V0(found) = discovered(&lines, 10).unwrap() else { panic!() };
        assert_eq!(found.remote.refs.len(), 2);
        assert_eq!(found.also_has, [ObjectId::Sha1([0xbb; 20])]);
        assert!(found.capabilities.contains("delete-refs"));
        assert_eq!(discovered(&lines, 1), Err(Unreadable::TooMany));
    }

    #[test]
    fn a_hundred_thousand_refs_are_read_or_refused() {
        let line = |number: usize, peeled: &str| format!("{A} refs/tags/{number}{peeled}\n");
        let all: Vec<String> =
            (0..100_000).map(|number| line(number, "")).chain(["0000".to_owned()]).collect();
        let lines = pkts(&all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(
            matches!(discovered(&lines, 100_000), Ok(Discovered::V0(found)) if found.remote.refs.len() == 100_000)
        );
        for limit in [0, 20_000, 99_999] {
            assert_eq!(discovered(&lines, limit), Err(Unreadable::TooMany));
            assert_eq!(ls_refs(&lines, limit), Err(Unreadable::TooMany));
        }
        // What hangs on refs that are not there counts as well.
        let peeled: Vec<String> = (0..50).map(|number| line(number, "^{}")).collect();
        let lines = pkts(&peeled.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(discovered(&lines, 20), Err(Unreadable::TooMany));
    }

    #[test]
    fn an_empty_repository_has_capabilities_and_no_refs() {
        let null = "0".repeat(40);
        let lines = pkts(&[&format!("{null} capabilities^{{}}\0report-status\n"), "0000"]);
        let Discovered::V0(found) = discovered(&lines, 10).unwrap() else { panic!() };
        assert!(found.remote.refs.is_empty());
        assert!(found.capabilities.contains("report-status"));
        // Nothing at all: what an empty repository answers to a v0 fetch.
        assert!(discovered(&pkts(&["# service=git-upload-pack\n", "0000", "0000"]), 1).is_ok());
    }

    #[test]
    fn a_fetch_listing_in_v0() {
        let lines = pkts(&[
            &format!("{A} HEAD\0symref=HEAD:refs/heads/main agent=x\n"),
            &format!("{A} refs/heads/main\n"),
            &format!("{B} refs/tags/v1\n"),
            &format!("{A} refs/tags/v1^{{}}\n"),
            "0000",
        ]);
        let Discovered::V0(found) = discovered(&lines, 10).unwrap() else { panic!() };
        assert_eq!(found.remote.head.as_deref(), Some("refs/heads/main"));
        assert_eq!(found.remote.peeled.len(), 1);
        assert_eq!(found.remote.refs.len(), 2);
    }

    #[test]
    fn a_fetch_listing_in_v2() {
        let lines = pkts(&[
            &format!("{A} HEAD symref-target:refs/heads/main\n"),
            &format!("{A} refs/heads/main\n"),
            &format!("{B} refs/tags/v1 peeled:{A}\n"),
            "0000",
        ]);
        let found = ls_refs(&lines, 10).unwrap();
        assert_eq!(found.head.as_deref(), Some("refs/heads/main"));
        assert_eq!((found.refs.len(), found.peeled.len()), (2, 1));
        assert_eq!(ls_refs(&lines, 1), Err(Unreadable::TooMany));
        let unborn = pkts(&["unborn HEAD symref-target:refs/heads/x\n", "0000"]);
        assert_eq!(ls_refs(&unborn, 1).unwrap().head.as_deref(), Some("refs/heads/x"));
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for bad in [&["x\n", "0000"][..], &[], &["ERR access denied\n"]] {
            assert!(discovered(&pkts(bad), 9).is_err());
            assert!(ls_refs(&pkts(bad), 9).is_err());
        }
        // The end is missing.
        assert!(discovered(&pkts(&[&format!("{A} refs/heads/main\0\n")]), 9).is_err());
        let refused = discovered(&pkts(&["ERR access\x1b denied\n", "0000"]), 9);
        assert_eq!(refused, Err(Unreadable::Refused("access denied".to_owned())));
        let sha256 = pkts(&[&format!("{A} refs/heads/main\0object-format=sha256\n"), "0000"]);
        assert!(discovered(&sha256, 9).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_not_a_panic(lines in prop::collection::vec(any::<Vec<u8>>(), 0..5), raw: Vec<u8>) {
            let mut lines: Vec<_> = lines.into_iter().map(|line| Pkt::Data(line.into())).collect();
            lines.push(Pkt::Flush);
            let _ = (discovered(&lines, 3), ls_refs(&lines, 3));
            if let Ok(lines) = decode_all(&raw) {
                let _ = discovered(&lines, 3);
            }
        }
    }
}
