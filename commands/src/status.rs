//! `status [repo]`: how the mirrors are.

use nostr::key::PublicKey;

use crate::{
    Command, ParseError, RepoName, Repository, Usage, Words, ago, clean, short,
    text::{count, lines, span},
    until,
};

pub(crate) const USAGE: Usage =
    Usage { name: "status", args: "[repo]", about: "how the mirrors are: all, or those of one repository" };

/// As much of a reason as reads well on a phone, in characters.
pub(crate) const REASON: usize = 200;

/// All mirrors, in numbers. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Watched repositories.
    pub repos: usize,
    /// Servers mirrored to.
    pub servers: usize,
    /// Pairs of repository and server.
    pub mirrors: usize,
    /// Mirrors read back as wanted.
    pub in_sync: usize,
    /// Whether writing is paused.
    pub paused: bool,
    /// When the last cycle ended.
    pub finished_at: Option<u64>,
    /// When the next one begins.
    pub next_at: Option<u64>,
    /// Repositories with trouble, worst first.
    pub troubled: Vec<RepoStatus>,
    /// What is watched and nobody announces.
    pub not_found: Option<NotFound>,
    /// The cycle that runs just now.
    pub under_way: Option<UnderWay>,
}

/// What is watched and nobody announces, and where that was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotFound {
    /// Authors who announce nothing.
    pub authors: Vec<PublicKey>,
    /// Single repositories.
    pub repos: Vec<Repository>,
    /// Servers that could be read.
    pub servers: usize,
    /// The same of relays.
    pub relays: usize,
    /// Those that could not be read, by name.
    pub unread: Vec<String>,
}

/// A cycle under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// When it began, Unix seconds.
    pub since: u64,
    /// Repositories that it is done with.
    pub done: usize,
    /// Repositories in all; 0 while it looks what there is.
    pub repos: usize,
    /// Servers with mirrors that are not done, the slowest first.
    pub servers: Vec<Behind>,
}

/// A server with mirrors that are not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its host.
    pub server: String,
    /// Mirrors that are not done.
    pub left: usize,
    /// How many events it takes in a minute, where that decides.
    pub events_per_minute: Option<u32>,
    /// How long the rest takes, where that can be said.
    pub seconds_left: Option<u64>,
}

/// One repository. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoStatus {
    /// Which one.
    pub repo: Repository,
    /// On how many servers it is in sync.
    pub copies: usize,
    /// On how many it should be.
    pub wanted: usize,
    /// What keeps the others.
    pub problems: Vec<Problem>,
    /// What else a person should know, such as that it is empty.
    pub notes: Vec<String>,
}

/// One mirror that is not in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The server's host.
    pub server: String,
    /// The mirror status, as in the report.
    pub status: String,
    /// Why, in the server's words.
    pub reason: String,
    /// Since when.
    pub since: u64,
    /// When it is tried again; `None` means not by itself.
    pub retry_at: Option<u64>,
}

pub(crate) fn parse(words: &mut Words) -> Result<Command, ParseError> {
    let repo = words.next().map(|word| RepoName::parse(&word)).transpose()?;
    words.end()?;
    Ok(Command::Status(repo))
}

/// All mirrors at `now`.
#[must_use]
pub fn reply(overview: &Overview, now: u64) -> String {
    let mut out = Vec::new();
    if overview.paused {
        out.push("Paused. Send: resume".to_owned());
    }
    if overview.repos == 0 && overview.finished_at.is_none() {
        match &overview.under_way {
            Some(under_way) => out.push(progress(under_way, now)),
            None => {
                out.push("Nothing to mirror yet, as far as I know: my first check is not over.".to_owned());
            }
        }
        return out.join("\n");
    } else if overview.repos == 0 && overview.not_found.is_some() {
        out.push("! Nothing to mirror was found.".to_owned());
    } else if overview.repos == 0 {
        out.push("Nothing to mirror yet. Send: watch <npub>".to_owned());
    } else if overview.mirrors == 0 {
        let (repos, servers) = (count(overview.repos, "repository", "repositories"), overview.servers);
        let servers = count(servers, "server", "servers");
        out.push(format!(
            "No mirrors are wanted now of {repos} on {servers}. For the reason, send: why <repo>"
        ));
    } else {
        let whole = overview.mirrors > 0 && overview.in_sync == overview.mirrors;
        let found = overview.not_found.as_ref().is_none_or(|missing| missing.repos.is_empty());
        let good = whole && found && overview.troubled.is_empty();
        out.push(format!("{} {}.", if good { "✓" } else { "!" }, headline(overview)));
    }
    if !overview.troubled.is_empty() {
        let each = overview.troubled.iter().map(|one| {
            let first = one.problems.first();
            let why = first.map_or(String::new(), |first| format!(", {}", brief(first, now, REASON)));
            let more = one.problems.len().saturating_sub(1);
            let more = if more > 0 { format!(" (+{more})") } else { String::new() };
            format!("• {}: {} of {}{why}{more}", clean(&one.repo.identifier, 60), one.copies, one.wanted)
        });
        out.push(lines(each, 10));
    }
    out.extend(overview.not_found.as_ref().map(not_found));
    match (overview.finished_at, overview.next_at) {
        (Some(finished), Some(next)) => {
            out.push(format!("Checked {}, next check {}.", ago(now, finished), until(now, next)));
        }
        (Some(finished), None) => out.push(format!("Checked {}.", ago(now, finished))),
        (None, _) => out.push("Not checked yet.".to_owned()),
    }
    out.extend(overview.under_way.as_ref().map(|under_way| progress(under_way, now)));
    out.join("\n")
}

