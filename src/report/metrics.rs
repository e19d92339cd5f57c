//! The daemon's numbers as Prometheus reads them (OpenMetrics text).
//!
//! Labels are the host of a server (of at most [`SERVERS_MAX`]; `other` stands for the rest), a status, and the kind of
//! a failure: never a repository or a person, of which there may be any number.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    health,
    picture::{Picture, SERVERS_MAX},
    scoreboard::{SLOT_SECS, Scoreboard},
};
use crate::model::server::ServerUrl;

/// The content type that says what [`text()`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers older than this say nothing of how fast a server is, in seconds.
const LATENCY_GOOD_FOR_SECS: u64 = 4 * 3_600;

type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtServer {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithStatus {
    server: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    server: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

/// All numbers, as of `now` (Unix seconds). `boards` are those of the servers.
///
/// # Errors
///
/// [`std::fmt::Error`] never, as far as a `String` goes.
pub fn text(
    picture: &Picture,
    boards: &BTreeMap<ServerUrl, Scoreboard>,
    now: u64,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("grasp_mirror");
    let version = env!("CARGO_PKG_VERSION");
    registry.register("build", "Which software this is", Info::new([("version", version)]));
    daemon(&mut registry, picture, now);
    repositories(&mut registry, picture);
    servers(&mut registry, picture, boards, now);
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Real::default();
    gauge.set(value);
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of less than a hundred thousand years")]
fn from_ms(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn daemon(registry: &mut Registry, picture: &Picture, now: u64) {
    let counts = &picture.counts;
    let cycles = Family::<Ended, Counter>::default();
    for (result, number) in
        [("ok", counts.cycles), ("failed", counts.failed_cycles), ("dropped", counts.dropped_cycles)]
    {
        cycles.get_or_create(&Ended { result }).inc_by(number);
    }
    registry.register("cycles", "Cycles, by how they ended", cycles);
    let spent = Counter::<f64, AtomicU64>::default();
    spent.inc_by(from_ms(counts.cycles_ms));
    registry.register_with_unit(
        "cycles_duration",
        "Time spent in cycles that ended well",
        Unit::Seconds,
        spent,
    );
    seconds(
        registry,
        "last_cycle_duration",
        "How long the last cycle that ended well took",
        from_ms(counts.last_cycle_ms),
    );
    if let Some(at) = picture.good_at {
        let at = from_ms(at.saturating_mul(1_000));
        seconds(registry, "last_success_timestamp", "When a cycle last ended well, Unix time", at);
    }
    let interval = from_ms(picture.interval_secs.saturating_mul(1_000));
    seconds(registry, "cycle_interval", "From the start of one cycle to the start of the next", interval);
    let started = from_ms(picture.started_at.saturating_mul(1_000));
    seconds(registry, "start_timestamp", "When the daemon was started, Unix time", started);
    let followed = Counter::<u64>::default();
    followed.inc_by(counts.followed);
    registry.register(
        "followed",
        "Jobs between cycles, for what was heard or was to be tried again",
        followed,
    );
    for (name, help, value) in [
        (
            "healthy",
            "Whether the last good cycle is younger than three intervals",
            health::of(picture, now).ok,
        ),
        ("ready", "Whether it is known what is to be mirrored", picture.settled),
        ("paused", "Whether the bot was told to pause", picture.paused),
        ("cycle_running", "Whether a cycle is under way", picture.running.is_some()),
    ] {
        gauge(registry, name, help, usize::from(value));
    }
}

fn repositories(registry: &mut Registry, picture: &Picture) {
    let totals = &picture.report.totals;
    gauge(registry, "authors", "Watched authors", totals.authors);
    gauge(registry, "repositories", "Repositories that are mirrored", totals.repos);
    let few = |max: usize| picture.redundancy().range(..max).map(|(_, repositories)| repositories).sum();
    gauge(
        registry,
        "repositories_without_copy",
        "Repositories of which no server holds a verified copy",
        few(1),
    );
    gauge(registry, "repositories_at_risk", "Repositories with fewer than two verified copies", few(2));
    let held = picture.rows.iter().filter(|row| row.held).count();
    gauge(registry, "repositories_held", "Repositories of which a new state is held", held);
}

fn servers(registry: &mut Registry, picture: &Picture, boards: &BTreeMap<ServerUrl, Scoreboard>, now: u64) {
    let columns = picture.columns();
    let label = |server: &ServerUrl| match columns.iter().position(|known| known == server) {
        Some(at) if at < SERVERS_MAX => server.host().to_owned(),
        _ => "other".to_owned(),
    };
    let up = Family::<AtServer, Gauge>::default();
    for server in picture.report.servers.iter().filter(|server| server.unused.is_none()).take(SERVERS_MAX) {
        up.get_or_create(&AtServer { server: label(&server.url) }).set(i64::from(server.reachable));
    }
    registry.register("server_up", "Whether the server answered when it was last asked", up);
    let mirrors = Family::<WithStatus, Gauge>::default();
    for (server, cell) in picture.rows.iter().flat_map(|row| &row.cells) {
        let labels = WithStatus { server: label(server), status: cell.status.as_str() };
        mirrors.get_or_create(&labels).inc();
    }
    registry.register("mirrors", "Mirrors, by server and status", mirrors);
    let failures = Family::<OfKind, Counter>::default();
    for ((server, kind), number) in &picture.counts.failures {
        let server = server.as_ref().map_or_else(|| "other".to_owned(), &label);
        failures.get_or_create(&OfKind { server, kind }).inc_by(*number);
    }
    registry.register("mirror_failures", "Tries of mirrors that failed, by whose doing it was", failures);
    let latency = Family::<AtServer, Real>::default();
    for (server, board) in boards.iter().filter(|(server, _)| label(server) != "other") {
        let young = board.since(now.saturating_sub(LATENCY_GOOD_FOR_SECS + SLOT_SECS));
        if let Some(ms) = young.filter_map(|(_, slot)| slot.mean_ms()).last() {
            latency.get_or_create(&AtServer { server: label(server) }).set(f64::from(ms) / 1_000.0);
        }
    }
    let help = "How long the server lately took to say who it is, connecting included";
    registry.register_with_unit("server_latency", help, Unit::Seconds, latency);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        model::status::MirrorStatus,
        plan::{record::MirrorRecord, retry::Failure},
        report::{
            picture::testing::{NOW, key, mirror, outcome, picture},
            scoreboard::Slot,
        },
    };

    #[test]
    fn numbers_have_a_server_and_a_kind_and_no_repository() {
        let mut it = picture();
        let report = it.report.clone();
        let failing = MirrorRecord {
            failures: 1,
            failure: Some(Failure::ServerFails),
            ..mirror(MirrorStatus::Failing, None)
        };
        let rows = [
            outcome(
                "secret-name",
                &[("a.example", mirror(MirrorStatus::InSync, None)), ("b.example", failing)],
            ),
            outcome("other", &[("a.example", mirror(MirrorStatus::InSync, None))]),
        ];
        it.end(&report, &rows, 1_500, NOW);
        let mut board = Scoreboard::default();
        board.note(Slot { asked: 1, answered: 1, latency_ms: 40, slowest_ms: 40, ..Slot::default() }, NOW);
        let boards = BTreeMap::from([("wss://a.example".parse().unwrap(), board)]);
        let said = text(&it, &boards, NOW).unwrap();
        for line in [
            "grasp_mirror_build_info{version=\"0.1.0\"} 1",
            "grasp_mirror_cycles_total{result=\"ok\"} 1",
            "grasp_mirror_cycles_duration_seconds_total 1.5",
            "grasp_mirror_last_success_timestamp_seconds 1790000000.0",
            "grasp_mirror_mirrors{server=\"a.example\",status=\"in_sync\"} 2",
            "grasp_mirror_mirror_failures_total{server=\"b.example\",kind=\"server_fails\"} 1",
            "grasp_mirror_server_latency_seconds{server=\"a.example\"} 0.04",
            "grasp_mirror_repositories_at_risk 2",
            "grasp_mirror_healthy 1",
            "# EOF",
        ] {
            assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
        }
        assert!(!said.contains("secret-name") && !said.contains(&key().to_hex()), "{said}");
        assert!(!text(&picture(), &BTreeMap::new(), NOW).unwrap().contains("last_success"), "there was none");
    }

    #[test]
    fn any_number_of_servers_makes_a_bounded_number_of_lines() {
        let mut it = picture();
        let hosts: Vec<String> = (0..500).map(|n| format!("s{n}.example")).collect();
        let failing = MirrorRecord {
            failures: 1,
            failure: Some(Failure::ServerFails),
            ..mirror(MirrorStatus::Failing, None)
        };
        let mirrors: Vec<_> = hosts.iter().map(|host| (host.as_str(), failing.clone())).collect();
        let report = it.report.clone();
        it.end(&report, &[outcome("a", &mirrors)], 1, NOW);
        let said = text(&it, &BTreeMap::new(), NOW).unwrap();
        assert!(said.contains("grasp_mirror_mirrors{server=\"other\",status=\"failing\"} 400"), "{said}");
        assert!(said.lines().count() < 400, "{}", said.lines().count());
    }
}
