//! The report's shape, its sums, and what it leaves out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nostr::prelude::Keys;

use super::*;
use crate::plan::record::MirrorRecord;

fn mirror(status: MirrorStatus) -> MirrorRecord {
    MirrorRecord {
        reason: (status != MirrorStatus::InSync).then(|| "blocked: no".to_owned()),
        since: 1_790_000_001,
        ..MirrorRecord::sample(status)
    }
}

fn outcome(owner: PublicKey, d: &str, mirrors: &[(&str, MirrorStatus)]) -> RepositoryOutcome {
    RepositoryOutcome {
        coordinate: Coordinate::new(owner, d),
        state: None,
        mirrors: mirrors.iter().map(|(url, status)| (url.parse().unwrap(), mirror(*status))).collect(),
        notes: Vec::new(),
        wanted: mirrors.len(),
        rewritten_at: None,
        held: None,
        repaired: 0,
    }
}

fn report(outcomes: &[RepositoryOutcome]) -> Report {
    let cycle = CycleSummary { number: 1, trigger: "once".to_owned(), ..CycleSummary::default() };
    let servers = ["wss://a.example", "wss://b.example"].map(|url| ServerOutcome {
        url: url.parse().unwrap(),
        reachable: true,
        software: Some("ngit-grasp 3.0.9".to_owned()),
        reason: None,
        unused: None,
    });
    Report::of(cycle, &BTreeSet::new(), &servers, outcomes, LeftAlone::default())
}

