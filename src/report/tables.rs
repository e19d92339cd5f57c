//! The report as a person reads it in a terminal.

use comfy_table::{Cell, ContentArrangement, LineStyle, Table, TableStyle};
use grasp_mirror_commands::{
    ago, count, short,
    status::{brief, headline, not_found},
};
use nostr::prelude::{PublicKey, RelayUrl};
use serde::Serialize;

use super::{
    answers,
    audit::{Audit, Verdict},
    document::{Report, ServerOutcome},
    scoreboard::{Slot, Weeks},
};
use crate::model::{
    coordinate::{Coordinate, npub},
    placement::Placement,
    server::ServerUrl,
};

/// As much text from outside as goes into a cell, in characters.
const LONGEST: usize = 300;

/// The table of `status`; `weeks` say how the servers did.
///
/// `now` is Unix seconds; times are told from there.
#[must_use]
pub fn status(report: &Report, weeks: &Weeks, now: u64) -> String {
    if report.cycle.number == 0 {
        return "No cycle has come to its end yet. `grasp-mirror daemon` runs one at its start, `grasp-mirror mirror-once` one alone.".to_owned();
    }
    let overview = answers::overview(report, false);
    let mut text = format!("{}, read back {}.\n", headline(&overview), ago(now, report.cycle.finished_at));
    let totals = &report.totals;
    if totals.authors + totals.repos == 0 && overview.not_found.is_none() && report.left_alone.is_empty() {
        text.push_str("\nNobody is watched: set MIRROR_NPUBS in .env, or send the bot: watch <npub>\n");
    }
    let mut servers = table(&["server", "", "mirrors", "in sync", "last 7 days", "software"]);
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
            weeks.get(&server.url).and_then(Slot::week).map_or("-".to_owned(), |week| week.to_string()),
            clean(server.software.as_deref().unwrap_or("-")),
        ]);
    }
    text = format!("{text}\n{servers}\n");
    let mut repos = table(&["repository", "copies", "problems and notes"]);
    for repo in &report.repos {
        let problems = answers::from_report(repo).problems;
        let problems = problems.iter().map(|problem| brief(problem, now, LONGEST));
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
    if let Some(missing) = &overview.not_found {
        text = format!("{text}\n{}\n", not_found(missing));
    }
    let alone = &report.left_alone;
    for coordinate in &alone.deleted {
        text.push_str(&format!(
            "\n{} was deleted by its author and is not mirrored.",
            clean(&coordinate.for_people())
        ));
    }
    for (coordinate, reason) in &alone.forgotten {
        text.push_str(&format!("\n{} is left alone: {}.", clean(&coordinate.for_people()), clean(reason)));
    }
    for (number, one, many, what) in [
        (report.truncated, "repository", "repositories", "more than fit into the report"),
        (alone.private, "private repository", "private repositories", "not mirrored"),
        (alone.over_limit, "repository", "repositories", "beyond limits.max_repos_per_author not mirrored"),
    ] {
        if number > 0 {
            text.push_str(&format!("\n{} {what}.", count(number, one, many)));
        }
    }
    text
}

/// The table of `status --at-risk`; `now` as for [`status`].
#[must_use]
pub fn at_risk(report: &Report, now: u64) -> String {
    let mut rows = table(&["repository", "copies", "may vanish", "problems"]);
    let mut found = 0;
    for repo in report.repos.iter().filter(|repo| repo.is_at_risk()) {
        found += 1;
        let problems = answers::from_report(repo).problems;
        let problems: Vec<String> = problems.iter().map(|problem| brief(problem, now, LONGEST)).collect();
        rows.add_row([
            repository(&repo.a),
            format!("{} of {}", repo.copies, repo.wanted),
            repo.may_vanish.to_string(),
            problems.join("\n"),
        ]);
    }
    let mut text = match (report.cycle.number, found) {
        (0, _) => return status(report, &Weeks::new(), now),
        (_, 0) => "No repository has fewer than two verified copies.".to_owned(),
        _ => rows.to_string(),
    };
    if report.truncated > 0 {
        let rest = count(report.truncated, "repository", "repositories");
        text.push_str(&format!("\n{rest} more than fit into the report; nothing is known of them here."));
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
    /// How the repository may exist there; `None` where it has no mirror.
    pub placement: Option<Placement>,
    /// The rule behind that.
    pub rule: String,
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
            placement(step),
            clean(&step.step),
        ]);
    }
    let mut text = if steps.is_empty() { "Nothing to mirror.".to_owned() } else { rows.to_string() };
    for note in notes {
        text.push_str(&format!("\n{}", clean(note)));
    }
    text
}

/// The table of `plan <repo>`: one repository on every server, with the rule behind each placement.
#[must_use]
pub fn plan_of(repo: &Coordinate, steps: &[PlannedStep], notes: &[String]) -> String {
    let mut rows = table(&["server", "placement", "rule", "next step"]);
    for step in steps {
        let server = step.server.host().to_owned();
        rows.add_row([server, placement(step), clean(&step.rule), clean(&step.step)]);
    }
    let notes: String = notes.iter().map(|note| format!("\n{}", clean(note))).collect();
    format!("{}\n\n{rows}{notes}", repository(repo))
}

