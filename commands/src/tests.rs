use nostr::{
    event::Kind,
    key::PublicKey,
    nips::{
        nip01::Coordinate,
        nip19::{Nip19Coordinate, Nip19Profile, ToBech32},
    },
    types::RelayUrl,
};
use proptest::prelude::*;

use super::*;
use crate::{
    allow::Allowed,
    approve::Decided,
    archive::Kept,
    deny::Denied,
    forget::Forgotten,
    list::Ruled,
    resync::Resync,
    status::{Behind, Overview, Problem, RepoStatus, UnderWay},
    unwatch::Unwatched,
    watch::Watched,
    why::Mirror,
};

const NPUB: &str = "npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy";
const HEX: &str = "aa4fc8665f5696e33db7e1a572e3b0f5b3d615837b0f362dcb1c8068b098c7b4";
const NSEC: &str = "nsec1j4c6269y9w0q2er2xjw8sv2ehyrtfxq3jwgdlxj6qfn8z4gjsq5qfvfk99";
const NOW: u64 = 1_790_000_000;

fn alice() -> PublicKey {
    PublicKey::parse(NPUB).unwrap()
}

fn repo(identifier: &str) -> Repository {
    Repository { author: alice(), identifier: identifier.to_owned() }
}

fn naddr(kind: Kind) -> String {
    let coordinate = Coordinate::new(kind, alice()).identifier("hello");
    Nip19Coordinate::new(coordinate, []).to_bech32().unwrap()
}

fn nip05() -> Nip05 {
    Nip05 { name: "alice".to_owned(), domain: "example.com".to_owned() }
}

fn problem(server: &str, reason: &str) -> Problem {
    Problem {
        server: server.to_owned(),
        status: "failing".to_owned(),
        reason: reason.to_owned(),
        since: NOW - 7300,
        retry_at: Some(NOW + 90),
    }
}

fn refused(message: &str) -> String {
    parse(message).unwrap_err().to_string()
}

#[test]
fn case_slash_and_space_do_not_matter() {
    for message in [
        "list",
        " List\n",
        "/list",
        "!LIST",
        "  /LiSt  ",
        "\u{feff}list",
        "\r\n\u{200e}/list\u{200b} \u{2069}\r\n",
    ] {
        assert_eq!(parse(message), Ok(Command::List), "{message:?}");
    }
    assert_eq!(parse("/help /Watch"), Ok(Command::Help(Some(&watch::USAGE))));
    assert_eq!(parse("help"), Ok(Command::Help(None)));
}

#[test]
fn a_person_has_many_names() {
    let nprofile = Nip19Profile::new(alice(), []).to_bech32().unwrap();
    let by_key =
        [NPUB.to_owned(), HEX.to_owned(), nprofile.clone(), NPUB.to_uppercase(), NPUB.replacen('n', "N", 1)];
    for name in by_key.into_iter().chain([format!("nostr:{NPUB}"), format!("Nostr:{nprofile}")]) {
        assert_eq!(parse(&format!("watch {name}")), Ok(Command::Watch(Target::Author(alice()))), "{name}");
    }
    assert_eq!(parse("watch Alice@Example.com"), Ok(Command::Watch(Target::Nip05(nip05()))));
    assert_eq!(parse("resync alice@example.com"), Ok(Command::Resync(Scope::Nip05(nip05()))));
    assert_eq!(parse(&format!("resync {NPUB}")), Ok(Command::Resync(Scope::Author(alice()))));
}

#[test]
fn some_names_say_where_to_look() {
    let relay = || RelayUrl::parse("wss://hint.example").unwrap();
    let coordinate = Coordinate::new(Kind::GitRepoAnnouncement, alice()).identifier("hello");
    let names = [
        Nip19Profile::new(alice(), [relay()]).to_bech32().unwrap(),
        Nip19Coordinate::new(coordinate, [relay()]).to_bech32().unwrap(),
    ];
    for name in names {
        for message in [format!("watch {name}"), format!("/Watch\r\nNostr:{}", name.to_uppercase())] {
            assert_eq!(hints(&message), [relay()], "{message}");
        }
    }
    assert!(hints(&format!("watch {NPUB}")).is_empty());
    for link in ["nostr://{}/hint.example/hello", "https://hint.example/{}/hello.git"] {
        let link = link.replace("{}", NPUB);
        assert_eq!(hints(&format!("watch {link}")), [relay()], "{link}");
    }
}