#[test]
fn the_document_is_the_contracts() {
    let owner = PublicKey::from_hex(&"1".repeat(64)).unwrap_or_else(|_| Keys::generate().public_key());
    let outcomes = [
        outcome(owner, "fine", &[("wss://a.example", MirrorStatus::InSync)]),
        outcome(
            owner,
            "odd",
            &[("wss://a.example", MirrorStatus::InSync), ("wss://b.example", MirrorStatus::Refused)],
        ),
    ];
    let report = report(&outcomes);
    let json = serde_json::to_value(&report).unwrap();
    insta::assert_snapshot!(json["totals"], @r#"{"authors":0,"failing":0,"in_sync":2,"mirrors":3,"pending":0,"refused":1,"repos":2,"servers":2}"#);
    insta::assert_snapshot!(json["servers"][1], @r#"{"in_sync":0,"mirrors":1,"reachable":true,"software":"ngit-grasp 3.0.9","url":"wss://b.example"}"#);
    assert_eq!(json["repos"][0]["a"], format!("30617:{}:odd", owner.to_hex()));
    insta::assert_snapshot!(json["repos"][0]["problems"], @r#"[{"reason":"blocked: no","retry_at":null,"server":"wss://b.example","since":1790000001,"status":"refused"}]"#);
    assert!(!report.is_in_sync());
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn with_fewer_than_two_copies_it_is_at_risk() {
    let owner = Keys::generate().public_key();
    let (good, bad) = (MirrorStatus::InSync, MirrorStatus::Unreachable);
    let (a, b) = ("wss://a.example", "wss://b.example");
    let mut outcomes = [
        outcome(owner, "a both", &[(a, good), (b, good)]),
        outcome(owner, "b alone", &[(a, good)]),
        outcome(owner, "c empty", &[]),
        outcome(owner, "d lost", &[(a, bad), (b, bad)]),
        outcome(owner, "e one of two", &[(a, good), (b, bad)]),
        outcome(owner, "f nothing signed", &[(a, bad)]),
    ];
    for one in outcomes.iter_mut().take(5) {
        one.state = Some(EventId::from_byte_array([1; 32]));
    }
    let report = report(&outcomes);
    let told =
        report.repos.iter().map(|repo| (repo.a.identifier.as_str(), repo.may_vanish, repo.is_at_risk()));
    let told: Vec<_> = told.collect();
    let expected = [
        ("d lost", 0, true),
        ("e one of two", 0, true),
        ("f nothing signed", 0, false),
        ("b alone", 0, true),
        ("a both", 1, false),
        ("c empty", 0, false),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_a_rule_keeps_away_from_a_server_is_told_and_is_no_trouble() {
    let owner = Keys::generate().public_key();
    let mut kept_away = outcome(
        owner,
        "x",
        &[("wss://a.example", MirrorStatus::InSync), ("wss://b.example", MirrorStatus::Blocked)],
    );
    kept_away.wanted = 1;
    let server = |url: &str, unused: Option<&str>| ServerOutcome {
        url: url.parse().unwrap(),
        reachable: unused.is_none(),
        software: None,
        reason: None,
        unused: unused.map(str::to_owned),
    };
    let servers = [server("wss://a.example", None), server("wss://b.example", Some("blocked: [policy] …"))];
    let of = |outcome: RepositoryOutcome| {
        Report::of(CycleSummary::default(), &BTreeSet::new(), &servers, &[outcome], LeftAlone::default())
    };
    let report = of(kept_away.clone());
    assert_eq!((report.totals.mirrors, report.totals.in_sync, report.totals.refused), (1, 1, 0));
    assert_eq!((report.repos[0].copies, report.repos[0].wanted), (1, 1));
    assert_eq!(report.repos[0].problems[0].status, MirrorStatus::Blocked);
    assert!(report.is_in_sync());
    kept_away.mirrors.insert("wss://a.example".parse().unwrap(), mirror(MirrorStatus::Blocked));
    assert!(!of(kept_away.clone()).is_in_sync(), "it is too large, say: that is wanted all the same");
    kept_away.wanted = 0;
    let denied = of(kept_away);
    assert_eq!((denied.totals.repos, denied.totals.mirrors, denied.totals.refused), (1, 0, 0));
    assert_eq!((denied.servers[0].mirrors, denied.repos[0].problems.len()), (0, 2));
    assert!(denied.is_in_sync(), "the repository itself is denied: nobody wants it");
}

#[test]
fn what_nobody_announces_is_told_until_it_is_found() {
    let (owner, silent) = (Keys::generate().public_key(), Keys::generate().public_key());
    let server = |reachable| ServerOutcome {
        url: "wss://a.example".parse().unwrap(),
        reachable,
        software: None,
        reason: None,
        unused: None,
    };
    let of = |not_found: NotFound, reachable, outcomes: &[RepositoryOutcome]| {
        let (cycle, authors) = (CycleSummary::default(), BTreeSet::from([owner, silent]));
        Report::telling(cycle, &authors, &[server(reachable)], outcomes, LeftAlone::default(), not_found)
    };
    let unread = BTreeSet::from([RelayUrl::parse("wss://relay.example").unwrap()]);
    let nobody = NotFound { authors: BTreeSet::from([silent]), unread, ..NotFound::default() };
    let fine = [outcome(owner, "fine", &[("wss://a.example", MirrorStatus::InSync)])];
    assert!(!of(nobody.clone(), true, &fine).is_in_sync(), "no relay was read");
    let nobody = NotFound { relays: 1, ..nobody };
    assert!(of(nobody.clone(), true, &fine).is_in_sync(), "an author may well have nothing");
    assert!(!of(nobody.clone(), false, &[]).is_in_sync(), "the server may have something");

    let single = NotFound { repos: BTreeSet::from([Coordinate::new(owner, "fine")]), ..nobody };
    let report = of(single.clone(), true, &[]);
    assert!(!report.is_in_sync(), "it is wanted by name");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["not_found"]["repos"][0], format!("30617:{}:fine", owner.to_hex()));
    assert_eq!(json["not_found"]["authors"][0], silent.to_hex());
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    let many = (0..2_000).map(|n| Coordinate::new(owner, format!("\"{n}\""))).collect();
    let report = of(NotFound { repos: many, ..single.clone() }, true, &fine);
    let size = len_in_event(&report);
    assert!(size <= MAX_BYTES && size > MAX_BYTES - 1024, "{size}");
    let found = of(NotFound { authors: BTreeSet::from([owner]), ..single }, true, &fine);
    assert_eq!(found.not_found, NotFound::default());
    let json = serde_json::to_value(&found).unwrap();
    assert!(json.get("not_found").is_none(), "{json}");
}

#[test]
fn it_never_outgrows_what_relays_take_and_problems_stay() {
    let owner = Keys::generate().public_key();
    let mut outcomes: Vec<_> = (0..2_000)
        .map(|n| outcome(owner, &format!("repository-{n}"), &[("wss://a.example", MirrorStatus::InSync)]))
        .collect();
    outcomes.push(outcome(owner, "zzz", &[("wss://a.example", MirrorStatus::Failing)]));
    let report = report(&outcomes);
    let size = len_in_event(&report);
    assert!(size <= MAX_BYTES && size > MAX_BYTES - 1024, "{size}");
    assert_eq!(report.repos.len() + report.truncated, 2_001);
    assert_eq!(report.totals.repos, 2_001);
    assert_eq!(report.repos[0].a.identifier, "zzz");
}

#[test]
fn what_owners_made_long_costs_nobody_else_a_place() {
    let owner = Keys::generate().public_key();
    let failing = [("wss://a.example", MirrorStatus::Failing)];
    let mut long = outcome(owner, "long note", &failing);
    long.notes.push("x".repeat(MAX_BYTES));
    let outcomes =
        [outcome(owner, &"d".repeat(MAX_BYTES), &failing), long, outcome(owner, "short", &failing)];
    let deleted = (0..2_000).map(|n| Coordinate::new(owner, format!("deleted-{n}"))).collect();
    let left_alone = LeftAlone { deleted, ..LeftAlone::default() };
    let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &outcomes, left_alone);
    assert!(serde_json::to_string(&report).unwrap().len() <= MAX_BYTES);
    let told: Vec<&str> = report.repos.iter().map(|repo| repo.a.identifier.as_str()).collect();
    assert_eq!(told, ["long note", "short"]);
    assert!(report.left_alone.deleted.len() > 100);
    assert_eq!(report.truncated, 2_001 - report.left_alone.deleted.len());
}
