//! What is known, in the form in which the command language answers with it.
//!
//! Numbers and servers come from the last report; the mirrors of one repository from its record, since a large
//! report leaves repositories out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use grasp_mirror_commands::{
    Found, Matter, RepoName, Repository, clean,
    list::{Author, Ruled, Single},
    resync::Resync,
    servers::Server,
    short,
    status::{self, Behind, NotFound, Overview, Problem, RepoStatus, UnderWay},
    why::Mirror,
};
use nostr::prelude::PublicKey;

use super::{
    document::{Report, ReportedRepository, RepositoryOutcome},
    scoreboard::{Slot, Weeks},
};
use crate::{
    model::{
        coordinate::Coordinate,
        policy::{Policy, Rule, Rules},
        server::{ServerUrl, ServerUrlError},
        status::MirrorStatus,
    },
    plan::{
        catalog::Watched,
        hold::sayable,
        progress::Progress,
        record::{MirrorRecord, RepositoryRecord},
    },
};

/// `status`: all mirrors, the repositories with trouble worst first.
#[must_use]
pub fn overview(report: &Report, paused: bool) -> Overview {
    let ran = report.cycle.number > 0;
    let unused = report.unused();
    let mut troubled: Vec<RepoStatus> =
        report.repos.iter().filter(|repo| repo.is_troubled(&unused)).map(from_report).collect();
    troubled.sort_by_key(|status| Reverse(status.wanted.saturating_sub(status.copies)));
    Overview {
        repos: report.totals.repos,
        servers: report.totals.servers,
        mirrors: report.totals.mirrors,
        in_sync: report.totals.in_sync,
        paused,
        finished_at: ran.then_some(report.cycle.finished_at),
        next_at: report.cycle.next_at,
        troubled,
        not_found: not_found(report),
        under_way: None,
    }
}

/// What nobody announces; `None` when there is nothing.
#[must_use]
pub fn not_found(report: &Report) -> Option<NotFound> {
    let missing = &report.not_found;
    let used = report.servers.iter().filter(|server| server.unused.is_none());
    let (up, down): (Vec<_>, Vec<_>) = used.partition(|server| server.reachable);
    let down = down.iter().map(|server| server.url.to_string());
    let unread = missing.unread.iter().map(|relay| relay.as_str_without_trailing_slash().to_owned());
    let any = !missing.authors.is_empty() || !missing.repos.is_empty();
    any.then(|| NotFound {
        authors: missing.authors.iter().copied().collect(),
        repos: missing.repos.iter().map(named).collect(),
        unread: down.chain(unread).collect(),
        servers: up.len(),
        relays: missing.relays,
    })
}

/// `status` and the like of a repository that nobody announces.
#[must_use]
pub fn not_found_by_name(report: &Report, coordinate: &Coordinate) -> String {
    match not_found(report) {
        Some(looked) if report.not_found.repos.contains(coordinate) => {
            status::not_found(&NotFound { authors: Vec::new(), repos: vec![named(coordinate)], ..looked })
        }
        _ => format!("I have found no announcement of {} yet. I keep looking.", named(coordinate)),
    }
}

/// A running cycle, the server that takes longest first.
#[must_use]
pub fn under_way(progress: &Progress) -> UnderWay {
    let mut servers: Vec<_> = progress.servers.iter().collect();
    servers.sort_by_key(|server| Reverse((server.seconds_left, server.left)));
    let behind = servers.into_iter().map(|server| Behind {
        server: server.url.host().to_owned(),
        left: server.left,
        events_per_minute: server.events_per_minute,
        seconds_left: server.seconds_left,
    });
    UnderWay { since: progress.since, done: progress.done, repos: progress.repos, servers: behind.collect() }
}

/// `status <repo>`: the mirrors of one repository.
#[must_use]
pub fn repository(report: &Report, coordinate: &Coordinate, record: &RepositoryRecord) -> RepoStatus {
    let troubled = record.mirrors.iter().filter(|(_, mirror)| mirror.status != MirrorStatus::InSync);
    let problems: Vec<Problem> = troubled.map(|(server, mirror)| problem(server, mirror)).collect();
    let is_copy = |mirror: &&MirrorRecord| {
        matches!(mirror.status, MirrorStatus::InSync | MirrorStatus::AwaitingSignature)
    };
    RepoStatus {
        repo: named(coordinate),
        copies: record.mirrors.values().filter(is_copy).count(),
        wanted: record.copies_wanted(),
        problems,
        notes: notes(report, coordinate, record),
    }
}