#[test]
fn a_repository_has_many_names() {
    let naddr = naddr(Kind::GitRepoAnnouncement);
    for name in [
        naddr.clone(),
        format!("nostr:{naddr}"),
        format!("{NPUB}/hello"),
        format!("nostr:{NPUB}/hello"),
        format!("{HEX}/hello"),
        format!("30617:{HEX}:hello"),
        format!("nostr://{NPUB}/hello"),
        format!("nostr://{NPUB}/relay.ngit.dev/hello"),
        format!("nostr://{naddr}"),
        format!("https://relay.ngit.dev/{NPUB}/hello.git"),
        format!("https://gitworkshop.dev/{NPUB}/relay.ngit.dev/hello/prs"),
        format!("https://gitworkshop.dev/r/{naddr}/issues"),
    ] {
        let full = RepoName::Full(repo("hello"));
        assert_eq!(parse(&format!("status {name}")), Ok(Command::Status(Some(full.clone()))), "{name}");
        assert_eq!(parse(&format!("resync {name}")), Ok(Command::Resync(Scope::Repository(full))), "{name}");
        assert_eq!(
            parse(&format!("unwatch {name}")),
            Ok(Command::Unwatch(Target::Repository(repo("hello")))),
            "{name}"
        );
    }
    assert!(parse(&format!("status {naddr}/hello")).is_err());
    let by_d = |d: &str| Ok(Command::Status(Some(RepoName::Identifier(d.to_owned()))));
    assert_eq!(parse("status hello"), by_d("hello"));
    assert_eq!(parse("status \"my repo\""), by_d("my repo"));
    assert_eq!(parse("status “my repo”"), by_d("my repo"));
    assert_eq!(parse("status a/b"), by_d("a/b"));
    assert_eq!(
        parse(&format!("status 30617:{HEX}:a:b")),
        Ok(Command::Status(Some(RepoName::Full(repo("a:b")))))
    );
    let named = RepoName::Nip05 { author: nip05(), identifier: "hello".to_owned() };
    assert_eq!(parse("status alice@example.com/hello"), Ok(Command::Status(Some(named))));
    for name in ["alice@example.com/hello", "nostr://alice@example.com/hello"] {
        let named = Target::Theirs { author: nip05(), identifier: "hello".to_owned() };
        let watch = parse(&format!("watch {name}")).unwrap();
        assert_eq!(watch, Command::Watch(named));
        assert_eq!(watch.nip05(), Some(&nip05()));
        let found = watch.resolved(repo("hello").author);
        assert_eq!(found, Command::Watch(Target::Repository(repo("hello"))));
    }
    assert_eq!(
        parse(&format!("status nostr://{NPUB}/my%20repo")),
        parse(&format!("status \"{NPUB}/my repo\""))
    );
    assert_eq!(
        parse("why hello gitnostr.com"),
        Ok(Command::Why {
            repo: RepoName::Identifier("hello".to_owned()),
            server: Some("gitnostr.com".to_owned())
        })
    );
}

