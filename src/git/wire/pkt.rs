//! Pkt-lines: length-prefixed lines, from a stream that is cut anywhere.
//!
//! Format: git's `gitprotocol-common(5)`. Decoding one line is gix-packetline's; what is added here is
//! the buffer between chunks that end in the middle of a line.

use bytes::{Bytes, BytesMut};
use gix_packetline::{
    PacketLineRef,
    blocking_io::encode,
    decode::{self, Stream},
};

/// One pkt-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pkt {
    Data(Bytes),
    Flush,
    Delimiter,
    ResponseEnd,
}

/// Cuts a byte stream into pkt-lines. Holds at most one unfinished line (65,520 bytes) and what was fed
/// last.
#[derive(Debug, Default)]
pub(super) struct PktDecoder {
    buffer: BytesMut,
}

impl PktDecoder {
    /// Takes in the next piece of the stream; then call [`PktDecoder::next`] until it has no more.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line; `None` when more bytes are needed; the reason when this is no pkt-line.
    pub(super) fn next(&mut self) -> Result<Option<Pkt>, String> {
        let (line, consumed) = match decode::streaming(&self.buffer).map_err(|error| error.to_string())? {
            Stream::Incomplete { .. } => return Ok(None),
            Stream::Complete { line, bytes_consumed } => {
                let line = match line {
                    PacketLineRef::Data(_) => None,
                    PacketLineRef::Flush => Some(Pkt::Flush),
                    PacketLineRef::Delimiter => Some(Pkt::Delimiter),
                    PacketLineRef::ResponseEnd => Some(Pkt::ResponseEnd),
                };
                (line, bytes_consumed)
            }
        };
        let whole = self.buffer.split_to(consumed).freeze();
        Ok(Some(line.unwrap_or_else(|| Pkt::Data(whole.slice(whole.len().min(4)..)))))
    }

    /// Whether the stream may end here.
    pub(super) fn is_between_lines(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// All lines of a whole answer.
///
/// A line takes four bytes in an answer and ten times that in memory, so one of hardly more than empty lines is none.
pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Pkt>, String> {
    let mut decoder = PktDecoder::default();
    decoder.feed(bytes);
    let mut lines = Vec::new();
    while let Some(line) = decoder.next()? {
        lines.push(line);
        if lines.len() > 1000 + bytes.len() / 16 {
            return Err("it is made of empty lines".to_owned());
        }
    }
    if decoder.is_between_lines() { Ok(lines) } else { Err("it ends inside a line".to_owned()) }
}

/// Appends a line; too long ones (over 65,516 bytes) are an error.
pub(super) fn put(out: &mut Vec<u8>, line: &[u8]) -> std::io::Result<()> {
    encode::data_to_write(line, out).map(|_| ())
}

pub(super) fn put_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

pub(super) fn put_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// A line without the newline at its end.
pub(super) fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> impl Strategy<Value = Pkt> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 1..300).prop_map(|data| Pkt::Data(data.into())),
            1 => Just(Pkt::Data(vec![7; 65516].into())),
            1 => Just(Pkt::Flush),
            1 => Just(Pkt::Delimiter),
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            lines in prop::collection::vec(line(), 0..12),
            cuts in prop::collection::vec(1_usize..70_000, 1..40),
        ) {
            let mut bytes = Vec::new();
            for line in &lines {
                match line {
                    Pkt::Data(data) => put(&mut bytes, data).unwrap(),
                    Pkt::Flush => put_flush(&mut bytes),
                    _ => put_delimiter(&mut bytes),
                }
            }
            let mut decoder = PktDecoder::default();
            let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.feed(now);
                rest = later;
                while let Some(line) = decoder.next().unwrap() { found.push(line) }
            }
            prop_assert!(decoder.is_between_lines());
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn garbage_is_an_error_and_not_a_panic(bytes: Vec<u8>) {
            let _ = decode_all(&bytes);
        }
    }

    #[test]
    fn a_line_longer_than_git_allows_is_refused() {
        assert!(put(&mut Vec::new(), &[0; 65517]).is_err());
        assert!(decode_all(b"ffff").is_err());
    }

    #[test]
    fn empty_lines_do_not_multiply() {
        for line in ["0000", "0001", "0005x"] {
            assert!(decode_all(line.repeat(100).as_bytes()).is_ok());
            assert!(decode_all(line.repeat(100_000).as_bytes()).is_err());
        }
    }
}
