//! The answer to a fetch: where the pack's bytes are in it, and whether they arrived whole. Pure.

use bytes::Bytes;

use super::{
    error::words,
    pkt::{Pkt, PktDecoder, trim},
};
use crate::{git::checksum::Checksum, model::refs::ObjectId};

/// Why an answer gives no pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoPack {
    /// The server's own words.
    Refused(String),
    /// It is not git's protocol, or the pack is damaged.
    Malformed(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    Pack,
    After,
}

/// Takes the pack out of an answer, v2 (`gitprotocol-v2(5)`, "fetch") or v0 with `side-band-64k`.
#[derive(Debug, Default)]
pub(super) struct PackAnswer {
    lines: PktDecoder,
    phase: Phase,
}

impl PackAnswer {
    /// Takes in the next piece of the answer.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
    }

    /// The next piece of the pack; `None` when more of the answer is needed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, NoPack> {
        while let Some(line) = self.lines.next().map_err(NoPack::Malformed)? {
            if self.phase == Phase::After {
                return Err(NoPack::Malformed("more after the end of the pack".to_owned()));
            }
            match line {
                Pkt::Data(data) => {
                    if let Some(pack) = self.data(&data)? {
                        return Ok(Some(pack));
                    }
                }
                Pkt::Flush if self.phase == Phase::Pack => self.phase = Phase::After,
                Pkt::Flush => return Err(NoPack::Malformed("an answer without a pack".to_owned())),
                // Between sections of a v2 answer, and after it.
                Pkt::Delimiter | Pkt::ResponseEnd => {}
            }
        }
        Ok(None)
    }

    fn data(&mut self, data: &Bytes) -> Result<Option<Bytes>, NoPack> {
        match (data.first(), &self.phase) {
            (Some(1), _) => {
                self.phase = Phase::Pack;
                Ok(Some(data.slice(1..)).filter(|pack| !pack.is_empty()))
            }
            (Some(2), _) => Ok(None),
            (Some(3), _) => Err(NoPack::Refused(words(data.get(1..).unwrap_or_default()))),
            (_, Phase::Before) => match data.strip_prefix(b"ERR ") {
                Some(reason) => Err(NoPack::Refused(words(reason))),
                // Acknowledgements, section headings: nothing that says which bytes to take.
                None => {
                    if trim(data) == b"packfile" {
                        self.phase = Phase::Pack;
                    }
                    Ok(None)
                }
            },
            _ => Err(NoPack::Malformed("a line of no sideband inside the pack".to_owned())),
        }
    }

    /// Whether the answer came to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.phase == Phase::After && self.lines.is_between_lines()
    }
}

/// Checks a pack while it passes: its header, and the SHA-1 at its end.
pub(super) struct PackCheck {
    checksum: Checksum,
    header: Vec<u8>,
    /// The last 20 bytes so far, which may be the trailer.
    tail: Vec<u8>,
    bytes: u64,
}

impl PackCheck {
    pub(super) fn new() -> Self {
        Self { checksum: Checksum::default(), header: Vec::new(), tail: Vec::with_capacity(40), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes in the next piece; an error as soon as it cannot be a pack.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        if self.header.len() < 12 {
            self.header.extend(bytes.iter().take(12 - self.header.len()));
            if let Ok(header) = <&[u8; 12]>::try_from(self.header.as_slice()) {
                gix_pack::data::header::decode(header).map_err(|error| error.to_string())?;
            }
        }
        // Everything but the last 20 bytes is hashed.
        if let Some(at) = bytes.len().checked_sub(20) {
            let (body, end) = bytes.split_at_checked(at).unwrap_or_default();
            self.checksum.update(&self.tail);
            self.checksum.update(body);
            self.tail.clear();
            self.tail.extend_from_slice(end);
        } else {
            self.tail.extend_from_slice(bytes);
            let over = self.tail.len().saturating_sub(20);
            self.checksum.update(self.tail.get(..over).unwrap_or_default());
            self.tail.drain(..over);
        }
        Ok(())
    }

    /// The pack's name, if all of it arrived.
    pub(super) fn finish(self) -> Result<ObjectId, String> {
        if self.bytes < 32 {
            return Err("a pack that ends too early".to_owned());
        }
        let computed = self.checksum.finish();
        if computed.as_slice() == self.tail {
            Ok(computed)
        } else {
            Err("a pack that does not match its own checksum".to_owned())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::{super::pkt, *};
    use crate::git::pack::empty_pack;

    /// What the pieces of an answer, cut every `cut` bytes, give.
    fn read(answer: &[u8], cut: usize) -> Result<Vec<u8>, NoPack> {
        let mut reader = PackAnswer::default();
        let mut pack = Vec::new();
        for piece in answer.chunks(cut) {
            reader.feed(piece);
            while let Some(bytes) = reader.next()? {
                pack.extend_from_slice(&bytes);
            }
        }
        if reader.is_complete() { Ok(pack) } else { Err(NoPack::Malformed("incomplete".to_owned())) }
    }

    fn answer(lines: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            match *line {
                b"0000" => pkt::put_flush(&mut out),
                b"0001" => pkt::put_delimiter(&mut out),
                line => pkt::put(&mut out, line).unwrap(),
            }
        }
        out
    }

    #[test]
    fn the_pack_is_found_wherever_the_answer_is_cut() {
        let v2: &[&[u8]] =
            &[b"shallow-info\n", b"0001", b"packfile\n", b"\x02hm", b"\x01PA", b"\x01", b"\x01CK", b"0000"];
        let v0: &[&[u8]] = &[b"NAK\n", b"\x01PA", b"\x02Enumerating", b"\x01CK", b"0000"];
        for cut in 1..40 {
            assert_eq!(read(&answer(v2), cut), Ok(b"PACK".to_vec()));
            assert_eq!(read(&answer(v0), cut), Ok(b"PACK".to_vec()));
        }
    }

    #[test]
    fn refusals_are_the_servers_words() {
        let refused = Err(NoPack::Refused("upload-pack: not our ref aaaa".to_owned()));
        assert_eq!(read(&answer(&[b"ERR upload-pack: not our ref aaaa\n"]), 7), refused);
        assert_eq!(read(&answer(&[b"packfile\n", b"\x03upload-pack: not our ref aaaa\n"]), 7), refused);
        assert!(read(&answer(&[b"packfile\n", b"\x01PACK"]), 7).is_err(), "no end");
        assert!(read(&answer(&[b"acknowledgments\n", b"NAK\n", b"0000"]), 7).is_err(), "no pack");
    }

    proptest! {
        #[test]
        fn a_pack_is_checked_whatever_its_pieces(cuts in prop::collection::vec(1_usize..30, 1..5), flip in 0_usize..32) {
            let run = |pack: &[u8]| {
                let mut check = PackCheck::new();
                let mut rest = pack;
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() { break }
                    let (now, later) = rest.split_at((*cut).min(rest.len()));
                    check.feed(now)?;
                    rest = later;
                }
                check.finish()
            };
            let mut pack = empty_pack();
            prop_assert!(run(&pack).is_ok());
            prop_assert!(run(pack.get(..flip).unwrap()).is_err());
            *pack.get_mut(flip).unwrap() ^= 1;
            prop_assert!(run(&pack).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_not_a_panic(bytes: Vec<u8>, cut in 1_usize..9) {
            let _ = read(&bytes, cut);
        }
    }
}
