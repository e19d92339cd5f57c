use std::collections::BTreeSet;

use nostr::prelude::PublicKey;
use proptest::prelude::*;

use super::*;
use crate::report::document::{CycleSummary, LeftAlone, ServerOutcome};

const NOW: u64 = 1_790_000_000;

fn repo(d: &str) -> Coordinate {
    let owner = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    Coordinate::new(PublicKey::from_hex(owner).unwrap(), d)
}

fn server(name: &str) -> ServerUrl {
    format!("{name}.example").parse().unwrap()
}

fn mirror(status: MirrorStatus) -> MirrorRecord {
    MirrorRecord {
        reason: (status != InSync).then(|| "it cannot be reached: connection\u{202e} refused".to_owned()),
        since: NOW,
        read_back_at: Some(NOW),
        failures: 1,
        ..MirrorRecord::sample(status)
    }
}

fn outcome(d: &str, mirrors: &[(&str, MirrorStatus)]) -> RepositoryOutcome {
    RepositoryOutcome {
        coordinate: repo(d),
        state: None,
        mirrors: mirrors.iter().map(|(name, status)| (server(name), mirror(*status))).collect(),
        notes: Vec::new(),
        wanted: mirrors.len(),
        rewritten_at: None,
        held: None,
        repaired: 0,
    }
}

/// After a cycle in which the servers in `down` did not answer.
fn snapshot(outcomes: &[RepositoryOutcome], down: &[&str], wanted: Option<u32>) -> Snapshot {
    let servers = ["a", "b", "c"].map(|name| ServerOutcome {
        url: server(name),
        reachable: !down.contains(&name),
        software: None,
        reason: None,
        unused: None,
    });
    let report =
        Report::of(CycleSummary::default(), &BTreeSet::new(), &servers, outcomes, LeftAlone::default());
    let wanted = |outcome: &RepositoryOutcome| wanted.map_or(outcome.wanted, |wanted| wanted as usize);
    let outcomes: Vec<_> = outcomes
        .iter()
        .map(|outcome| RepositoryOutcome { wanted: wanted(outcome), ..outcome.clone() })
        .collect();
    Snapshot::of(&report, &outcomes, &report.left_alone)
}

use MirrorStatus::{InSync, Pending, Refused, Unreachable};

fn good() -> RepositoryOutcome {
    outcome("hello", &[("a", InSync), ("b", InSync), ("c", InSync)])
}

fn worse() -> RepositoryOutcome {
    outcome("hello", &[("a", InSync), ("b", InSync), ("c", Unreachable)])
}

fn few(before: usize, copies: usize, wanted: usize) -> Alert {
    Alert::TooFewCopies { repo: repo("hello"), before, copies, wanted }
}

fn told(alerts: Vec<Alert>) -> String {
    let mut digest = Digest::default();
    digest.add(alerts);
    digest.due(NOW).unwrap_or_default()
}