#[test]
fn mistakes_say_which_word_and_what_would_do() {
    insta::assert_snapshot!(refused(""), @"That was an empty message. Send: help");
    insta::assert_snapshot!(refused("/statsu hello"), @r#"I don't know "/statsu". Did you mean: status? Send: help"#);
    insta::assert_snapshot!(refused("Good morning!"), @r#"I don't know "Good". Send: help"#);
    insta::assert_snapshot!(refused("help wach"), @r#"I don't know "wach". Did you mean: watch? Send: help"#);
    insta::assert_snapshot!(refused("watch"), @"watch needs an npub, nprofile, naddr, name@domain or link. Usage: watch <npub | nprofile | naddr | nostr: URI>");
    insta::assert_snapshot!(refused("watch bob"), @r#""bob" is not an npub, nprofile, naddr, hex key, name@domain or link. Usage: watch <npub | nprofile | naddr | nostr: URI>"#);
    insta::assert_snapshot!(refused(&format!("watch {NPUB}x")), @r#""npub14f8usejl26twx0dhuxjh9cas7keav9vr0v…" is not an npub, nprofile, naddr, hex key, name@domain or link. Usage: watch <npub | nprofile | naddr | nostr: URI>"#);
    insta::assert_snapshot!(refused("list all"), @r#"list takes no "all". Usage: list (a name with spaces goes in "quotes")"#);
    insta::assert_snapshot!(refused(&format!("status {NPUB}")), @r#""npub14f8usejl26twx0dhuxjh9cas7keav9vr0v…" is not a repository but a person: add /<repository>. Usage: status [repo]"#);
    insta::assert_snapshot!(refused(&format!("resync {NPUB}x")), @r#""npub14f8usejl26twx0dhuxjh9cas7keav9vr0v…" is not a repository: its name, npub/name, or naddr. Usage: resync [repo | npub]"#);
    assert!(parse(&format!("watch {}", naddr(Kind::LongFormTextNote))).is_err());
    insta::assert_snapshot!(refused("a\u{202e}b\u{7}"), @r#"I don't know "ab". Send: help"#);
}

#[test]
fn a_secret_key_is_never_repeated() {
    for message in [
        NSEC.to_owned(),
        format!("watch {NSEC}"),
        format!("watch nostr:{NSEC}"),
        format!("status {NSEC}"),
        format!("resync {NSEC}/x"),
        format!("list {NSEC}"),
        format!("help {NSEC}"),
    ] {
        assert_eq!(parse(&message), Err(ParseError::Secret), "{message}");
    }
}

#[test]
fn a_name_finds_its_repository() {
    let other = Repository { author: PublicKey::from_byte_array([1; 32]), identifier: "hello".to_owned() };
    let known = [repo("hello"), repo("Grasp"), repo("grasp-mirror"), other.clone()];
    let find = |name: &str| RepoName::parse(name).unwrap().find(&known);
    assert_eq!(find("Grasp"), Found::One(repo("Grasp")));
    assert_eq!(find("GRASP-mirror"), Found::One(repo("grasp-mirror")));
    assert_eq!(find("hello"), Found::Many(vec![repo("hello"), other]));
    assert_eq!(find(&format!("{NPUB}/hello")), Found::One(repo("hello")));
    assert_eq!(find("grasp-miror"), Found::None(Some(repo("grasp-mirror"))));
    assert_eq!(find("zzzz"), Found::None(None));
    let Ok(npub) = PublicKey::from_byte_array([1; 32]).to_bech32();
    assert_eq!(find(&format!("{npub}/Grasp")), Found::None(Some(repo("Grasp"))));
    // Whoever has chosen both could make the comparison take for ever.
    let long = "x".repeat(300);
    assert_eq!(RepoName::Identifier(format!("{long}y")).find(&[repo(&long)]), Found::None(None));

    let name = RepoName::Identifier("hello".to_owned());
    insta::assert_snapshot!(find("hello").reply(&name), @r#"
    Several repositories are called "hello". Which one?
    • npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/hello
    • npub1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs8j9gdm/hello
    "#);
    insta::assert_snapshot!(find("grasp-miror").reply(&name), @r#"I know no repository "hello". Did you mean grasp-mirror by npub14f8us…9nsy?"#);
}

#[test]
fn help_is_made_from_the_usages() {
    insta::assert_snapshot!(help::reply(None), @"
    help [command]: what I understand
    watch <npub | nprofile | naddr | nostr: URI>: mirror every repository this author announces, or this one
    unwatch <npub | nprofile | naddr | nostr: URI>: stop mirroring them; what is on the servers stays
    list: whom and what I watch, and what is left alone or denied
    status [repo]: how the mirrors are: all, or those of one repository
    resync [repo | npub]: read every server again and send what is missing
    servers: the servers I mirror to, and how they did for 7 days
    why <repo> [server]: why it is, or is not, on the servers
    allow <npub | repo | server>: mirror them again, after deny; what config.toml denies stays denied
    deny <npub | repo | server>: never mirror them, or to them; what is on the servers stays
    approve <repo>: follow a state that removes most of it, now
    reject <repo>: do not follow that state; wait for a newer one
    archive <repo>: what is kept of deleted and rewritten branches and tags
    forget <repo> [undo]: mirror it no more, whoever asks, and delete my announcements of it (its maintainers may say so, too)
    pair: let a maintainer's remote signer list more servers
    pause: write to no server until you send: resume
    resume: carry on after pause
    version: which software I am
    ");
    insta::assert_snapshot!(help::reply(Some(&why::USAGE)), @"
    why <repo> [server]
    why it is, or is not, on the servers
    ");
}

#[test]
fn a_held_state_is_approved_or_rejected() {
    let named = RepoName::Identifier("my repo".to_owned());
    assert_eq!(parse("/approve \"my repo\""), Ok(Command::Approve(named.clone())));
    assert_eq!(parse("reject “my repo”"), Ok(Command::Reject(named.clone())));
    assert_eq!(parse("Archive \"my repo\""), Ok(Command::Archive(named)));
    let by_name = RepoName::Nip05 { author: nip05(), identifier: "hello".to_owned() };
    let command = parse("approve alice@example.com/hello").unwrap();
    assert_eq!((command.clone(), command.nip05()), (Command::Approve(by_name), Some(&nip05())));
    assert_eq!(command.resolved(alice()), Command::Approve(RepoName::Full(repo("hello"))));

    let written = Decided::Written { removed: 5, of: 6 };
    insta::assert_snapshot!(approve::reply(&repo("hello"), written, "Now."), @"Approved: hello by npub14f8us…9nsy may lose 5 of 6 branches and tags. Now.");
    insta::assert_snapshot!(approve::reply(&repo("hello"), Decided::Nothing, "Now."), @"Nothing of hello by npub14f8us…9nsy is held. Send: status");
    insta::assert_snapshot!(reject::reply(&repo("hello"), written), @"Rejected: hello by npub14f8us…9nsy keeps the 5 of 6 branches and tags until there is a newer state. To take this back, send: approve");
    insta::assert_snapshot!(reject::reply(&repo("hello"), Decided::TooLate), @"Too late: hello by npub14f8us…9nsy is following that state. What it lost is kept here; send: archive");
}

#[test]
fn people_repositories_and_servers_are_allowed_and_denied() {
    let hello = || Matter::Repository(RepoName::Full(repo("hello")));
    for (message, matter) in [
        (format!("deny {NPUB}"), Matter::Author(alice())),
        (format!("Deny nostr:{HEX}"), Matter::Author(alice())),
        (format!("/deny {NPUB}/hello"), hello()),
        (format!("deny {}", naddr(Kind::GitRepoAnnouncement)), hello()),
        (format!("deny 30617:{HEX}:hello"), hello()),
        ("deny wss://git.example/path".to_owned(), Matter::Server("wss://git.example/path".to_owned())),
        ("deny git.example".to_owned(), Matter::Word("git.example".to_owned())),
        ("deny hello".to_owned(), Matter::Word("hello".to_owned())),
    ] {
        assert_eq!(parse(&message), Ok(Command::Deny(matter.clone())), "{message}");
        let allow = message.to_lowercase().replacen("deny", "allow", 1);
        assert_eq!(parse(&allow), Ok(Command::Allow(matter)), "{allow}");
    }
    insta::assert_snapshot!(refused("deny"), @"deny needs an npub, a repository or a server. Usage: deny <npub | repo | server>");
    insta::assert_snapshot!(refused("allow a b"), @r#"allow takes no "b". Usage: allow <npub | repo | server> (a name with spaces goes in "quotes")"#);
    for secret in [format!("deny {NSEC}"), format!("deny wss://{NSEC}.example")] {
        assert_eq!(parse(&secret), Err(ParseError::Secret), "{secret}");
    }

    let denied = |outcome| deny::reply("hello by npub14f8us…9nsy", "npub1…/hello", outcome);
    insta::assert_snapshot!(denied(Denied::Added { repos: Some(1) }), @"Denied: hello by npub14f8us…9nsy. Nothing of it is fetched or sent any more; what is on the servers stays. To take this back, send: allow npub1…/hello");
    insta::assert_snapshot!(denied(Denied::Added { repos: Some(3) }), @"Denied: hello by npub14f8us…9nsy. None of its 3 repositories is fetched or sent any more; what is on the servers stays. To take this back, send: allow npub1…/hello");
    insta::assert_snapshot!(deny::reply("git.example", "wss://git.example", Denied::Added { repos: None }), @"Denied: git.example. I send nothing there any more; what it has stays. To take this back, send: allow wss://git.example");
    insta::assert_snapshot!(denied(Denied::Already), @"hello by npub14f8us…9nsy is denied already.");
    insta::assert_snapshot!(denied(Denied::ByConfig), @"hello by npub14f8us…9nsy is denied already: [policy] deny in config.toml names it.");
    insta::assert_snapshot!(denied(Denied::TooMany), @"! I keep no more rules than that. Take some back with allow, or write them into config.toml, [policy] deny.");

    let allowed = |outcome: &Allowed| allow::reply("hello by npub14f8us…9nsy", outcome);
    insta::assert_snapshot!(allowed(&Allowed::TakenBack), @"Allowed again: hello by npub14f8us…9nsy. Mirroring starts now, as far as I watch it.");
    insta::assert_snapshot!(allowed(&Allowed::Beside), @"Allowed: hello by npub14f8us…9nsy, beside those that config.toml allows.");
    insta::assert_snapshot!(allowed(&Allowed::Already), @"hello by npub14f8us…9nsy is not denied. Send: list");
    insta::assert_snapshot!(allowed(&Allowed::ByConfig), @"! hello by npub14f8us…9nsy stays denied: [policy] deny in config.toml names it, and no message can change that.");
    insta::assert_snapshot!(allowed(&Allowed::StillByConfig("npub1…".to_owned())), @"! hello by npub14f8us…9nsy stays denied: [policy] deny in config.toml names npub1…, and no message can change that.");
    insta::assert_snapshot!(allowed(&Allowed::StillByMessage("npub1…".to_owned())), @"! hello by npub14f8us…9nsy stays denied, because npub1… is. Send: allow npub1…");
}

#[test]
fn a_repository_is_forgotten_and_that_is_taken_back() {
    let full = || RepoName::Full(repo("hello"));
    for (message, repo, undo) in [
        ("forget hello".to_owned(), RepoName::Identifier("hello".to_owned()), false),
        (format!("Forget {NPUB}/hello"), full(), false),
        (format!("/forget {} Undo", naddr(Kind::GitRepoAnnouncement)), full(), true),
    ] {
        assert_eq!(parse(&message), Ok(Command::Forget { repo, undo }), "{message}");
    }
    insta::assert_snapshot!(refused("forget"), @"forget needs a repository. Usage: forget <repo> [undo]");
    insta::assert_snapshot!(refused("forget hello please"), @r#""please" is not undo, and nothing else may follow the repository. Usage: forget <repo> [undo]"#);
    insta::assert_snapshot!(refused("forget hello undo now"), @r#"forget takes no "now". Usage: forget <repo> [undo] (a name with spaces goes in "quotes")"#);
    let said = |outcome| forget::reply(&repo("hello"), outcome);
    insta::assert_snapshot!(said(Forgotten::Now { paused: false }), @"Forgotten: hello by npub14f8us…9nsy. I mirror it no more, whoever asks me to, and delete my own announcements of it from the servers. To take this back, send: forget npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy/hello undo");
    assert!(said(Forgotten::Now { paused: true }).contains("as soon as I am told to resume"));
    insta::assert_snapshot!(said(Forgotten::Undone), @"Taken back: hello by npub14f8us…9nsy is mirrored again, as far as it is watched.");
    insta::assert_snapshot!(said(Forgotten::Never), @"hello by npub14f8us…9nsy is not forgotten.");
    insta::assert_snapshot!(said(Forgotten::Theirs(alice())), @"! hello by npub14f8us…9nsy stays forgotten: npub14f8us…9nsy wants it so, who maintains it, and only its maintainers can take that back.");
    insta::assert_snapshot!(said(Forgotten::Muted(alice())), @"! hello by npub14f8us…9nsy stays forgotten: npub14f8us…9nsy, who maintains it, has me on the mute list, and only that list can take it back.");
    insta::assert_snapshot!(said(Forgotten::TooMany), @"! I can remember no more of these. Put me on your mute list: that counts for all you maintain.");
    assert!(said(Forgotten::Already).starts_with("hello by npub14f8us…9nsy is forgotten already."));
    insta::assert_snapshot!(forget::not_yours(&RepoName::Identifier("x".to_owned())), @r#"I mirror nothing called "x" that this key maintains."#);
}

#[test]
fn an_archive_names_what_is_kept_and_until_when() {
    insta::assert_snapshot!(archive::reply(&repo("hello"), &[], 20), @"hello by npub14f8us…9nsy: nothing was deleted or rewritten lately, so nothing is kept.");
    let kept =
        |name: &str| Kept { at: NOW, name: name.to_owned(), tip: "c0ffee".repeat(6), until: NOW + 86_400 };
    let kept = [kept("refs/heads/feature/a\u{202e}b"), kept("refs/tags/v1"), kept("refs/tags/v2")];
    insta::assert_snapshot!(archive::reply(&repo("hello"), &kept, 2), @"
    hello by npub14f8us…9nsy
    2026-09-21T14:13:20Z feature/ab: was c0ffeec0ffee, kept until 2026-09-22T14:13:20Z
    2026-09-21T14:13:20Z tag v1: was c0ffeec0ffee, kept until 2026-09-22T14:13:20Z
    … and 1 more
    ");
}

#[test]
fn watch_and_unwatch_say_what_came_of_it() {
    let (author, one) = (Target::Author(alice()), Target::Repository(repo("hello")));
    insta::assert_snapshot!(watch::reply(&author, &Watched::Added { repos: 3 }), @"Watching npub14f8us…9nsy: 3 repositories found so far. Mirroring starts now.");
    insta::assert_snapshot!(watch::reply(&author, &Watched::Added { repos: 0 }), @"Watching npub14f8us…9nsy. No repositories found yet; I keep looking.");
    insta::assert_snapshot!(watch::reply(&one, &Watched::Added { repos: 1 }), @"Watching hello by npub14f8us…9nsy. Mirroring starts now.");
    insta::assert_snapshot!(watch::reply(&author, &Watched::Already), @"Already watching npub14f8us…9nsy.");
    insta::assert_snapshot!(watch::reply(&author, &Watched::Me), @"That is me: I keep copies of what others announce, and there is nothing of mine to mirror.");
    insta::assert_snapshot!(watch::reply(&one, &Watched::NotFound), @"! Watching hello by npub14f8us…9nsy, but I have found no announcement of it yet. Is the name right? I keep looking.");
    let rule = "[policy] deny names npub1\u{202e}…".to_owned();
    insta::assert_snapshot!(watch::reply(&author, &Watched::Denied { rule }), @"! Watching npub14f8us…9nsy, but nothing of it is mirrored: [policy] deny names npub1….");
    insta::assert_snapshot!(unwatch::reply(&one, Unwatched::Removed), @"No longer watching hello by npub14f8us…9nsy. What is on the servers stays.");
    insta::assert_snapshot!(unwatch::reply(&one, Unwatched::WithAuthor), @"hello by npub14f8us…9nsy is still mirrored, because I watch its author. Send: unwatch <the author's npub>");
    insta::assert_snapshot!(unwatch::reply(&Target::Nip05(nip05()), Unwatched::Never), @"I was not watching alice@example.com. Send: list");
}

#[test]
fn list_shows_names_first() {
    let authors = [
        list::Author { name: Some("Alice\u{202e} ".to_owned()), key: alice(), repos: 1 },
        list::Author { name: None, key: PublicKey::from_byte_array([1; 32]), repos: 12 },
    ];
    let left_alone = [(repo("secret"), "its maintainer npub1\u{202e}… said: forget".to_owned())];
    let singles = [("hello", true), ("helo", false)];
    let singles = singles.map(|(d, announced)| list::Single { repo: repo(d), announced });
    insta::assert_snapshot!(list::reply(&authors, &singles, &left_alone, &Ruled::default()), @"
    Authors (2):
    • Alice, npub14f8us…9nsy: 1 repository
    • npub1qyqsz…9gdm: 12 repositories
    Single repositories (2):
    • hello by npub14f8us…9nsy
    • helo by npub14f8us…9nsy: no announcement found
    Left alone (1):
    • secret by npub14f8us…9nsy: its maintainer npub1… said: forget
    ");
    insta::assert_snapshot!(list::reply(&[], &[], &[], &Ruled::default()), @"I watch nobody yet. Send: watch <npub>");
    let ruled = Ruled {
        denied_by_config: vec!["wss://a.example".to_owned()],
        denied: vec![NPUB.to_owned(), "wss://b\u{202e}.example".to_owned()],
        allowed: vec!["hello by npub14f8us…9nsy".to_owned()],
    };
    insta::assert_snapshot!(list::reply(&[], &[], &[], &ruled), @"
    I watch nobody yet. Send: watch <npub>
    Denied (2):
    • npub14f8usejl26twx0dhuxjh9cas7keav9vr0v8nvtwtrjqx3vycc76qqh9nsy
    • wss://b.example
    Denied by config.toml (1):
    • wss://a.example
    Allowed beside config.toml (1):
    • hello by npub14f8us…9nsy
    ");
}

#[test]
fn status_shows_the_numbers_and_then_the_trouble() {
    let troubled = RepoStatus {
        repo: repo("hello"),
        copies: 7,
        wanted: 9,
        problems: vec![problem("gitnostr.com", "connection refused"), problem("git.uid.ovh", "timed out")],
        notes: Vec::new(),
    };
    let good = RepoStatus { repo: repo("x"), copies: 1, wanted: 1, problems: Vec::new(), notes: Vec::new() };
    let empty = RepoStatus {
        copies: 0,
        wanted: 0,
        notes: vec!["empty: no maintainer has signed a state yet".to_owned()],
        ..good.clone()
    };
    let overview = Overview {
        repos: 12,
        servers: 9,
        mirrors: 108,
        in_sync: 106,
        paused: false,
        finished_at: Some(NOW - 130),
        next_at: Some(NOW + 3400),
        troubled: vec![troubled.clone()],
        not_found: None,
        under_way: None,
    };
    insta::assert_snapshot!(status::reply(&overview, NOW), @"
    ! 106 of 108 mirrors in sync: 12 repositories on 9 servers.
    • hello: 7 of 9, gitnostr.com: failing for 2 h, connection refused (next try in 1 min) (+1)
    Checked 2 min ago, next check in 56 min.
    ");
    insta::assert_snapshot!(status::reply(&Overview { paused: true, ..Overview::default() }, NOW), @"
    Paused. Send: resume
    Nothing to mirror yet, as far as I know: my first check is not over.
    ");
    let behind = |server: &str, events_per_minute, seconds_left| Behind {
        server: server.to_owned(),
        left: 1960,
        events_per_minute,
        seconds_left,
    };
    let under_way = UnderWay {
        since: NOW - 720,
        done: 40,
        repos: 2000,
        servers: vec![behind("slow.example", Some(55), Some(8_500)), behind("b.example", None, None)],
    };
    insta::assert_snapshot!(status::reply(&Overview { under_way: Some(under_way), ..overview }, NOW), @"
    ! 106 of 108 mirrors in sync: 12 repositories on 9 servers.
    • hello: 7 of 9, gitnostr.com: failing for 2 h, connection refused (next try in 1 min) (+1)
    Checked 2 min ago, next check in 56 min.
    A check is running for 12 min: 40 of 2000 repositories done.
    • slow.example: 1960 mirrors to go, about 2 h (it takes 55 events a minute)
    • b.example: 1960 mirrors to go
    ");
    let first = UnderWay { since: NOW - 5, ..UnderWay::default() };
    insta::assert_snapshot!(status::reply(&Overview { under_way: Some(first), ..Overview::default() }, NOW), @"A check is running for 5 s: looking at servers and relays.");
    insta::assert_snapshot!(status::reply_repo(&troubled, NOW), @"
    ! hello by npub14f8us…9nsy: in sync on 7 of 9 servers.
    • gitnostr.com: failing for 2 h, connection refused (next try in 1 min)
    • git.uid.ovh: failing for 2 h, timed out (next try in 1 min)
    ");
    insta::assert_snapshot!(status::reply_repo(&good, NOW), @"✓ x by npub14f8us…9nsy: in sync on 1 of 1 server.");
    let more = RepoStatus { copies: 3, wanted: 2, ..good.clone() };
    insta::assert_snapshot!(status::reply_repo(&more, NOW), @"✓ x by npub14f8us…9nsy: in sync on 3 servers, 2 wanted.");
    insta::assert_snapshot!(status::reply_repo(&empty, NOW), @"
    x by npub14f8us…9nsy: no mirrors.
    empty: no maintainer has signed a state yet
    ");
    let one = Overview { repos: 1, servers: 1, mirrors: 1, in_sync: 1, ..Overview::default() };
    insta::assert_snapshot!(status::headline(&one), @"1 of 1 mirror in sync: 1 repository on 1 server");
}

#[test]
fn status_tells_what_was_not_found_and_where_that_was_looked_for() {
    let missing = status::NotFound {
        authors: vec![PublicKey::from_byte_array([1; 32])],
        repos: vec![repo("helo")],
        servers: 2,
        relays: 1,
        unread: vec!["wss://a.example".to_owned()],
    };
    let all = Overview {
        repos: 1,
        servers: 2,
        mirrors: 2,
        in_sync: 2,
        finished_at: Some(NOW),
        not_found: Some(missing.clone()),
        ..Overview::default()
    };
    insta::assert_snapshot!(status::reply(&all, NOW), @"
    ! 2 of 2 mirrors in sync: 1 repository on 2 servers.
    No announcement found of:
    • helo by npub14f8us…9nsy
    • any repository of npub1qyqsz…9gdm
    Looked for on 2 servers and 1 relay.
    These could not be read:
    • wss://a.example
    Checked just now.
    ");
    let nobody = status::NotFound { repos: Vec::new(), unread: Vec::new(), ..missing };
    let none = Overview { repos: 0, mirrors: 0, in_sync: 0, not_found: Some(nobody), ..all };
    insta::assert_snapshot!(status::reply(&none, NOW), @"
    ! Nothing to mirror was found.
    No announcement found of:
    • any repository of npub1qyqsz…9gdm
    Looked for on 2 servers and 1 relay.
    Checked just now.
    ");
}

#[test]
fn where_nothing_is_wanted_status_leads_to_the_reason() {
    let denied = Overview { repos: 1, servers: 2, finished_at: Some(NOW), ..Overview::default() };
    insta::assert_snapshot!(status::reply(&denied, NOW), @"
    No mirrors are wanted now of 1 repository on 2 servers. For the reason, send: why <repo>
    Checked just now.
    ");
}

#[test]
fn resync_tells_of_start_and_end() {
    insta::assert_snapshot!(resync::reply(&Scope::All, Resync::Started { repos: 12 }), @"Resync of everything started: 12 repositories. I'll tell you when it is done.");
    let done = Resync::Done { repos: 1, mirrors: 9, in_sync: 8, repaired: 2, elapsed_secs: 4 };
    let scope = Scope::Repository(RepoName::Identifier("hello".to_owned()));
    insta::assert_snapshot!(resync::reply(&scope, done), @r#"! Resync of "hello" done in 4 s: 8 of 9 mirrors of 1 repository in sync, 2 repaired."#);
    let good = Resync::Done { repos: 1, mirrors: 1, in_sync: 1, repaired: 0, elapsed_secs: 200 };
    insta::assert_snapshot!(resync::reply(&scope, good), @r#"✓ Resync of "hello" done in 3 min: 1 of 1 mirror of 1 repository in sync, nothing was missing."#);
    insta::assert_snapshot!(resync::reply(&Scope::Author(alice()), Resync::Queued), @"Resync of npub14f8us…9nsy begins as soon as the check that is running ends. I'll tell you when it is done.");
    let broken = Resync::Failed { reason: "the disk\u{202e} is\nfull.".to_owned() };
    insta::assert_snapshot!(resync::reply(&scope, broken), @r#"! Resync of "hello" failed: the disk is full. Send it again, or: status"#);
    insta::assert_snapshot!(resync::reply(&scope, Resync::Nothing), @r#"Nothing I watch fits "hello". Send: list"#);
    insta::assert_snapshot!(resync::reply(&scope, Resync::Paused), @"I am paused, so a resync would change nothing. Send: resume");
}

#[test]
fn the_rest_is_short_too() {
    let server = |host: &str, reachable, reason: Option<&str>| servers::Server {
        host: host.to_owned(),
        used: host != "relay.example",
        reachable: Some(reachable),
        reason: reason.map(str::to_owned),
        mirrors: 12,
        in_sync: 12,
        week: None,
    };
    let week = |answered_percent, mean_ms, failures, refusals| {
        Some(servers::Week { answered_percent, mean_ms, failures, refusals })
    };
    let mut all = [
        server("relay.ngit.dev", true, None),
        server("git.uid.ovh", false, Some("no answer\r\nin 10 s")),
        server("relay.example", true, Some("no GRASP server")),
    ];
    all[0].week = week(99, Some(120), 0, 0);
    all[1].week = week(0, None, 3, 1);
    let new =
        servers::Server { host: "new.example".to_owned(), reachable: None, week: None, ..all[0].clone() };
    insta::assert_snapshot!(servers::reply(&[new]), @"
    1 server:
    - new.example: not asked yet
    ");
    insta::assert_snapshot!(servers::reply(&all), @"
    3 servers:
    ✓ relay.ngit.dev: 12 of 12 in sync; 7 days: 99% up, 120 ms
    ! git.uid.ovh: not reachable: no answer in 10 s; 7 days: 0% up, 3 failures, 1 refusal
    - relay.example: not used: no GRASP server
    ");
    let mirrors = [
        Mirror::InSync {
            server: "relay.ngit.dev".to_owned(),
            placement: "listed".to_owned(),
            read_at: NOW - 5,
        },
        Mirror::Not(problem("gitnostr.com", "")),
    ];
    insta::assert_snapshot!(why::reply(&repo("hello"), None, &mirrors, &[], NOW), @"
    hello by npub14f8us…9nsy
    ✓ relay.ngit.dev: in sync (listed), read back just now
    ! gitnostr.com: failing for 2 h (next try in 1 min)
    ");
    let notes = ["LFS objects\nnot mirrored".to_owned()];
    insta::assert_snapshot!(why::reply(&repo("hello"), Some("x\u{202e}.y"), &[], &[], NOW), @"hello by npub14f8us…9nsy has no mirror on x.y. Send: servers");
    insta::assert_snapshot!(why::reply(&repo("hello"), None, &[], &notes, NOW), @"
    hello by npub14f8us…9nsy has no mirrors.
    LFS objects not mirrored
    ");
    insta::assert_snapshot!(pause::reply(false), @"Paused: I write to no server now. Send: resume");
    insta::assert_snapshot!(resume::reply(true), @"Carrying on. Mirroring starts now.");
    insta::assert_snapshot!(version::reply("0.1.0", NOW - 400_000, NOW), @"grasp-mirror 0.1.0, started 4 days ago.");
}

#[test]
fn what_failed_is_told_with_a_way_out() {
    insta::assert_snapshot!(failure::unresolved(&nip05(), "example.com has no\nsuch name."), @"I cannot find out whose alice@example.com is: example.com has no such name. An npub always works.");
    let watch = Command::Watch(Target::Author(alice()));
    insta::assert_snapshot!(failure::failed(&watch, "no relay took the list", "Nothing changed; send it again later."), @"! watch npub14f8us…9nsy failed: no relay took the list. Nothing changed; send it again later.");
}

#[test]
fn a_name_that_was_looked_up_takes_its_place() {
    for (named, key) in [
        ("watch alice@example.com", format!("watch {NPUB}")),
        ("unwatch alice@example.com", format!("unwatch {NPUB}")),
        ("resync alice@example.com", format!("resync {NPUB}")),
        ("resync alice@example.com/x", format!("resync {NPUB}/x")),
        ("status alice@example.com/x", format!("status {NPUB}/x")),
        ("why alice@example.com/x y.z", format!("why {NPUB}/x y.z")),
        ("deny alice@example.com", format!("deny {NPUB}")),
        ("allow alice@example.com/x", format!("allow {NPUB}/x")),
    ] {
        let command = parse(named).unwrap();
        assert_eq!(command.nip05(), Some(&nip05()), "{named}");
        let resolved = command.resolved(alice());
        assert_eq!(resolved.nip05(), None, "{named}");
        assert_eq!(Ok(resolved), parse(&key), "{named}");
    }
    let other = || parse("status hello").unwrap();
    assert_eq!((other().nip05(), other().resolved(alice())), (None, other()));
}

#[test]
fn a_command_is_shown_without_tricks() {
    let shown = |message: &str| parse(message).unwrap().to_string();
    let all = [
        shown("list"),
        shown("help Why"),
        shown(&format!("watch {NPUB}")),
        shown("status"),
        shown("status \"he\u{202e}llo\""),
        shown("resync"),
        shown(&format!("resync {NPUB}/hello")),
        shown("why hello gitnostr.com"),
        shown("deny wss://git\u{202e}nostr.com"),
        shown(&format!("allow {NPUB}/hello")),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    list
    help why
    watch npub14f8us…9nsy
    status
    status "hello"
    resync of everything
    resync of hello by npub14f8us…9nsy
    why "hello" on gitnostr.com
    deny wss://gitnostr.com
    allow hello by npub14f8us…9nsy
    "#);
}

#[test]
fn clean_leaves_what_can_be_seen() {
    assert_eq!(clean(" a\tb\r\nc\u{0}\u{1b}[31m\u{202e}\u{200b}d ", 40), "a b c[31md");
    assert_eq!(clean("äöü€", 4), "äöü€");
    assert_eq!(clean("äöü€!", 4), "äöü…");
    assert_eq!(clean("\u{202e}\n", 4), "");
}

#[test]
fn times_read_like_speech() {
    assert_eq!(ago(NOW, NOW + 5), "just now");
    assert_eq!(ago(NOW, NOW - 59), "59 s ago");
    assert_eq!(ago(NOW, NOW - 200), "3 min ago");
    assert_eq!(ago(NOW, NOW - 90_000), "25 h ago");
    assert_eq!(until(NOW, NOW + 172_800), "in 2 days");
    assert_eq!(until(NOW, NOW - 1), "now");
}

proptest! {
    #[test]
    fn no_message_panics(message: String) {
        for command in ["", "watch ", "deny ", "allow wss://", "status ", "resync ", "why ", "help ", "watch nostr:", "status nostr://"] {
            if let Err(error) = parse(&format!("{command}{message}")) {
                prop_assert!(error.to_string().chars().count() < 300);
                prop_assert!(!error.to_string().chars().any(is_invisible));
            }
        }
    }

    #[test]
    fn clean_keeps_its_promise(text: String, max in 1usize..100) {
        let cleaned = clean(&text, max);
        prop_assert!(cleaned.chars().count() <= max);
        prop_assert!(!cleaned.chars().any(char::is_control));
        prop_assert_eq!(clean(&cleaned, max), cleaned);
    }

    #[test]
    fn a_full_name_reads_back(identifier in "[a-z0-9._-]{1,30}") {
        let parsed = parse(&format!("status {}", repo(&identifier).full()));
        prop_assert_eq!(parsed, Ok(Command::Status(Some(RepoName::Full(repo(&identifier))))));
    }
}
