//! Links to a person or a repository, as people copy them: from ngit, from a GRASP server, from a web page.

use nostr::types::RelayUrl;
use percent_encoding::percent_decode_str;

/// What a link says. In any part of it anything may stand that somebody chose.
///
/// ```text
/// nostr://[protocol/]<person>[/<relay>…]/<d>            what `git clone` takes with ngit
/// https://<server>/<npub>/<d>.git                       the clone URL of a GRASP server
/// https://<site>/[…/]<person>[/<relay>][/<d>[/<page>…]] gitworkshop.dev, njump.me and their like
/// ```
///
/// A domain before a repository stands for the person whose own it is, `_@domain` (NIP-05).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// A word for a person or, an naddr, for a repository.
    pub person: String,
    /// The repository's `d`.
    pub identifier: Option<String>,
    /// Where its announcement is found.
    pub relays: Vec<RelayUrl>,
}

/// Pages about a repository, on web sites. None of them is its name when something else can be.
const PAGES: [&str; 8] = ["issues", "prs", "pulls", "patches", "tree", "blob", "commits", "commit"];

impl Link {
    /// Reads one word; `None` when it is no link or `is_person` knows nobody in it.
    pub(crate) fn parse(word: &str, is_person: impl Fn(&str) -> bool) -> Option<Self> {
        let (scheme, rest) = word.split_once("://")?;
        let scheme = scheme.to_lowercase();
        let path = rest.split(['?', '#']).next()?;
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decoded).collect::<Option<_>>()?;
        match scheme.as_str() {
            "nostr" => {
                let (person, after) = split_at_person(&parts, is_person)?;
                let (identifier, relays) = after.split_last().unzip();
                let relays = relays.unwrap_or_default().iter().filter_map(|part| relay(part));
                Some(Self { person, identifier: identifier.cloned(), relays: relays.collect() })
            }
            "http" | "https" => {
                let (host, path) = parts.split_first()?;
                let (person, after) = split_at_person(path, is_person)?;
                let (identifier, hint) = of_web(after, &scheme.replacen("http", "ws", 1), host);
                Some(Self { person, identifier, relays: hint.into_iter().collect() })
            }
            _ => None,
        }
    }
}

/// The person that `parts` name, and the parts after that.
fn split_at_person(parts: &[String], is_person: impl Fn(&str) -> bool) -> Option<(String, &[String])> {
    let after = |at: usize| parts.get(at + 1..).unwrap_or_default();
    if let Some((at, person)) = parts.iter().enumerate().find(|(_, part)| is_person(part)) {
        return Some((person.clone(), after(at)));
    }
    let mut owners = parts.iter().map(|domain| format!("_@{domain}")).enumerate();
    let (at, owner) = owners.find(|(_, owner)| is_person(owner))?;
    Some((owner, after(at))).filter(|(_, after)| !after.is_empty())
}

/// The repository that a web address names `after` the person, and the relay: that of a GRASP server, at this host, is the
/// server itself.
fn of_web(after: &[String], relay_scheme: &str, host: &str) -> (Option<String>, Option<RelayUrl>) {
    match after {
        [name] if name.len() > ".git".len() && name.ends_with(".git") => {
            let identifier = name.strip_suffix(".git").map(str::to_owned);
            // Whoever it is for, it is no part of the relay's address.
            let host = host.rsplit('@').next().unwrap_or(host);
            (identifier, relay(&format!("{relay_scheme}://{host}")))
        }
        [hint, identifier, ..] if hint.contains('.') && !PAGES.contains(&identifier.as_str()) => {
            (Some(identifier.clone()), relay(hint))
        }
        _ => (after.first().cloned(), None),
    }
}

/// A relay as links name it: without `wss://` mostly.
fn relay(text: &str) -> Option<RelayUrl> {
    let has_scheme = text.starts_with("wss://") || text.starts_with("ws://");
    RelayUrl::parse(&if has_scheme { text.to_owned() } else { format!("wss://{text}") }).ok()
}