/// What nobody announces, and where that was looked for.
#[must_use]
pub fn not_found(missing: &NotFound) -> String {
    let NotFound { authors, repos, servers, relays, unread } = missing;
    let mut each: Vec<String> = repos.iter().map(|repo| format!("• {repo}")).collect();
    each.extend(authors.iter().map(|author| format!("• any repository of {}", short(author))));
    let (servers, relays) = (count(*servers, "server", "servers"), count(*relays, "relay", "relays"));
    let mut out = vec!["No announcement found of:".to_owned(), lines(each.into_iter(), 10)];
    out.push(format!("Looked for on {servers} and {relays}."));
    if !unread.is_empty() {
        out.push("These could not be read:".to_owned());
        out.push(lines(unread.iter().map(|name| format!("• {}", clean(name, 100))), 10));
    }
    out.join("\n")
}

/// How far a cycle is at `now`.
#[must_use]
pub fn progress(under_way: &UnderWay, now: u64) -> String {
    let UnderWay { since, done, repos, servers } = under_way;
    let elapsed = span(now.saturating_sub(*since));
    let far = match *repos {
        0 => "looking at servers and relays".to_owned(),
        repos => format!("{done} of {} done", count(repos, "repository", "repositories")),
    };
    let each = servers.iter().map(|Behind { server, left, events_per_minute, seconds_left }| {
        let time = seconds_left.map_or(String::new(), |seconds| format!(", about {}", span(seconds)));
        let rate =
            events_per_minute.map_or(String::new(), |rate| format!(" (it takes {rate} events a minute)"));
        format!("• {}: {} to go{time}{rate}", clean(server, 60), count(*left, "mirror", "mirrors"))
    });
    let mut out = vec![format!("A check is running for {elapsed}: {far}.")];
    if !servers.is_empty() {
        out.push(lines(each, 10));
    }
    out.join("\n")
}

/// All mirrors in half a sentence, without the full stop.
#[must_use]
pub fn headline(overview: &Overview) -> String {
    let Overview { repos, servers, mirrors, in_sync, .. } = *overview;
    let mirrors = count(mirrors, "mirror", "mirrors");
    let repos = count(repos, "repository", "repositories");
    format!("{in_sync} of {mirrors} in sync: {repos} on {}", count(servers, "server", "servers"))
}

/// The mirrors of one repository at `now`.
#[must_use]
pub fn reply_repo(status: &RepoStatus, now: u64) -> String {
    let RepoStatus { repo, copies, wanted, problems, notes } = status;
    let mut out = vec![match *wanted {
        0 => format!("{repo}: no mirrors."),
        wanted => {
            let sign = if *copies >= wanted { "✓" } else { "!" };
            let servers = |number| count(number, "server", "servers");
            if *copies > wanted {
                // Those that the maintainers list are served, whatever is wanted.
                format!("{sign} {repo}: in sync on {}, {wanted} wanted.", servers(*copies))
            } else {
                format!("{sign} {repo}: in sync on {copies} of {}.", servers(wanted))
            }
        }
    }];
    if !problems.is_empty() {
        out.push(lines(problems.iter().map(|problem| format!("• {}", brief(problem, now, REASON))), 20));
    }
    out.extend(notes.iter().take(5).map(|note| clean(note, 200)));
    out.join("\n")
}

/// `host: failing for 3 min, reason (next try in 5 min)`, with at most `longest` characters of the reason.
#[must_use]
pub fn brief(problem: &Problem, now: u64, longest: usize) -> String {
    let status = clean(&problem.status, 20).replace('_', " ");
    let reason = clean(&problem.reason, longest);
    let reason = if reason.is_empty() { String::new() } else { format!(", {reason}") };
    let retry = problem.retry_at.map_or(String::new(), |at| format!(" (next try {})", until(now, at)));
    let elapsed = span(now.saturating_sub(problem.since));
    format!("{}: {status} for {elapsed}{reason}{retry}", clean(&problem.server, 60))
}
