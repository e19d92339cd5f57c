//! Addresses from outside, fit for showing: in logs, reports and reasons, which others read.

use grasp_mirror_commands::clean;
use url::Url;

/// The longest address shown, in characters.
const MAX: usize = 200;

/// `url` without what may be a secret in it: user, password and query.
#[must_use]
pub fn shown(url: &Url) -> String {
    let place = url.authority().rsplit('@').next().unwrap_or_default();
    clean(&format!("{}://{place}{}", url.scheme(), url.path()), MAX)
}

/// The same for what should be an address and may be anything, such as `user@host:path`.
#[must_use]
pub fn shown_text(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => shown(&url),
        _ => clean(text.rsplit('@').next().unwrap_or_default(), MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (text, seen) in [
            ("https://me:secret@h:8080/a/b.git?token=secret#secret", "https://h:8080/a/b.git"),
            ("https://secret@h/x", "https://h/x"),
            ("ssh://git:secret@h/x", "ssh://h/x"),
            ("me:secret@h:x.git", "h:x.git"),
            ("file:///x/\u{202e}y", "file:///x/y"),
            ("what\u{7} ever", "what ever"),
        ] {
            assert_eq!(shown_text(text), seen, "{text}");
        }
    }
}
