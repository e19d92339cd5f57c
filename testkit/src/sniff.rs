//! Reads along what a client sends: HTTP/1.1 requests, then perhaps WebSocket messages.
//!
//! Only as much of both protocols as it takes to find where the next message begins.

/// Something whole that a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// The head of a request. Bytes before and including it are held back until the caller has decided.
    Request { method: String, path: String },
    /// A WebSocket text message.
    Message(String),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    Trailer,
    WebSocket,
    /// Not HTTP: passed on as it is.
    Opaque,
}

/// The reader. [`Sniffer::feed`] takes bytes, [`Sniffer::step`] gives them back in pieces.
#[derive(Debug, Default)]
pub(crate) struct Sniffer {
    state: State,
    buffer: Vec<u8>,
    text: Vec<u8>,
}

/// No head is longer; what is, is no HTTP.
const HEAD_LIMIT: usize = 64 * 1024;

impl Sniffer {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece to pass on, with what it completes. `None`: more bytes are needed.
    pub(crate) fn step(&mut self) -> Option<(Vec<u8>, Option<Found>)> {
        if self.buffer.is_empty() {
            return None;
        }
        match self.state {
            State::Head => self.head(),
            State::Fixed(left) => Some((self.body(left, State::Fixed, State::Head), None)),
            State::Chunk(left) => Some((self.body(left, State::Chunk, State::ChunkSize), None)),
            State::ChunkSize => {
                let (line, text) = self.line()?;
                let size = u64::from_str_radix(text.split(';').next()?.trim(), 16).unwrap_or(0);
                // The data of a chunk are followed by a line end.
                self.state = if size == 0 { State::Trailer } else { State::Chunk(size + 2) };
                Some((line, None))
            }
            State::Trailer => {
                let (line, text) = self.line()?;
                if text.is_empty() {
                    self.state = State::Head;
                }
                Some((line, None))
            }
            State::WebSocket => self.frame(),
            State::Opaque => Some((std::mem::take(&mut self.buffer), None)),
        }
    }

    fn head(&mut self) -> Option<(Vec<u8>, Option<Found>)> {
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.buffer.len() > HEAD_LIMIT {
                self.state = State::Opaque;
            }
            return None;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let header = |name: &str| {
            text.lines().filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
            })
        };
        self.state = if header("upgrade").is_some_and(|value| value == "websocket") {
            State::WebSocket
        } else if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            State::ChunkSize
        } else {
            match header("content-length").and_then(|value| value.parse().ok()) {
                Some(0) | None => State::Head,
                Some(length) => State::Fixed(length),
            }
        };
        let mut words = text.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        Some((head, Some(Found::Request { method, path })))
    }

    fn body(&mut self, left: u64, more: fn(u64) -> State, then: State) -> Vec<u8> {
        let take = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - take as u64;
        self.state = if left == 0 { then } else { more(left) };
        self.buffer.drain(..take).collect()
    }

    fn line(&mut self) -> Option<(Vec<u8>, String)> {
        let end = self.buffer.windows(2).position(|two| two == b"\r\n")?;
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        Some((line, text))
    }

    /// RFC 6455, section 5.2; a client's frames are masked.
    fn frame(&mut self) -> Option<(Vec<u8>, Option<Found>)> {
        let (&first, &second) = (self.buffer.first()?, self.buffer.get(1)?);
        let (length, mut at): (u64, usize) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let mask = if second & 0x80 == 0 {
            [0; 4]
        } else {
            at += 4;
            self.buffer.get(at - 4..at)?.try_into().ok()?
        };
        let end = at + usize::try_from(length).ok()?;
        if self.buffer.len() < end {
            return None;
        }
        let frame: Vec<u8> = self.buffer.drain(..end).collect();
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if opcode > 2 {
            return Some((frame, None));
        }
        self.text.extend(frame[at..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        let found = last
            .then(|| Found::Message(String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned()));
        Some((frame, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(input: &[u8], piece: usize) -> (Vec<u8>, Vec<Found>) {
        let (mut sniffer, mut passed, mut found) = (Sniffer::default(), Vec::new(), Vec::new());
        for bytes in input.chunks(piece) {
            sniffer.feed(bytes);
            while let Some((out, what)) = sniffer.step() {
                passed.extend(out);
                found.extend(what);
            }
        }
        (passed, found)
    }

    fn request(method: &str, path: &str) -> Found {
        Found::Request { method: method.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn finds_every_request_on_a_connection_however_it_is_cut() {
        let input = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /fixed HTTP/1.1\r\ncontent-length: 5\r\n\r\nGET /\
            POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n2;x=y\r\n /\r\n0\r\n\r\n\
            HEAD /last HTTP/1.1\r\n\r\n";
        let wanted = [
            request("GET", "/a?b"),
            request("POST", "/fixed"),
            request("POST", "/chunked"),
            request("HEAD", "/last"),
        ];
        for piece in 1..input.len() {
            let (passed, found) = found(input, piece);
            assert_eq!(passed, input);
            assert_eq!(found, wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn finds_masked_and_fragmented_messages() {
        let mut input = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec();
        for (first, text) in [(0x01, "[\"EV"), (0x80, "ENT\"]"), (0x89, "ping"), (0x81, "[\"REQ\"]")] {
            input.extend([first, 0x80 | u8::try_from(text.len()).unwrap(), 1, 2, 3, 4]);
            input.extend(text.bytes().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        for piece in 1..input.len() {
            let (passed, found) = found(&input, piece);
            assert_eq!(passed, input);
            assert_eq!(
                found,
                [
                    request("GET", "/"),
                    Found::Message("[\"EVENT\"]".to_owned()),
                    Found::Message("[\"REQ\"]".to_owned())
                ]
            );
        }
    }
}