fn placement(step: &PlannedStep) -> String {
    step.placement.map_or("-", Placement::as_str).to_owned()
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

/// A signer, as `verify` found it.
#[derive(Clone, Debug, Serialize)]
pub struct SignerFinding {
    /// Its key, as npub.
    pub signer: String,
    /// The key it signs with, as npub, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs_for: Option<String>,
    /// Whether it can be asked, and its key is of use.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SignerFinding {
    /// One without a `reason` is fine.
    #[must_use]
    pub fn of(signer: &PublicKey, signs_for: Option<&PublicKey>, reason: Option<String>) -> Self {
        Self { signer: npub(signer), signs_for: signs_for.map(npub), ok: reason.is_none(), reason }
    }
}

/// One of the operator's relays, as `verify` found it.
#[derive(Clone, Debug, Serialize)]
pub struct RelayFinding {
    /// Its address.
    pub relay: RelayUrl,
    /// Whether the bot's lists and reports go there.
    pub own: bool,
    /// Whether it can be read.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything that `verify` found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The relays.
    pub relays: Vec<RelayFinding>,
    /// The servers.
    pub servers: Vec<ServerOutcome>,
    /// Each mirror.
    pub mirrors: Vec<Finding>,
    /// Who signs for maintainers.
    pub signers: Vec<SignerFinding>,
    /// Rules that contradict each other.
    pub contradictions: Vec<String>,
}

impl Verified {
    /// Whether nothing was found amiss. Of the relays that the bot's reports go to, one is enough.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let mut own = self.relays.iter().filter(|relay| relay.own).peekable();
        let is_heard = own.peek().is_none() || own.any(|relay| relay.ok);
        is_heard
            && self.mirrors.iter().all(|finding| finding.ok)
            && self.servers.iter().all(|server| server.reachable && server.unused.is_none())
            && self.signers.iter().all(|signer| signer.ok)
            && self.contradictions.is_empty()
    }
}

/// The tables of `verify`.
#[must_use]
pub fn verify(found: &Verified) -> String {
    let Verified { relays, servers, mirrors, signers, contradictions } = found;
    let mut zeroth = table(&["relay", ""]);
    for relay in relays {
        let known = format!("{} cannot be reached: ", relay.relay);
        let why = |reason: &str| clean(reason.strip_prefix(&known).unwrap_or(reason));
        let found = relay.reason.as_deref().map_or_else(|| "answers".to_owned(), why);
        zeroth.add_row([clean(relay.relay.as_str()), found]);
    }
    let mut first = table(&["server", "", "software"]);
    for server in servers {
        let mark = match (&server.unused, server.reachable) {
            (Some(reason), _) => clean(reason),
            (None, true) => "a GRASP server".to_owned(),
            (None, false) => match &server.reason {
                Some(reason) => format!("down: {}", clean(&answers::brief(reason))),
                None => "down".to_owned(),
            },
        };
        let software = clean(server.software.as_deref().unwrap_or("-"));
        first.add_row([server.url.host().to_owned(), mark, software]);
    }
    let mut second = table(&["repository", "server", "refs"]);
    for finding in mirrors {
        let found = finding.reason.as_deref().map_or_else(|| "exactly as signed".to_owned(), clean);
        second.add_row([repository(&finding.repo), finding.server.host().to_owned(), found]);
    }
    let mut text = format!("{zeroth}\n\n{first}\n\n");
    match mirrors.as_slice() {
        [] => text.push_str("There is no mirror to compare."),
        _ => text.push_str(&second.to_string()),
    }
    if !signers.is_empty() {
        let mut third = table(&["signer", "signs for", ""]);
        for signer in signers {
            let found = signer.reason.as_deref().map_or_else(|| "fine".to_owned(), clean);
            third.add_row([&signer.signer, signer.signs_for.as_deref().unwrap_or("-"), &found]);
        }
        text = format!("{text}\n\n{third}");
    }
    for contradiction in contradictions {
        text = format!("{text}\n\n✗ {}", clean(contradiction));
    }
    text
}