/// `why <repo> [server]`: each mirror of one repository, then the servers where it is not to have one; or those of them
/// that `server` may mean.
#[must_use]
pub fn why(record: &RepositoryRecord, server: Option<&str>) -> Vec<Mirror> {
    let exactly = |url: &ServerUrl| server.is_none_or(|word| is_called(url, word));
    let perhaps = |url: &ServerUrl| server.is_none_or(|word| url.host().contains(&word.to_lowercase()));
    let known = record.mirrors.keys().chain(record.left_out.keys()).any(exactly);
    let meant = |url: &ServerUrl| if known { exactly(url) } else { perhaps(url) };
    let mirrors =
        record.mirrors.iter().filter(|(url, _)| meant(url)).map(|(url, mirror)| match mirror.status {
            MirrorStatus::InSync => Mirror::InSync {
                server: url.host().to_owned(),
                placement: mirror.placement.as_str().to_owned(),
                read_at: mirror.read_back_at.unwrap_or(mirror.since),
            },
            _ => Mirror::Not(problem(url, mirror)),
        });
    let left_out = record.left_out.iter().filter(|(url, _)| meant(url));
    let left_out =
        left_out.map(|(url, rule)| Mirror::LeftOut { server: url.host().to_owned(), rule: rule.clone() });
    mirrors.chain(left_out).collect()
}

/// What else people should know of a repository; empty also when the report had no room for it.
#[must_use]
pub fn notes(report: &Report, coordinate: &Coordinate, record: &RepositoryRecord) -> Vec<String> {
    if *record == RepositoryRecord::default() {
        return vec!["Its first check is not over.".to_owned()];
    }
    let reported = report.repos.iter().find(|repo| repo.a == *coordinate);
    reported.map(|repo| repo.notes.clone()).unwrap_or_default()
}

/// `servers`: each server, with the reason where it is of no use now, and how it did over the `weeks`. Those of `wanted`
/// that no cycle has told of yet come last.
#[must_use]
pub fn servers(report: &Report, wanted: &BTreeSet<ServerUrl>, weeks: &Weeks) -> Vec<Server> {
    let mut down: BTreeMap<&ServerUrl, &str> = BTreeMap::new();
    for problem in report.repos.iter().flat_map(|repo| &repo.problems) {
        if problem.status == MirrorStatus::Unreachable {
            down.entry(&problem.server).or_insert(&problem.reason);
        }
    }
    let each = report.servers.iter().map(|server| {
        let why_down = down.get(&server.url).filter(|_| !server.reachable);
        Server {
            host: server.url.host().to_owned(),
            used: server.unused.is_none(),
            reachable: Some(server.reachable),
            reason: server.unused.clone().or_else(|| why_down.map(|reason| brief(reason))),
            mirrors: server.mirrors,
            in_sync: server.in_sync,
            week: weeks.get(&server.url).and_then(Slot::week),
        }
    });
    let told: BTreeSet<&ServerUrl> = report.servers.iter().map(|server| &server.url).collect();
    let new = wanted.iter().filter(|url| !told.contains(url)).map(|url| Server {
        host: url.host().to_owned(),
        used: true,
        reachable: None,
        reason: None,
        mirrors: 0,
        in_sync: 0,
        week: None,
    });
    each.chain(new).collect()
}

/// `list`: who and what is watched. `known` are the repositories found so far, `unannounced` those that nobody announces;
/// `name` is what a person's profile says.
#[must_use]
pub fn list<'a>(
    watched: &Watched,
    known: impl IntoIterator<Item = &'a Coordinate>,
    unannounced: &BTreeSet<Coordinate>,
    name: impl Fn(&PublicKey) -> Option<String>,
) -> (Vec<Author>, Vec<Single>) {
    let mut repos: BTreeMap<&PublicKey, usize> = BTreeMap::new();
    for coordinate in known {
        *repos.entry(&coordinate.owner).or_default() += 1;
    }
    let author = |key: &PublicKey| Author {
        name: name(key),
        key: *key,
        repos: repos.get(key).copied().unwrap_or_default(),
    };
    let mut authors: Vec<Author> = watched.authors.iter().map(author).collect();
    authors
        .sort_by_key(|author| (author.name.is_none(), author.name.as_ref().map(|name| name.to_lowercase())));
    let single = |name: &Coordinate| Single { repo: named(name), announced: !unannounced.contains(name) };
    (authors, watched.repositories.iter().map(single).collect())
}

/// The rules of `list`.
#[must_use]
pub fn ruled(policy: &Policy) -> Ruled {
    let named = |rules: &Rules| rules.iter().map(|rule| rule_named(&rule)).collect();
    Ruled {
        denied_by_config: named(&policy.deny),
        denied: named(&policy.said.deny),
        allowed: named(&policy.said.allow),
    }
}

