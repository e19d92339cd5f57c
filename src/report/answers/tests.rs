use grasp_mirror_commands::{self as commands, Command};

use super::*;
use crate::{
    model::coordinate::npub,
    report::document::{CycleSummary, LeftAlone, ServerOutcome},
};

const NOW: u64 = 1_790_000_000;

fn owner() -> PublicKey {
    PublicKey::from_hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap()
}

fn other() -> PublicKey {
    PublicKey::from_hex("c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5").unwrap()
}

fn url(host: &str) -> ServerUrl {
    host.parse().unwrap()
}

fn mirror(status: MirrorStatus, reason: &str) -> MirrorRecord {
    MirrorRecord {
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        since: NOW - 7_300,
        read_back_at: Some(NOW - 130),
        retry_at: (status == MirrorStatus::Failing).then_some(NOW + 300),
        ..MirrorRecord::sample(status)
    }
}

fn outcome(d: &str, mirrors: &[(&str, MirrorStatus, &str)]) -> RepositoryOutcome {
    RepositoryOutcome {
        coordinate: Coordinate::new(owner(), d),
        state: None,
        mirrors: mirrors.iter().map(|(host, status, reason)| (url(host), mirror(*status, reason))).collect(),
        notes: if mirrors.is_empty() {
            vec!["empty: no maintainer has signed a state yet".to_owned()]
        } else {
            Vec::new()
        },
        wanted: mirrors.len(),
        rewritten_at: None,
        held: None,
        repaired: usize::from(d == "fine"),
    }
}

/// Two repositories on three servers, one of which is down, and an empty one.
fn outcomes() -> [RepositoryOutcome; 3] {
    use MirrorStatus::{Failing, InSync, Unreachable};
    let down = "it cannot be reached: connection\nrefused";
    [
        outcome("empty", &[]),
        outcome(
            "fine",
            &[
                ("relay.ngit.dev", InSync, ""),
                ("gitnostr.com", InSync, ""),
                ("git.uid.ovh", Unreachable, down),
            ],
        ),
        outcome(
            "hello",
            &[
                ("relay.ngit.dev", InSync, ""),
                ("gitnostr.com", Failing, "\u{202e}timed out"),
                ("git.uid.ovh", Unreachable, down),
            ],
        ),
    ]
}

fn report() -> Report {
    let servers =
        ["relay.ngit.dev", "gitnostr.com", "git.uid.ovh", "relay.example"].map(|host| ServerOutcome {
            url: url(host),
            reachable: host != "git.uid.ovh",
            software: None,
            reason: None,
            unused: (host == "relay.example")
                .then(|| "no GRASP server: its information document names none".to_owned()),
        });
    let cycle = CycleSummary {
        number: 3,
        finished_at: NOW - 130,
        next_at: Some(NOW + 3_400),
        ..CycleSummary::default()
    };
    Report::of(cycle, &BTreeSet::from([owner()]), &servers, &outcomes(), LeftAlone::default())
}

fn record(d: &str) -> RepositoryRecord {
    let found = outcomes().into_iter().find(|outcome| outcome.coordinate.identifier == d).unwrap();
    let others = "not chosen: [mirror] copies_wanted = 3, and other servers come first".to_owned();
    let left_out = [(url("git.far.example"), others)].into();
    RepositoryRecord { mirrors: found.mirrors, left_out, ..RepositoryRecord::default() }
}

fn hello() -> Coordinate {
    Coordinate::new(owner(), "hello")
}

