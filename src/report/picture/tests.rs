#![allow(clippy::unwrap_used)]

use super::{
    testing::{NOW, mirror, outcome, picture},
    *,
};

fn sync() -> MirrorRecord {
    mirror(MirrorStatus::InSync, None)
}

fn failing(failures: u32) -> MirrorRecord {
    MirrorRecord {
        failures,
        failure: Some(Failure::ServerFails),
        ..mirror(MirrorStatus::Failing, Some("HTTP 500"))
    }
}

#[test]
fn a_row_is_letters_and_reasons() {
    let mut it = picture();
    let refused = mirror(MirrorStatus::Refused, Some("blocked:\n<b>no</b> \u{202e}x"));
    let rows = [outcome("odd", &[("a.example", sync()), ("c.example", refused)])];
    let report = it.report.clone();
    it.end(&report, &rows, 5, NOW);
    let columns: Vec<ServerUrl> =
        ["a.example", "b.example", "c.example"].map(|host| format!("wss://{host}").parse().unwrap()).into();
    let brief = serde_json::to_value(Brief { row: &it.rows[0], columns: &columns }).unwrap();
    assert_eq!(brief["s"], "i.r");
    assert_eq!(
        brief["why"]["2"]["reason"], "blocked: <b>no</b> x",
        "as it is, but on one line and the right way round"
    );
    assert_eq!(brief["d"], "odd");
    assert!(brief["why"].get("0").is_none() && brief.get("notes").is_none() && brief.get("held").is_none());
}

#[test]
fn only_what_changed_is_told() {
    let mut it = picture();
    let report = it.report.clone();
    it.end(
        &report,
        &[outcome("one", &[("a.example", sync())]), outcome("two", &[("a.example", sync())])],
        5,
        NOW,
    );
    let before = it.clone();
    it.follow(
        &report,
        &[outcome("one", &[("a.example", sync())]), outcome("new", &[("a.example", failing(1))])],
    );
    let (changed, gone) = it.changes_since(&before);
    assert_eq!(changed.iter().map(|row| row.coordinate.identifier.as_str()).collect::<Vec<_>>(), ["new"]);
    assert_eq!(gone.iter().map(|gone| gone.identifier.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(it.row(&outcome("one", &[]).coordinate).is_some());
    assert!(it.row(&outcome("two", &[]).coordinate).is_none());
    let (changed, gone) = it.changes_since(&it);
    assert!(changed.is_empty() && gone.is_empty());
}

#[test]
fn repositories_are_counted_by_their_copies() {
    let mut it = picture();
    let report = it.report.clone();
    let rows = [
        outcome("a", &[("a.example", sync()), ("b.example", sync())]),
        outcome("b", &[("a.example", sync()), ("b.example", failing(1))]),
        outcome("c", &[("a.example", failing(1))]),
        outcome("empty", &[]),
    ];
    it.end(&report, &rows, 5, NOW);
    assert_eq!(it.redundancy(), BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
}

#[test]
fn each_failed_try_counts_once_and_the_servers_are_bounded() {
    let mut it = picture();
    let report = it.report.clone();
    for failures in [1, 1, 2, 3] {
        it.follow(&report, &[outcome("a", &[("a.example", failing(failures))])]);
    }
    let refused =
        MirrorRecord { failure: Some(Failure::ServerRefused), ..mirror(MirrorStatus::Refused, Some("no")) };
    for _ in 0..2 {
        it.follow(&report, &[outcome("a", &[("a.example", refused.clone())])]);
    }
    let server: ServerUrl = "wss://a.example".parse().unwrap();
    assert_eq!(it.counts.failures.get(&(Some(server.clone()), "server_fails")), Some(&3));
    assert_eq!(it.counts.failures.get(&(Some(server), "server_refused")), Some(&1));
    for n in 0..300 {
        it.follow(&report, &[outcome("a", &[(format!("s{n}.example").as_str(), failing(1))])]);
    }
    assert!(it.counts.failures.len() <= SERVERS_MAX + 2, "{}", it.counts.failures.len());
    assert_eq!(it.counts.failures.get(&(None, "server_fails")), Some(&201));
}

#[test]
fn what_is_remembered_gives_way_to_what_was_seen() {
    let mut it = picture();
    let remembered = [outcome("a", &[("a.example", failing(1))])];
    it.remember(&remembered);
    assert_eq!(it.rows.len(), 1);
    assert!(it.counts.failures.is_empty(), "it failed before the start");
    let report = it.report.clone();
    it.end(&report, &[], 5, NOW);
    it.remember(&remembered);
    assert!(it.rows.is_empty());
}
