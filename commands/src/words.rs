//! A message, word by word.

use crate::{ParseError, Usage, error::is_secret, is_invisible};

/// No command takes as many; the rest of a long message is not even split.
const MAX_WORDS: usize = 16;

/// The words of a message that are not read yet.
#[derive(Debug)]
pub struct Words {
    words: std::vec::IntoIter<String>,
    pub(crate) usage: Option<&'static Usage>,
}

impl Words {
    /// Splits at white space, except within quotes (also the curly ones that phones write). What clients put around
    /// words and nobody sees, such as a byte order mark, is left out.
    #[must_use]
    pub fn new(message: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = message.trim_start();
        while !rest.is_empty() && words.len() < MAX_WORDS {
            let quoted = rest.strip_prefix(QUOTES).and_then(|inner| inner.split_once(QUOTES));
            let (word, after) = match quoted {
                Some((word, after)) => (word, after),
                None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
            };
            let word = word.trim_matches(is_invisible);
            if quoted.is_some() || !word.is_empty() {
                words.push(word.to_owned());
            }
            rest = after.trim_start();
        }
        Self { words: words.into_iter(), usage: None }
    }

    pub(crate) fn required(&mut self, what: &'static str) -> Result<String, ParseError> {
        match (self.next(), self.usage) {
            (Some(word), _) => Ok(word),
            (None, Some(usage)) => Err(ParseError::Missing { usage, what }),
            (None, None) => Err(ParseError::Empty),
        }
    }

    /// Refuses what is left over.
    pub(crate) fn end(&mut self) -> Result<(), ParseError> {
        match (self.next(), self.usage) {
            (Some(word), _) if is_secret(&word) => Err(ParseError::Secret),
            (Some(word), Some(usage)) => Err(ParseError::Extra { usage, word }),
            _ => Ok(()),
        }
    }
}

impl Iterator for Words {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.words.next()
    }
}

const QUOTES: [char; 4] = ['"', '“', '”', '„'];