fn decoded(part: &str) -> Option<String> {
    Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `person | d | relays`, of a link in which `me` is a person.
    fn read(link: &str) -> Option<String> {
        let is_person = |part: &str| part == "me" || part == "_@me.example";
        let Link { person, identifier, relays } = Link::parse(link, is_person)?;
        let relays: Vec<&str> = relays.iter().map(RelayUrl::as_str).collect();
        Some(format!("{person} | {} | {}", identifier.unwrap_or_default(), relays.join(" ")))
    }

    #[test]
    fn links_are_read_as_ngit_and_web_sites_write_them() {
        for (link, said) in [
            ("nostr://me/hello", "me | hello | "),
            ("NOSTR://me/hello", "me | hello | "),
            ("nostr://me/relay.ngit.dev/hello", "me | hello | wss://relay.ngit.dev"),
            ("nostr://ssh/me/relay.ngit.dev/hello", "me | hello | wss://relay.ngit.dev"),
            ("nostr://me/ws%3A%2F%2F127.0.0.1%3A7000/a.b", "me | a.b | ws://127.0.0.1:7000"),
            ("nostr://me/a%20b%2Fc", "me | a b/c | "),
            ("nostr://me/hello?protocol=ssh", "me | hello | "),
            ("nostr://me", "me |  | "),
            ("https://relay.ngit.dev/me/hello.git", "me | hello | wss://relay.ngit.dev"),
            ("http://127.0.0.1:7000/me/hello.git", "me | hello | ws://127.0.0.1:7000"),
            ("https://example.com/grasp/me/hello.git", "me | hello | wss://example.com"),
            ("https://gitworkshop.dev/me/hello", "me | hello | "),
            ("https://gitworkshop.dev/me/hello/", "me | hello | "),
            ("https://gitworkshop.dev/me/relay.ngit.dev/hello", "me | hello | wss://relay.ngit.dev"),
            ("https://gitworkshop.dev/me/relay.ngit.dev/hello/prs/1", "me | hello | wss://relay.ngit.dev"),
            ("https://gitworkshop.dev/me/hello.nvim/issues", "me | hello.nvim | "),
            ("nostr://me.example/hello", "_@me.example | hello | "),
            ("nostr://me.example/relay.ngit.dev/hello", "_@me.example | hello | wss://relay.ngit.dev"),
            ("https://gitworkshop.dev/me.example/hello/issues", "_@me.example | hello | "),
            ("https://gitworkshop.dev/me.example/me/hello", "me | hello | "),
            ("https://gitworkshop.dev/r/me", "me |  | "),
            ("https://you:secret@example.com/me/hello.git", "me | hello | wss://example.com"),
            ("https://njump.me/me", "me |  | "),
        ] {
            assert_eq!(read(link).as_deref(), Some(said), "{link}");
        }
    }

    #[test]
    fn what_names_nobody_is_no_link() {
        for word in [
            "",
            "me",
            "me/hello",
            "https://me",
            "https://example.com/you/hello",
            "wss://example.com/me",
            "https://example.com/me.example",
            "https://me.example/hello",
            "nostr://me.example",
            "://me",
            "nostr:///",
        ] {
            assert_eq!(read(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_text_may_come(scheme in "(nostr|https?|[a-z]{0,3})", rest in "(/|me|\\.|%|%2F|git|\\PC){0,12}") {
            let _ = read(&format!("{scheme}://{rest}"));
        }

        #[test]
        fn any_name_comes_back_from_a_clone_url(name in "\\PC{1,20}") {
            prop_assume!(!name.chars().all(|c| c == '/') );
            let path = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            let nostr = Link::parse(&format!("nostr://me/{path}"), |part| part == "me").unwrap();
            prop_assert_eq!(nostr.identifier.as_deref(), Some(name.as_str()));
            let web = Link::parse(&format!("https://example.com/me/{path}.git"), |part| part == "me").unwrap();
            prop_assert_eq!(web.identifier.as_deref(), Some(name.as_str()));
        }
    }
}