#[test]
fn only_what_changed_is_told() {
    let (before, after) = (snapshot(&[good()], &[], None), snapshot(&[worse()], &["c"], None));
    insta::assert_snapshot!(told(alerts_between(&before, &after)), @"
    ! c.example does not answer any more: connection refused
    ! hello by npub10xlxv…ge6d has 2 copies, 3 wanted
    ");
    assert_eq!(alerts_between(&after, &after), []);
    assert_eq!(alerts_between(&Snapshot::default(), &after), [], "what is new has not changed");
    assert_eq!(
        alerts_between(&after, &snapshot(&[], &[], None)),
        [Alert::ServerBack { server: server("c") }]
    );
    insta::assert_snapshot!(told(alerts_between(&after, &before)), @"✓ c.example is back");
    let read: Snapshot = serde_json::from_str(&serde_json::to_string(&after).unwrap()).unwrap();
    assert_eq!(read, after);
}

#[test]
fn copies_are_counted_against_what_is_wanted() {
    let alerts = |now: RepositoryOutcome, wanted| {
        alerts_between(&snapshot(&[good()], &[], wanted), &snapshot(&[now], &[], wanted))
    };
    assert_eq!(alerts(worse(), Some(2)), []);
    let lost = [few(3, 2, 3)];
    assert_eq!(alerts(worse(), Some(3)), lost);
    assert_eq!(alerts(worse(), None), lost);
    // A new state on its way is no loss, until it does not arrive.
    let mut on_its_way = outcome("hello", &[("a", InSync), ("b", InSync), ("c", Pending)]);
    assert_eq!(alerts(on_its_way.clone(), None), []);
    on_its_way.mirrors.get_mut(&server("c")).unwrap().failures = TRIES;
    assert_eq!(alerts(on_its_way, None), lost);
    assert_eq!(alerts(outcome("hello", &[("a", InSync), ("b", Refused), ("c", InSync)]), None), lost);
    assert_eq!(alerts(outcome("hello", &[]), Some(2)), [], "an empty repository lacks nothing");

    // One that never had all its copies may still lose more of them.
    let (less, least) =
        (snapshot(&[worse()], &[], Some(9)), outcome("hello", &[("a", InSync), ("b", Refused)]));
    let least = snapshot(&[least], &[], Some(9));
    assert_eq!(alerts_between(&less, &least), [few(2, 1, 9)]);
    assert_eq!(
        alerts_between(&least, &less),
        [Alert::MoreCopies { repo: repo("hello"), copies: 2, wanted: 9 }]
    );
    // A server more is wanted, and not there yet: nothing was lost.
    let two = outcome("hello", &[("a", InSync), ("b", InSync)]);
    assert_eq!(alerts_between(&snapshot(&[two], &[], None), &snapshot(&[worse()], &[], None)), []);
}

#[test]
fn a_rewrite_is_told_once() {
    let at = |rewritten_at| snapshot(&[RepositoryOutcome { rewritten_at, ..good() }], &[], None);
    assert_eq!(alerts_between(&at(None), &at(Some(5))), [Alert::Rewritten { repo: repo("hello"), at: 5 }]);
    assert_eq!(alerts_between(&at(Some(5)), &at(Some(5))), []);
    assert_eq!(alerts_between(&at(Some(5)), &at(Some(6))), [Alert::Rewritten { repo: repo("hello"), at: 6 }]);
    assert_eq!(alerts_between(&Snapshot::default(), &at(Some(6))), []);
}

#[test]
fn a_digest_reads_well_on_a_phone() {
    let failed = Alert::CommandFailed {
        command: "resync of \"he\u{202e}llo\"".to_owned(),
        reason: "the disk\nis full".to_owned(),
    };
    let rewritten = Alert::Rewritten { repo: repo("grasp\u{7}"), at: NOW };
    let silent = Alert::SilentInbox { relay: "wss://auth.example/".parse().unwrap() };
    let one = few(9, 1, 9);
    let lost = Alert::ServerLost { server: server("c"), reason: String::new() };
    insta::assert_snapshot!(told(vec![failed, rewritten, silent, one, lost]), @r#"
    ! c.example does not answer any more
    ! hello by npub10xlxv…ge6d has 1 copy, 9 wanted
    ! resync of "hello" failed later: the disk is full
    ! grasp by npub10xlxv…ge6d: its history was rewritten; I keep what was there before
    ! wss://auth.example does not deliver messages to me; choose others in bot.inbox_relays
    "#);
    let many = (0..12).map(|n| Alert::TooFewCopies {
        repo: repo(&format!("repository-{n}")),
        before: 9,
        copies: 7,
        wanted: 9,
    });
    insta::assert_snapshot!(told(many.collect()), @"! 12 repositories have fewer copies than wanted: repository-0 (7 of 9), repository-1 (7 of 9), repository-2 (7 of 9) and 9 more");
    let flood =
        (0..500).map(|n| Alert::CommandFailed { command: format!("resync {n}"), reason: "x".repeat(10_000) });
    let text = told(flood.collect());
    insta::assert_snapshot!(text.lines().last().unwrap(), @"… and 488 more. Send: status");
    assert!(text.len() < 4_000, "{}", text.len());
}

#[test]
fn what_is_over_before_it_was_told_is_not_told() {
    let lost = Alert::ServerLost { server: server("a"), reason: String::new() };
    let back = Alert::ServerBack { server: server("a") };
    let more = |copies| Alert::MoreCopies { repo: repo("hello"), copies, wanted: 9 };
    let mut digest = Digest::default();
    digest.add([lost.clone(), few(9, 8, 9), back.clone(), more(9), more(9)]);
    digest.add([few(8, 7, 9), few(7, 6, 9), more(8)]);
    assert_eq!((digest.due(NOW), digest.due_at()), (None, None));

    digest.add([lost.clone()]);
    assert_eq!(digest.due_at(), Some(0));
    assert!(digest.due(NOW).is_some());
    digest.add([back, lost, few(9, 8, 9), few(8, 6, 9), more(7)]);
    assert_eq!((digest.due(NOW + 599), digest.due_at()), (None, Some(NOW + 600)));
    insta::assert_snapshot!(digest.due(NOW + 600).unwrap(), @"! hello by npub10xlxv…ge6d has 7 copies, 9 wanted");
    assert_eq!(digest.due(NOW + 6_000), None);
    let read: Digest = serde_json::from_str(&serde_json::to_string(&digest).unwrap()).unwrap();
    assert_eq!(read, digest);
}

/// An alert that is told apart from all others by its `n`.
fn alert(what: u8, n: usize) -> Alert {
    match what {
        0 => Alert::CommandFailed { command: format!("command {n};"), reason: String::new() },
        1 => Alert::Rewritten { repo: repo(&format!("{n};")), at: NOW },
        2 => Alert::ServerLost { server: server(&format!("s{n}")), reason: String::new() },
        _ => Alert::ServerBack { server: server(&format!("s{n}")) },
    }
}

proptest! {
    #[test]
    fn never_twice_and_never_sooner_than_ten_minutes(
        steps in prop::collection::vec((0..400_u64, prop::collection::vec(0..4_u8, 0..6)), 1..60),
    ) {
        let (mut now, mut digest, mut told, mut last) = (NOW, Digest::default(), BTreeSet::new(), None::<u64>);
        let (mut given, mut lines) = (0, 0);
        for (wait, alerts) in steps {
            now += wait;
            for what in alerts {
                given += 1;
                digest.add([alert(what, given)]);
            }
            let due_at = digest.due_at();
            let text = digest.due(now);
            prop_assert_eq!(text.is_some(), due_at.is_some_and(|at| at <= now));
            let Some(text) = text else { continue };
            prop_assert!(last.is_none_or(|last| now - last >= EVERY_SECS));
            last = Some(now);
            prop_assert!(text.lines().count() <= MAX_LINES + 1);
            for line in text.lines().filter(|line| !line.starts_with('…')) {
                lines += 1;
                prop_assert!(told.insert(line.to_owned()), "{line} was told before");
            }
        }
        prop_assert!(lines <= given);
    }
}

#[test]
fn a_held_state_is_told_once_and_servers_keep_their_copies() {
    let held = Held {
        state: nostr::prelude::EventId::from_byte_array([1; 32]),
        since: NOW,
        until: NOW + 86_400,
        removed: 5,
        of: 6,
        stands: crate::plan::hold::Stands::Waiting,
    };
    let mut outcome = outcome("my repo", &[("a", MirrorStatus::Blocked), ("b", MirrorStatus::Blocked)]);
    outcome.held = Some(held);
    let before = snapshot(&[RepositoryOutcome { held: None, ..outcome.clone() }], &[], None);
    let now = snapshot(&[outcome], &[], None);
    let mut digest = Digest::default();
    digest.add(alerts_between(&Snapshot::default(), &now));
    insta::assert_snapshot!(
        digest.due(NOW).unwrap(),
        @r#"! my repo by npub10xlxv…ge6d: a new state removes 5 of 6 branches and tags. I hold it until 2026-09-22T14:13:20Z. Send: approve "my repo", or: reject "my repo""#
    );
    assert_eq!(alerts_between(&now, &now), []);
    let changes = alerts_between(&before, &now);
    assert!(!changes.iter().any(|alert| matches!(alert, Alert::TooFewCopies { .. })), "{changes:?}");
}

#[test]
fn who_opts_out_is_told_once_and_not_when_they_changed_their_mind_before() {
    let all = snapshot(&[good()], &[], None);
    let reason = "its maintainer npub1\u{202e}… said: forget".to_owned();
    let mut without = snapshot(&[], &[], None);
    without.left_alone = Some([(repo("hello"), reason)].into());
    insta::assert_snapshot!(told(alerts_between(&all, &without)), @"! hello by npub10xlxv…ge6d is left alone from now on: its maintainer npub1… said: forget");
    assert_eq!(alerts_between(&without, &without), []);
    insta::assert_snapshot!(told(alerts_between(&without, &all)), @"✓ hello by npub10xlxv…ge6d is mirrored again");
    let mut digest = Digest::default();
    digest.add(alerts_between(&all, &without));
    digest.add(alerts_between(&without, &all));
    assert_eq!(digest.due(NOW), None);
    // An older version did not note it.
    let older = Snapshot { left_alone: None, ..all.clone() };
    assert_eq!(alerts_between(&older, &without), []);
    // One that is not watched any more is not mirrored again.
    assert_eq!(alerts_between(&without, &snapshot(&[], &[], None)), []);
}
