//! The answer to a push. Pure.
//!
//! Format: `gitprotocol-pack(5)`, "Report Status"; with `side-band-64k` its lines lie in pkt-lines inside
//! band 1. GRASP servers answer most refusals with HTTP 200 and band 3, or an `ERR` line (GRASP.md).

use std::collections::HashSet;

use super::{
    error::words,
    pkt::{Pkt, PktDecoder, trim},
};

/// A few of perhaps thousands of refs that were refused tell enough.
const TOLD: usize = 3;

/// How much of a server's complaint is kept, in bytes.
const MAX_SAID: usize = 4 << 10;

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All commands were carried out.
    Done,
    /// The server's own words.
    Refused(String),
    /// The answer says neither.
    Unclear(String),
}

/// Reads an answer fed in pieces.
#[derive(Debug, Default)]
pub(super) struct PushAnswer {
    outer: PktDecoder,
    nested: PktDecoder,
    unpack: Option<Result<(), String>>,
    /// Refs that were set.
    done: HashSet<String>,
    /// The first refs that were not, with the reason.
    failed: Vec<String>,
    /// How many were not.
    failures: usize,
    /// Band 3 and `ERR` lines.
    error: Vec<u8>,
}

impl PushAnswer {
    /// Takes in the next piece; the reason when it is no answer to a push.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.outer.feed(bytes);
        while let Some(line) = self.outer.next()? {
            let Pkt::Data(data) = line else { continue };
            match data.split_first() {
                Some((1, nested)) => {
                    self.nested.feed(nested);
                    while let Some(line) = self.nested.next()? {
                        if let Pkt::Data(line) = line {
                            self.report_line(&line);
                        }
                    }
                }
                Some((2, _)) | None => {}
                Some((3, said)) => self.say(said),
                Some(_) => self.report_line(&data),
            }
        }
        Ok(())
    }

    fn report_line(&mut self, line: &[u8]) {
        let line = trim(line);
        if let Some(said) = line.strip_prefix(b"ERR ") {
            self.say(said);
        } else if let Some(result) = line.strip_prefix(b"unpack ") {
            self.unpack = Some(if result == b"ok" { Ok(()) } else { Err(words(result)) });
        } else if let Some(name) = line.strip_prefix(b"ok ") {
            self.done.insert(String::from_utf8_lossy(name).into_owned());
        } else if let Some(failed) = line.strip_prefix(b"ng ") {
            // `ng <ref> <reason>`
            self.failures += 1;
            if self.failed.len() < TOLD {
                self.failed.push(words(failed).replacen(' ', ": ", 1));
            }
        }
    }

    fn say(&mut self, said: &[u8]) {
        let room = MAX_SAID.saturating_sub(self.error.len());
        self.error.extend(said.iter().take(room));
    }

    /// The outcome, once the answer has ended. `names` are the refs that were to change; `report` says
    /// whether the server had promised a report.
    pub(super) fn outcome(self, names: &[&str], report: bool) -> Outcome {
        let error = words(&self.error);
        let error = error.strip_prefix("ERR ").unwrap_or(&error).to_owned();
        let mut reasons: Vec<String> = Vec::new();
        if !error.is_empty() {
            reasons.push(error);
        }
        if let Some(Err(reason)) = &self.unpack {
            reasons.push(format!("unpack: {reason}"));
        }
        let more = self.failures - self.failed.len();
        reasons.extend(self.failed);
        if more > 0 {
            reasons.push(format!("and {more} more refs"));
        }
        if !reasons.is_empty() {
            return Outcome::Refused(reasons.join("; "));
        }
        if !self.outer.is_between_lines() || !self.nested.is_between_lines() {
            return Outcome::Unclear("the answer to the push was cut off".to_owned());
        }
        if !report {
            return Outcome::Done;
        }
        if self.unpack.is_none() {
            return Outcome::Unclear("the answer to the push holds no report".to_owned());
        }
        match names.iter().find(|name| !self.done.contains(**name)) {
            Some(name) => Outcome::Unclear(format!("the report on the push leaves out {name}")),
            None => Outcome::Done,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::{super::pkt, *};

    const MAIN: &str = "refs/heads/main";

    fn lines(lines: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            match *line {
                b"0000" => pkt::put_flush(&mut out),
                line => pkt::put(&mut out, line).unwrap(),
            }
        }
        out
    }

    /// `report` cut every `cut` bytes into band 1, with progress between, as servers do.
    fn banded(report: &[u8], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in report.chunks(cut) {
            pkt::put(&mut out, b"\x02Resolving deltas: 1").unwrap();
            pkt::put(&mut out, &[b"\x01", piece].concat()).unwrap();
        }
        pkt::put_flush(&mut out);
        out
    }

    fn read(answer: &[u8], cut: usize) -> Outcome {
        let mut reader = PushAnswer::default();
        for piece in answer.chunks(cut) {
            if let Err(reason) = reader.feed(piece) {
                return Outcome::Unclear(reason);
            }
        }
        reader.outcome(&[MAIN], true)
    }

    #[test]
    fn a_report_is_read_wherever_it_is_cut() {
        let good = lines(&[b"unpack ok\n", b"ok refs/heads/main\n", b"0000"]);
        let bad = lines(&[b"unpack ok\n", b"ng refs/heads/main hook declined\n", b"0000"]);
        for cut in 1..60 {
            assert_eq!(read(&good, cut), Outcome::Done);
            assert_eq!(read(&banded(&good, cut), 61 - cut), Outcome::Done);
            let refused = Outcome::Refused("refs/heads/main: hook declined".to_owned());
            assert_eq!(read(&banded(&bad, cut), 61 - cut), refused);
        }
    }

    #[test]
    fn refusals_are_the_servers_words() {
        let band3 = lines(&[b"\x02hm\n", b"\x03ERR authorisation failed: No state\x07 events\n", b"0000"]);
        let said = Outcome::Refused("authorisation failed: No state events".to_owned());
        assert_eq!(read(&band3, 3), said);
        assert_eq!(read(&lines(&[b"ERR authorisation failed: No state events"]), 3), said);
        let report =
            lines(&[b"unpack eof before pack header\n", b"ng refs/heads/main unpacker error\n", b"0000"]);
        let said = "unpack: eof before pack header; refs/heads/main: unpacker error";
        assert_eq!(read(&report, 9), Outcome::Refused(said.to_owned()));
    }

    #[test]
    fn a_complaint_without_end_is_cut_short() {
        let refs = b"000cng a no\n".repeat(100_000);
        let Outcome::Refused(said) = read(&refs, 4096) else { panic!("not refused") };
        assert_eq!(said, "a: no; a: no; a: no; and 99997 more refs");
        let complaint = lines(&vec![&b"\x03no, and no, and again no"[..]; 10_000]);
        let mut reader = PushAnswer::default();
        assert_eq!(reader.feed(&complaint), Ok(()));
        assert_eq!(reader.error.len(), MAX_SAID);
        assert!(matches!(reader.outcome(&[MAIN], true), Outcome::Refused(_)));
    }

    #[test]
    fn silence_is_not_consent() {
        for unclear in [&b""[..], b"0000", &lines(&[b"unpack ok\n", b"0000"]), b"<html>"] {
            assert!(matches!(read(unclear, 9), Outcome::Unclear(_)));
        }
        let other = lines(&[b"unpack ok\n", b"ok refs/heads/other\n", b"0000"]);
        assert!(matches!(read(&other, 9), Outcome::Unclear(_)));
        assert_eq!(PushAnswer::default().outcome(&[MAIN], false), Outcome::Done);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_not_a_panic(bytes: Vec<u8>, cut in 1_usize..9) {
            prop_assert_ne!(read(&bytes, cut), Outcome::Done);
        }
    }
}
