//! Small pieces of text for people.

use nostr::{key::PublicKey, nips::nip19::ToBech32};

/// `text` without control, direction-changing and invisible characters, on one line, at most `max`
/// characters long.
///
/// Everything that came from outside goes through here before it is put into an answer.
#[must_use]
pub fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for c in text.chars() {
        let c = if c.is_whitespace() { ' ' } else { c };
        if is_invisible(c) || (c == ' ' && (out.is_empty() || out.ends_with(' '))) {
            continue;
        }
        if length == max {
            out.pop();
            out.push('…');
            return out;
        }
        out.push(c);
        length += 1;
    }
    out.truncate(out.trim_end().len());
    out
}

/// Control characters, bidirectional controls, zero-width characters, tags and fillers: what makes text look
/// like something else than it is.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `npub1abcde…wxyz`.
#[must_use]
pub fn short(key: &PublicKey) -> String {
    let Ok(npub) = key.to_bech32();
    let start: String = npub.chars().take(10).collect();
    let end: String = npub.chars().skip(npub.chars().count().saturating_sub(4)).collect();
    format!("{start}…{end}")
}

/// An error with its causes, which carry the part that helps; what is said already is not said again.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// How long before `now` `then` was: "3 min ago". Both are Unix seconds.
#[must_use]
pub fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0..10 => "just now".to_owned(),
        elapsed => format!("{} ago", span(elapsed)),
    }
}

/// How long after `now` `then` will be: "in 3 min". Both are Unix seconds.
#[must_use]
pub fn until(now: u64, then: u64) -> String {
    match then.saturating_sub(now) {
        0 => "now".to_owned(),
        left => format!("in {}", span(left)),
    }
}

/// A time in Unix seconds as `2026-11-24T12:00:00Z`.
#[must_use]
pub fn moment(secs: u64) -> String {
    let moment = i64::try_from(secs).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    moment.map_or_else(|| format!("{secs} s after 1970"), |moment| moment.to_string())
}

/// `3 min`
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A reason from outside as a part of a sentence: clean, and without a full stop.
pub(crate) fn sentence(reason: &str) -> String {
    clean(reason.trim_end().trim_end_matches('.'), 200)
}

/// `1 repository`, `2 repositories`.
#[must_use]
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first `max` lines, and how many are left out.
pub(crate) fn lines(all: impl ExactSizeIterator<Item = String>, max: usize) -> String {
    let left_out = all.len().saturating_sub(max);
    let mut out: Vec<String> = all.take(max).collect();
    if left_out > 0 {
        out.push(format!("… and {left_out} more"));
    }
    out.join("\n")
}