/// `allow` and `deny`: what a person means, among the `servers` and repositories (`known`) there are; or what to say
/// when that is nothing, or several. A person who names a repository or server in full may mean one that is not known.
///
/// # Errors
///
/// The answer.
pub fn find_rule<'a>(
    matter: &Matter,
    servers: impl IntoIterator<Item = &'a ServerUrl>,
    known: &[Coordinate],
) -> Result<Rule, String> {
    let repository = |name: &RepoName| match (find_repo(name, known), name) {
        (Found::One(one), _) => Ok(Rule::Repository(coordinate(&one))),
        (_, RepoName::Full(full)) => Ok(Rule::Repository(coordinate(full))),
        (found, name) => Err(found.reply(name)),
    };
    match matter {
        Matter::Author(author) => Ok(Rule::Author(*author)),
        Matter::Nip05(name) => Err(format!("Nobody has looked up {name}. An npub always works.")),
        Matter::Repository(name) => repository(name),
        Matter::Server(text) => {
            text.parse().map(Rule::Server).map_err(|error: ServerUrlError| clean(&error.to_string(), 200))
        }
        Matter::Word(word) => {
            if let Some(server) = servers.into_iter().find(|server| is_called(server, word)) {
                return Ok(Rule::Server(server.clone()));
            }
            match (repository(&RepoName::Identifier(word.clone())), word.parse()) {
                (Err(_), Ok(server)) if word.contains('.') => Ok(Rule::Server(server)),
                (found, _) => found,
            }
        }
    }
}

/// A rule as a person reads it.
#[must_use]
pub fn rule_named(rule: &Rule) -> String {
    match rule {
        Rule::Author(author) => short(author),
        Rule::Repository(repository) => named(repository).to_string(),
        Rule::Server(server) => clean(&server.to_string(), 100),
    }
}

/// A rule as it can be sent back.
#[must_use]
pub fn rule_written(rule: &Rule) -> String {
    match rule {
        Rule::Repository(repository) => sayable(&named(repository).full()),
        Rule::Author(_) | Rule::Server(_) => rule.to_string(),
    }
}

/// `resync`, when it is done: what became of the repositories it was about.
#[must_use]
pub fn resynced<'a>(outcomes: impl IntoIterator<Item = &'a RepositoryOutcome>, elapsed: Duration) -> Resync {
    let (mut repos, mut mirrors, mut in_sync, mut repaired) = (0, 0, 0, 0);
    for outcome in outcomes {
        repos += 1;
        if outcome.copies_wanted() == 0 {
            continue;
        }
        mirrors += outcome.mirrors.len();
        in_sync += outcome.mirrors.values().filter(|mirror| mirror.status == MirrorStatus::InSync).count();
        repaired += outcome.repaired;
    }
    Resync::Done { repos, mirrors, in_sync, repaired, elapsed_secs: elapsed.as_secs() }
}

/// Which of the `known` repositories a person means; a NIP-05 name has to be looked up before.
#[must_use]
pub fn find_repo<'a>(name: &RepoName, known: impl IntoIterator<Item = &'a Coordinate>) -> Found {
    let known: Vec<Repository> = known.into_iter().map(named).collect();
    name.find(&known)
}

/// The repository in the words of the command language.
#[must_use]
pub fn named(coordinate: &Coordinate) -> Repository {
    Repository { author: coordinate.owner, identifier: coordinate.identifier.clone() }
}

/// The way back from [`named`].
#[must_use]
pub fn coordinate(repository: &Repository) -> Coordinate {
    Coordinate::new(repository.author, repository.identifier.clone())
}

/// Whether a person who writes `word` names exactly this server.
fn is_called(server: &ServerUrl, word: &str) -> bool {
    server.host().eq_ignore_ascii_case(word.trim_end_matches('/'))
        || word.parse().is_ok_and(|url: ServerUrl| url == *server)
}

/// A reason without what is said beside it anyway.
pub(super) fn brief(reason: &str) -> String {
    reason.strip_prefix("it cannot be reached: ").unwrap_or(reason).to_owned()
}

fn problem(server: &ServerUrl, mirror: &MirrorRecord) -> Problem {
    Problem {
        server: server.host().to_owned(),
        status: mirror.status.as_str().to_owned(),
        reason: mirror.reason.as_deref().map(brief).unwrap_or_default(),
        since: mirror.since,
        retry_at: mirror.retry_at,
    }
}

/// What the report says of one repository.
pub(super) fn from_report(repo: &ReportedRepository) -> RepoStatus {
    let problems = repo.problems.iter().map(|problem| Problem {
        server: problem.server.host().to_owned(),
        status: problem.status.as_str().to_owned(),
        reason: brief(&problem.reason),
        since: problem.since,
        retry_at: problem.retry_at,
    });
    RepoStatus {
        repo: named(&repo.a),
        copies: repo.copies,
        wanted: repo.wanted,
        problems: problems.collect(),
        notes: repo.notes.clone(),
    }
}

#[cfg(test)]
mod tests;
