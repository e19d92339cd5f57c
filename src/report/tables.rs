//! The report as a person reads it in a terminal.

use comfy_table::{Cell, Table, presets};
use grasp_mirror_commands::{ago, short};

use super::document::{Report, ServerOutcome};
use crate::model::{coordinate::Coordinate, placement::Placement, server::ServerUrl};

/// The table of `status`.
///
/// `now` is Unix seconds; times are told from there.
#[must_use]
pub fn status(report: &Report, now: u64) -> String {
    let totals = &report.totals;
    if report.cycle.number == 0 {
        return "No cycle has run yet: `grasp-mirror mirror-once` runs one.".to_owned();
    }
    let mut text = format!(
        "{} of {} mirrors in sync: {} repositories on {} servers, read back {}.\n",
        totals.in_sync,
        totals.mirrors,
        totals.repos,
        totals.servers,
        ago(now, report.cycle.finished_at)
    );
    let mut servers = table(&["server", "", "mirrors", "in sync", "software"]);
    for server in &report.servers {
        let mark = match (&server.unused, server.reachable) {
            (Some(reason), _) => reason.clone(),
            (None, true) => "up".to_owned(),
            (None, false) => "down".to_owned(),
        };
        servers.add_row([
            server.url.host().to_owned(),
            clean(&mark),
            server.mirrors.to_string(),
            server.in_sync.to_string(),
            clean(server.software.as_deref().unwrap_or("-")),
        ]);
    }
    text = format!("{text}\n{servers}\n");
    let mut repos = table(&["repository", "copies", "problems and notes"]);
    for repo in &report.repos {
        let problems = repo.problems.iter().map(|problem| {
            let when = ago(now, problem.since);
            format!(
                "{}: {} since {when}: {}",
                problem.server.host(),
                problem.status.as_str(),
                clean(&problem.reason)
            )
        });
        let lines: Vec<String> = problems.chain(repo.notes.iter().map(|note| clean(note))).collect();
        repos.add_row([
            Cell::new(repository(&repo.a)),
            Cell::new(format!("{} of {}", repo.copies, repo.wanted)),
            Cell::new(lines.join("\n")),
        ]);
    }
    if !report.repos.is_empty() {
        text = format!("{text}\n{repos}\n");
    }
    let alone = &report.left_alone;
    for coordinate in &alone.deleted {
        text.push_str(&format!(
            "\n{} was deleted by its author and is not mirrored.",
            clean(&coordinate.for_people())
        ));
    }
    for (count, what) in [
        (report.truncated, "more repositories do not fit into the report"),
        (alone.private, "private repositories are not mirrored"),
        (alone.over_limit, "repositories are beyond limits.max_repos_per_author and not mirrored"),
    ] {
        if count > 0 {
            text.push_str(&format!("\n{count} {what}."));
        }
    }
    text
}

/// One line of `plan`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PlannedStep {
    /// The repository.
    pub repo: Coordinate,
    /// The server.
    pub server: ServerUrl,
    /// How the repository may exist there.
    pub placement: Placement,
    /// What a cycle would do first.
    pub step: String,
}

/// The table of `plan`.
#[must_use]
pub fn plan(steps: &[PlannedStep], notes: &[String]) -> String {
    let mut rows = table(&["repository", "server", "placement", "next step"]);
    for step in steps {
        rows.add_row([
            repository(&step.repo),
            step.server.host().to_owned(),
            step.placement.as_str().to_owned(),
            clean(&step.step),
        ]);
    }
    let mut text = if steps.is_empty() { "Nothing to mirror.".to_owned() } else { rows.to_string() };
    for note in notes {
        text.push_str(&format!("\n{}", clean(note)));
    }
    text
}

/// What the deep check found at one mirror.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The repository.
    pub repo: Coordinate,
    /// The server.
    pub server: ServerUrl,
    /// Whether the server lists exactly the signed refs.
    pub ok: bool,
    /// What differs, or why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The tables of `verify`.
#[must_use]
pub fn verify(servers: &[ServerOutcome], findings: &[Finding]) -> String {
    let mut first = table(&["server", "", "software"]);
    for server in servers {
        let mark = match (&server.unused, server.reachable) {
            (Some(reason), _) => clean(reason),
            (None, true) => "a GRASP server".to_owned(),
            (None, false) => "down".to_owned(),
        };
        let software = clean(server.software.as_deref().unwrap_or("-"));
        first.add_row([server.url.host().to_owned(), mark, software]);
    }
    let mut second = table(&["repository", "server", "refs"]);
    for finding in findings {
        let found = finding.reason.as_deref().map_or_else(|| "exactly as signed".to_owned(), clean);
        second.add_row([repository(&finding.repo), finding.server.host().to_owned(), found]);
    }
    format!("{first}\n\n{second}")
}

fn repository(coordinate: &Coordinate) -> String {
    format!("{} by {}", clean(&coordinate.identifier), short(&coordinate.owner))
}

/// An empty table with `header`.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    table
}

/// Text from outside, fit for a cell.
fn clean(text: &str) -> String {
    grasp_mirror_commands::clean(text, 300)
}