/// The table of `audit`.
///
/// `now` is Unix seconds; times are told from there.
#[must_use]
pub fn audit(audit: &Audit, now: u64) -> String {
    let (signed, claimed) = (ago(now, audit.signed_at), ago(now, audit.claimed_at));
    let mut text =
        format!("The report of {}, signed {signed}, about a check that ended {claimed}.\n", audit.bot);
    let mut rows = table(&["repository", "server", "in sync", "why"]);
    for claim in &audit.claims {
        let verdict = match claim.verdict {
            Verdict::Holds => "✓ holds",
            Verdict::DoesNotHold => "✗ does not hold",
            Verdict::Unchecked => "? not checked",
        };
        let reason = claim.reason.as_deref().map(clean).unwrap_or_default();
        rows.add_row([repository(&claim.a), claim.server.host().to_owned(), verdict.to_owned(), reason]);
    }
    if !audit.claims.is_empty() {
        text = format!("{text}\n{rows}\n");
    }
    for contradiction in &audit.contradictions {
        text = format!("{text}\n✗ The report contradicts itself. {}", clean(contradiction));
    }
    let sums = &audit.totals;
    let claims = count(sums.claims, "claim", "claims");
    text = format!(
        "{text}\n{claims}: {} true, {} false, {} could not be checked.",
        sums.hold, sums.do_not_hold, sums.unchecked
    );
    if sums.not_looked_at > 0 {
        let mirrors = count(sums.not_looked_at, "mirror", "mirrors");
        text = format!("{text} {mirrors} more that it says are in sync were not looked at.");
    }
    text
}

fn repository(coordinate: &Coordinate) -> String {
    format!("{} by {}", clean(&coordinate.identifier), short(&coordinate.owner))
}

/// A table without lines but one below its header, as wide as a terminal is where nobody asked for more.
fn table(header: &[&str]) -> Table {
    const WIDTH: u16 = 120;
    let lines = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table
        .load_style(lines)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header.iter().copied());
    table
}

/// Text from outside, fit for a cell.
fn clean(text: &str) -> String {
    grasp_mirror_commands::clean(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nostr::prelude::PublicKey;

    use super::*;
    use crate::{
        model::status::MirrorStatus,
        plan::{per_server::Mirrors, record::MirrorRecord},
        report::document::{CycleSummary, LeftAlone, RepositoryOutcome},
    };

    fn owner() -> PublicKey {
        PublicKey::from_hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap()
    }

    fn trimmed(table: &str) -> String {
        table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn status_names_problems_by_host_and_shows_no_tricks() {
        let mirror = |status, reason: Option<&str>| MirrorRecord {
            reason: reason.map(str::to_owned),
            since: 1_000,
            ..MirrorRecord::sample(status)
        };
        let servers = ["wss://a.example", "wss://b.example/grasp"].map(|url| ServerOutcome {
            url: url.parse().unwrap(),
            reachable: url.ends_with('p'),
            software: Some("ngit-grasp 3.0.9".to_owned()),
            reason: None,
            unused: None,
        });
        let outcome = RepositoryOutcome {
            coordinate: Coordinate::new(owner(), "hel\u{202e}lo\x1b[31m"),
            state: None,
            mirrors: Mirrors::from([
                (servers[0].url.clone(), mirror(MirrorStatus::Unreachable, Some("no\nanswer"))),
                (servers[1].url.clone(), mirror(MirrorStatus::InSync, None)),
            ]),
            notes: vec!["LFS objects not mirrored".to_owned()],
            wanted: 2,
            rewritten_at: None,
            held: None,
            repaired: 0,
        };
        let cycle = CycleSummary { number: 3, finished_at: 1_060, ..CycleSummary::default() };
        let alone = LeftAlone {
            deleted: BTreeSet::from([Coordinate::new(owner(), "gone")]),
            private: 2,
            ..LeftAlone::default()
        };
        let report = Report::of(cycle, &BTreeSet::new(), &servers, &[outcome], alone);
        let seen = Slot { asked: 9, answered: 8, latency_ms: 960, failures: 1, ..Slot::default() };
        let weeks = Weeks::from([(servers[1].url.clone(), seen)]);
        insta::assert_snapshot!(trimmed(&status(&report, &weeks, 1_180)));
    }

    #[test]
    fn before_the_first_cycle_it_says_what_to_do() {
        let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
        insta::assert_snapshot!(status(&report, &Weeks::new(), 0), @"No cycle has come to its end yet. `grasp-mirror daemon` runs one at its start, `grasp-mirror mirror-once` one alone.");
    }

    #[test]
    fn a_plan_says_how_and_what_next() {
        let step = PlannedStep {
            repo: Coordinate::new(owner(), "hello"),
            server: "wss://a.example".parse().unwrap(),
            placement: Some(Placement::Namespace),
            rule: "not listed; the owner's announcement has no M tag".to_owned(),
            step: "send 2 events, then the git data the server asks for".to_owned(),
        };
        let first = step.clone();
        insta::assert_snapshot!(trimmed(&plan(&[first], &["b.example: down".to_owned()])));
        let blocked = PlannedStep {
            server: "wss://b.example".parse().unwrap(),
            placement: None,
            rule: "blocked: [policy] deny names wss://b.example".to_owned(),
            step: "nothing".to_owned(),
            ..step.clone()
        };
        let of_one = plan_of(&step.repo, &[step.clone(), blocked], &["b.example: blocked".to_owned()]);
        insta::assert_snapshot!(trimmed(&of_one));
        insta::assert_snapshot!(plan(&[], &[]), @"Nothing to mirror.");
    }
}