#[test]
fn status_is_the_report_s_and_the_worst_comes_first() {
    insta::assert_snapshot!(status::reply(&overview(&report(), false), NOW), @"
    ! 3 of 6 mirrors in sync: 3 repositories on 3 servers.
    • hello: 1 of 3, git.uid.ovh: unreachable for 2 h, connection refused (+1)
    • fine: 2 of 3, git.uid.ovh: unreachable for 2 h, connection refused
    Checked 2 min ago, next check in 56 min.
    ");
    let blank = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
    insta::assert_snapshot!(status::reply(&overview(&blank, false), NOW), @"Nothing to mirror yet, as far as I know: my first check is not over.");
}

#[test]
fn the_mirrors_of_one_repository_are_its_record_s() {
    let told = |d: &str| {
        let status = repository(&report(), &Coordinate::new(owner(), d), &record(d));
        status::reply_repo(&status, NOW)
    };
    insta::assert_snapshot!(told("hello"), @"
    ! hello by npub10xlxv…ge6d: in sync on 1 of 3 servers.
    • git.uid.ovh: unreachable for 2 h, connection refused
    • gitnostr.com: failing for 2 h, timed out (next try in 5 min)
    ");
    insta::assert_snapshot!(told("empty"), @"
    empty by npub10xlxv…ge6d: no mirrors.
    empty: no maintainer has signed a state yet
    ");
    let new = repository(&report(), &Coordinate::new(owner(), "new"), &RepositoryRecord::default());
    insta::assert_snapshot!(status::reply_repo(&new, NOW), @"
    new by npub10xlxv…ge6d: no mirrors.
    Its first check is not over.
    ");
}

#[test]
fn why_finds_the_server_that_is_meant() {
    let told = |server: Option<&str>| {
        let record = record("hello");
        let mirrors = why(&record, server);
        commands::why::reply(&named(&hello()), server, &mirrors, &notes(&report(), &hello(), &record), NOW)
    };
    insta::assert_snapshot!(told(None), @"
    hello by npub10xlxv…ge6d
    ! git.uid.ovh: unreachable for 2 h, connection refused
    ! gitnostr.com: failing for 2 h, timed out (next try in 5 min)
    ✓ relay.ngit.dev: in sync (listed), read back 2 min ago
    - git.far.example: no mirror: not chosen: [mirror] copies_wanted = 3, and other servers come first
    ");
    insta::assert_snapshot!(told(Some("git.FAR.example")), @"
    hello by npub10xlxv…ge6d
    - git.far.example: no mirror: not chosen: [mirror] copies_wanted = 3, and other servers come first
    ");
    insta::assert_snapshot!(told(Some("GitNostr.com/")), @"
    hello by npub10xlxv…ge6d
    ! gitnostr.com: failing for 2 h, timed out (next try in 5 min)
    ");
    insta::assert_snapshot!(told(Some("elsewhere.example")), @"hello by npub10xlxv…ge6d has no mirror on elsewhere.example. Send: servers");
    let hosts = |word: &str| why(&record("hello"), Some(word)).len();
    for (word, found) in
        [("wss://gitnostr.com", 1), ("https://GITNOSTR.com", 1), ("gitnostr", 1), ("git", 4), ("zzz", 0)]
    {
        assert_eq!(hosts(word), found, "{word}");
    }
}

#[test]
fn servers_say_why_they_are_of_no_use() {
    let seen = Slot { asked: 3, answered: 3, latency_ms: 240, refusals: 2, ..Slot::default() };
    let weeks = Weeks::from([("wss://gitnostr.com".parse().unwrap(), seen)]);
    let wanted = BTreeSet::from([url("gitnostr.com"), url("new.example")]);
    insta::assert_snapshot!(commands::servers::reply(&servers(&report(), &wanted, &weeks)), @"
    5 servers:
    ✓ relay.ngit.dev: 2 of 2 in sync
    ! gitnostr.com: 1 of 2 in sync; 7 days: 100% up, 80 ms, 2 refusals
    ! git.uid.ovh: not reachable: connection refused
    - relay.example: not used: no GRASP server: its information document names none
    - new.example: not asked yet
    ");
}

#[test]
fn a_resync_counts_what_it_was_about() {
    let all = outcomes();
    let told = |outcomes: &[RepositoryOutcome]| {
        let done = resynced(outcomes, Duration::from_millis(4_300));
        commands::resync::reply(&commands::Scope::All, done)
    };
    insta::assert_snapshot!(told(&all), @"! Resync of everything done in 4 s: 3 of 6 mirrors of 3 repositories in sync, 1 repaired.");
    insta::assert_snapshot!(told(&[]), @"✓ Resync of everything done in 4 s: 0 of 0 mirrors of 0 repositories in sync, nothing was missing.");
}

#[test]
fn a_list_has_names_first_and_counts_what_was_found() {
    let watched = Watched {
        authors: BTreeSet::from([owner(), other()]),
        repositories: BTreeSet::from([Coordinate::new(other(), "one\u{202e}")]),
        ..Watched::default()
    };
    let known = [hello(), Coordinate::new(owner(), "fine")];
    let (authors, repositories) =
        list(&watched, &known, &BTreeSet::new(), |key| (*key == other()).then(|| "Zoë\n".to_owned()));
    insta::assert_snapshot!(commands::list::reply(&authors, &repositories, &[], &Default::default()), @"
    Authors (2):
    • Zoë, npub1ccz8l…mnyd: 0 repositories
    • npub10xlxv…ge6d: 2 repositories
    Single repositories (1):
    • one by npub1ccz8l…mnyd
    ");
}

#[test]
fn a_rule_is_about_what_is_known_by_that_name() {
    use commands::Matter;
    let servers = [url("git.example"), url("hello.example")];
    let known = [
        hello(),
        Coordinate::new(owner(), "notes.txt"),
        Coordinate::new(other(), "twice"),
        Coordinate::new(owner(), "twice"),
    ];
    let find = |word: &str| find_rule(&Matter::parse(word).unwrap(), &servers, &known);
    let full = |owner: &PublicKey, d: &str| format!("{}/{d}", npub(owner));
    assert_eq!(find(&npub(&owner())), Ok(Rule::Author(owner())));
    assert_eq!(find("HELLO"), Ok(Rule::Repository(hello())));
    assert_eq!(find("notes.txt"), Ok(Rule::Repository(Coordinate::new(owner(), "notes.txt"))));
    assert_eq!(find("Git.example"), Ok(Rule::Server(url("git.example"))));
    assert_eq!(find("unknown.example/path"), Ok(Rule::Server(url("unknown.example/path"))));
    assert_eq!(find("https://unknown.example"), Ok(Rule::Server(url("unknown.example"))));
    let unknown = Coordinate::new(other(), "unknown");
    assert_eq!(find(&full(&other(), "unknown")), Ok(Rule::Repository(unknown)));
    assert!(find("twice").unwrap_err().contains("Which one?"));
    insta::assert_snapshot!(find("helo").unwrap_err(), @r#"I know no repository "helo". Did you mean hello by npub10xlxv…ge6d?"#);
    insta::assert_snapshot!(find("wss://a b").map(|_| ()).unwrap_err(), @r#""wss://a b" is not an address like wss://host[:port][/path]"#);
    for rule in [
        Rule::Author(owner()),
        Rule::Repository(Coordinate::new(owner(), "a b")),
        Rule::Server(url("x.example")),
    ] {
        let words = commands::Words::new(&rule_written(&rule)).collect::<Vec<_>>();
        assert_eq!(words.len(), 1, "{words:?}");
        assert_eq!(find(&words[0]), Ok(rule));
    }
}

#[test]
fn a_name_that_fits_several_is_answered_with_the_candidates() {
    let known = [hello(), Coordinate::new(other(), "hello"), Coordinate::new(owner(), "fine")];
    let find = |message: &str| match commands::parse(message) {
        Ok(Command::Status(Some(name))) => (find_repo(&name, &known), name),
        _ => unreachable!(),
    };
    let (found, name) = find("status hello");
    insta::assert_snapshot!(found.reply(&name), @r#"
    Several repositories are called "hello". Which one?
    • npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d/hello
    • npub1ccz8l9zpa47k6vz9gphftsrumpw80rjt3nhnefat4symjhrsnmjs38mnyd/hello
    "#);
    let (found, _) = find("status FINE");
    assert_eq!(found, Found::One(named(&known[2])));
    assert_eq!(coordinate(&named(&known[2])), known[2]);
    let (found, name) = find("status helo");
    insta::assert_snapshot!(found.reply(&name), @r#"I know no repository "helo". Did you mean hello by npub1ccz8l…mnyd?"#);
}
