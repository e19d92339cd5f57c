//! What `fuzz/` does with the answers of git servers.

#![allow(clippy::panic, reason = "a finding is a panic")]

use super::{
    advertisement::{discovered, ls_refs},
    fetched::{PackAnswer, PackCheck},
    pkt::{PktDecoder, decode_all},
    report::{Outcome, PushAnswer},
};

/// Refs a list may have.
const MAX_REFS: usize = 8;

/// The first byte says how the rest comes cut into pieces.
fn pieces(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((1, bytes), |(cut, rest)| (usize::from(*cut).max(1), rest))
}

/// Lists of refs: pkt-lines, `info/refs`, `ls-refs`.
pub fn ref_lists(bytes: &[u8]) {
    let (cut, bytes) = pieces(bytes);
    let whole = decode_all(bytes);
    let mut decoder = PktDecoder::default();
    let mut lines = Vec::new();
    for piece in bytes.chunks(cut) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(_) => return assert!(whole.is_err(), "only in pieces it is no pkt-line"),
            }
        }
    }
    let Ok(whole) = whole else { return };
    assert_eq!(whole, lines, "the pieces matter");
    let _ = discovered(&lines, MAX_REFS);
    if let Ok(found) = ls_refs(&lines, MAX_REFS) {
        assert!(found.refs.len() <= MAX_REFS && found.peeled.len() <= MAX_REFS);
    }
}

/// The answer to a push. Whoever hears "done" has seen each ref reported.
pub fn push_answer(bytes: &[u8]) {
    let (cut, bytes) = pieces(bytes);
    let mut answer = PushAnswer::default();
    if bytes.chunks(cut).all(|piece| answer.feed(piece).is_ok())
        && answer.outcome(&["refs/heads/main"], true) == Outcome::Done
    {
        let told = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        // Unless the nested lines are cut inside the words.
        assert!(bytes.contains(&1) || told(b"unpack ok") && told(b"ok refs/heads/main"));
    }
}

/// The answer to a fetch, and the pack in it as far as it is looked at on the way.
pub fn pack_answer(bytes: &[u8]) {
    let (cut, bytes) = pieces(bytes);
    let (mut answer, mut check) = (PackAnswer::default(), PackCheck::new());
    let mut taken = 0;
    for piece in bytes.chunks(cut) {
        answer.feed(piece);
        loop {
            match answer.next() {
                Ok(Some(pack)) => {
                    taken += pack.len() as u64;
                    if check.feed(&pack).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert_eq!(check.bytes(), taken);
    if answer.is_complete() {
        let _ = check.finish();
    }
}
