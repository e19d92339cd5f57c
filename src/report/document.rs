//! The status report: the content of the kind 30078 event with `d` = `grasp-mirror/status`.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use grasp_mirror_commands::clean;
use nostr::prelude::{EventId, PublicKey, RelayUrl};
use serde::{Deserialize, Serialize};

use crate::{
    model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{hold::Held, per_server::Mirrors, record::RepositoryRecord},
};

/// The report's `d` tag.
pub const IDENTIFIER: &str = "grasp-mirror/status";

/// Relays take events of 64 KiB; this leaves room for the envelope. Counted inside an event, where each
/// quotation mark of the document takes two bytes.
pub const MAX_BYTES: usize = 60 * 1024;

/// The longest note, in characters.
const NOTE_MAX: usize = 500;

/// What stands in `software`.
pub const SOFTWARE: &str = concat!("grasp-mirror/", env!("CARGO_PKG_VERSION"));

/// The whole report. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The format's version: 1.
    pub version: u32,
    /// Program and version.
    pub software: String,
    /// The cycle it tells of.
    pub cycle: CycleSummary,
    /// Sums over everything, also over what `truncated` left out.
    pub totals: Totals,
    /// The servers in use, and those that were meant to be.
    pub servers: Vec<ReportedServer>,
    /// The repositories, those with problems first.
    pub repos: Vec<ReportedRepository>,
    /// Repositories left out to keep the event small, those included that are left alone.
    pub truncated: usize,
    /// What is left alone on purpose; absent when nothing is.
    #[serde(default, skip_serializing_if = "LeftAlone::is_empty")]
    pub left_alone: LeftAlone,
    /// What is watched and nobody announces; absent when there is nothing.
    #[serde(default, skip_serializing_if = "NotFound::is_empty")]
    pub not_found: NotFound,
    /// Inbox relays that did not deliver a message from the bot to itself; absent when all did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_inboxes: Vec<RelayUrl>,
}

/// One cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleSummary {
    /// Counted from 1 over the life of the data folder.
    pub number: u64,
    /// What started it: `start`, `timer`, `once` or `command`; `live` when something was followed since.
    pub trigger: String,
    /// When it began.
    pub started_at: u64,
    /// When it ended.
    pub finished_at: u64,
    /// When the next one begins; `null` when nobody will start one.
    pub next_at: Option<u64>,
}

/// Sums. `in_sync + pending + failing + refused = mirrors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Watched authors.
    pub authors: usize,
    /// Their repositories.
    pub repos: usize,
    /// Servers in use.
    pub servers: usize,
    /// (repository, server) pairs.
    pub mirrors: usize,
    /// Of those, how many the servers were seen to serve.
    pub in_sync: usize,
    /// Sent, not yet read back, or waiting for a signature.
    pub pending: usize,
    /// Failing, or on a server that is down.
    pub failing: usize,
    /// Refused by the server or blocked by the operator's policy.
    pub refused: usize,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedServer {
    /// Its address.
    pub url: ServerUrl,
    /// Whether it answered.
    pub reachable: bool,
    /// `<name> <version>`, as far as it said.
    pub software: Option<String>,
    /// Mirrors it is to hold.
    pub mirrors: usize,
    /// Of those, how many it was seen to serve.
    pub in_sync: usize,
    /// Why it is not used although it is configured; absent when it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
}

/// One repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRepository {
    /// Its coordinate.
    pub a: Coordinate,
    /// The authoritative state event.
    pub state: Option<EventId>,
    /// Verified copies.
    pub copies: usize,
    /// Copies there should be.
    pub wanted: usize,
    /// How many servers may vanish before its data is lost: there are verified copies until one more does.
    #[serde(default)]
    pub may_vanish: usize,
    /// Every mirror that is not in sync.
    pub problems: Vec<Problem>,
    /// What else people should know, such as LFS objects that are not mirrored; absent when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why one mirror is not in sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where.
    pub server: ServerUrl,
    /// How it stands.
    pub status: MirrorStatus,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: u64,
    /// When it is tried again, where it is.
    pub retry_at: Option<u64>,
}

/// What is not mirrored, and is meant not to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Repositories whose announcement was deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<Coordinate>,
    /// Repositories that somebody wants to be left alone, and who.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forgotten: BTreeMap<Coordinate, String>,
    /// How many repositories are private.
    #[serde(default)]
    pub private: usize,
    /// How many are beyond `max_repos_per_author`.
    #[serde(default)]
    pub over_limit: usize,
}

/// What is watched, and of which no announcement was found, on the servers or anywhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFound {
    /// Authors of whom there is none at all.
    pub authors: BTreeSet<PublicKey>,
    /// Single repositories.
    pub repos: BTreeSet<Coordinate>,
    /// How many relays were read to the end, beside the servers.
    pub relays: usize,
    /// Relays that could not be.
    pub unread: BTreeSet<RelayUrl>,
}

impl NotFound {
    fn is_empty(&self) -> bool {
        self.authors.is_empty() && self.repos.is_empty()
    }

    /// Takes out what is among `outcomes`: it was found since.
    fn without(mut self, outcomes: &[RepositoryOutcome]) -> Self {
        if !self.is_empty() {
            for outcome in outcomes {
                self.authors.remove(&outcome.coordinate.owner);
                self.repos.remove(&outcome.coordinate);
            }
        }
        if self.is_empty() { Self::default() } else { self }
    }
}

impl LeftAlone {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a cycle knows of one repository at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryOutcome {
    /// Its coordinate.
    pub coordinate: Coordinate,
    /// The authoritative state event.
    pub state: Option<EventId>,
    /// Its mirrors.
    pub mirrors: Mirrors,
    /// What people should know.
    pub notes: Vec<String>,
    /// How many copies there should be.
    pub wanted: usize,
    /// When its maintainers last rewrote its history, as seen here, Unix seconds.
    pub rewritten_at: Option<u64>,
    /// The state that is held, about which people may decide.
    pub held: Option<Held>,
    /// Mirrors that had to be sent something in this cycle, and are in sync now.
    pub repaired: usize,
}

impl RepositoryOutcome {
    /// What `record` says of a repository with such a `state`, and nothing else.
    #[must_use]
    pub fn recorded(coordinate: Coordinate, state: Option<EventId>, record: &RepositoryRecord) -> Self {
        Self {
            coordinate,
            state,
            mirrors: record.mirrors.clone(),
            notes: Vec::new(),
            wanted: record.wanted.unwrap_or(record.mirrors.len()),
            rewritten_at: record.rewritten_at,
            held: record.held.clone().filter(Held::is_waiting),
            repaired: 0,
        }
    }
}

/// What a cycle knows of one server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerOutcome {
    /// Its address.
    pub url: ServerUrl,
    /// Whether it answered.
    pub reachable: bool,
    /// `<name> <version>`.
    pub software: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is not used.
    pub unused: Option<String>,
}

impl Report {
    /// Puts a report together.
    #[must_use]
    pub fn of(
        cycle: CycleSummary,
        authors: &BTreeSet<PublicKey>,
        servers: &[ServerOutcome],
        outcomes: &[RepositoryOutcome],
        left_alone: LeftAlone,
    ) -> Self {
        Self::telling(cycle, authors, servers, outcomes, left_alone, NotFound::default())
    }

    /// The same, with what was `not_found`.
    #[must_use]
    pub fn telling(
        cycle: CycleSummary,
        authors: &BTreeSet<PublicKey>,
        servers: &[ServerOutcome],
        outcomes: &[RepositoryOutcome],
        left_alone: LeftAlone,
        not_found: NotFound,
    ) -> Self {
        let unused: BTreeSet<&ServerUrl> =
            servers.iter().filter(|server| server.unused.is_some()).map(|server| &server.url).collect();
        let mut totals = Totals {
            authors: authors.len(),
            repos: outcomes.len(),
            servers: servers.iter().filter(|server| server.unused.is_none()).count(),
            ..Totals::default()
        };
        let mut per_server: BTreeMap<&ServerUrl, (usize, usize)> = BTreeMap::new();
        // Nobody wants anything on a server that is denied, or of a repository that is.
        let wanted = outcomes.iter().filter(|outcome| outcome.copies_wanted() > 0);
        let mirrors = wanted.flat_map(|outcome| &outcome.mirrors);
        for (server, mirror) in mirrors.filter(|(server, _)| !unused.contains(server)) {
            totals.mirrors += 1;
            let counts = per_server.entry(server).or_default();
            counts.0 += 1;
            *match mirror.status {
                MirrorStatus::InSync => {
                    counts.1 += 1;
                    &mut totals.in_sync
                }
                MirrorStatus::Pending | MirrorStatus::AwaitingSignature => &mut totals.pending,
                MirrorStatus::Failing | MirrorStatus::Unreachable => &mut totals.failing,
                MirrorStatus::Refused | MirrorStatus::Blocked => &mut totals.refused,
            } += 1;
        }
        let servers = servers
            .iter()
            .map(|server| {
                let (mirrors, in_sync) = per_server.get(&server.url).copied().unwrap_or_default();
                ReportedServer {
                    url: server.url.clone(),
                    reachable: server.reachable,
                    software: server.software.clone(),
                    mirrors,
                    in_sync,
                    unused: server.unused.clone(),
                }
            })
            .collect();
        let software = SOFTWARE.to_owned();
        let report = Self {
            version: 1,
            software,
            cycle,
            totals,
            servers,
            repos: Vec::new(),
            truncated: 0,
            left_alone,
            not_found: not_found.without(outcomes),
            silent_inboxes: Vec::new(),
        };
        report.within(MAX_BYTES, outcomes, &unused)
    }

    /// Takes in repositories and what is left alone as long as the JSON has at most `max_bytes`. Those without problems
    /// come last, and those at risk are the first of them. One that is too long by itself costs no other its place.
    fn within(
        mut self,
        max_bytes: usize,
        outcomes: &[RepositoryOutcome],
        unused: &BTreeSet<&ServerUrl>,
    ) -> Self {
        let deleted = mem::take(&mut self.left_alone.deleted);
        let forgotten = mem::take(&mut self.left_alone.forgotten);
        let not_found = mem::take(&mut self.not_found);
        let all = outcomes.len() + deleted.len() + forgotten.len();
        let mut repos: Vec<_> = outcomes.iter().map(ReportedRepository::of).collect();
        let rank = |repo: &ReportedRepository| (!repo.is_troubled(unused), !repo.is_at_risk());
        repos.sort_by(|a, b| (rank(a), &a.a).cmp(&(rank(b), &b.a)));
        let (troubled, fine): (Vec<_>, Vec<_>) = repos.into_iter().partition(|repo| repo.is_troubled(unused));
        // Room for `truncated` to grow by some digits, and for the names of what may be absent.
        let mut room = max_bytes.saturating_sub(len_in_event(&self) + 192);
        self.repos = troubled.into_iter().filter(|repo| takes_in(&mut room, repo)).collect();
        self.not_found.relays = not_found.relays;
        self.not_found.repos = not_found.repos.into_iter().filter(|name| fits(&mut room, name)).collect();
        self.not_found.authors = not_found.authors.into_iter().filter(|key| fits(&mut room, key)).collect();
        self.not_found.unread = not_found.unread.into_iter().filter(|relay| fits(&mut room, relay)).collect();
        self.left_alone.forgotten = forgotten.into_iter().filter(|entry| fits(&mut room, entry)).collect();
        self.left_alone.deleted = deleted.into_iter().filter(|gone| fits(&mut room, gone)).collect();
        self.repos.extend(fine.into_iter().filter(|repo| takes_in(&mut room, repo)));
        let alone = self.left_alone.deleted.len() + self.left_alone.forgotten.len();
        self.truncated = all - self.repos.len() - alone;
        self
    }

    /// Whether everything wanted is in sync. When somebody is watched and nothing is known to be wanted, every
    /// server must have said so, and where there are relays, one of them.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        let heard = self.servers.iter().all(|server| server.reachable || server.unused.is_some());
        let unused = self.unused();
        let missing = &self.not_found;
        let read = missing.relays > 0 || missing.unread.is_empty();
        self.totals.in_sync == self.totals.mirrors
            && self.repos.iter().all(|repo| !repo.is_troubled(&unused))
            && (heard || self.totals.repos > 0 || self.totals.authors == 0)
            && missing.repos.is_empty()
            && (read || missing.authors.is_empty())
    }
}

impl Report {
    /// The servers that are not used, such as those that rules keep away.
    #[must_use]
    pub fn unused(&self) -> BTreeSet<&ServerUrl> {
        self.servers.iter().filter(|server| server.unused.is_some()).map(|server| &server.url).collect()
    }
}

/// The length of `value` as JSON in the content of an event, which is JSON itself.
fn len_in_event(value: &impl Serialize) -> usize {
    let escaped = |json: String| json.len() + json.matches(['"', '\\']).count();
    serde_json::to_string(value).map_or(usize::MAX, escaped)
}

/// Whether `entry` and a comma fit into `room`, which then is less.
fn fits(room: &mut usize, entry: &impl Serialize) -> bool {
    let left = room.checked_sub(len_in_event(entry).saturating_add(1));
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// The same for a repository; where nothing is left none is written out to be measured.
fn takes_in(room: &mut usize, repo: &ReportedRepository) -> bool {
    /// Less takes no repository: its coordinate and the names of the fields, in bytes.
    const SHORTEST: usize = 128;
    *room >= SHORTEST && fits(room, repo)
}

impl RepositoryOutcome {
    fn are(&self, status: MirrorStatus) -> usize {
        self.mirrors.values().filter(|mirror| mirror.status == status).count()
    }

    /// See [`ReportedRepository::wanted`]. What is empty has no mirrors, and lacks none.
    pub(super) fn copies_wanted(&self) -> usize {
        if self.mirrors.is_empty() { 0 } else { self.wanted }
    }

    /// See [`ReportedRepository::may_vanish`]. What waits to be listed is there, in the bot's namespace.
    fn may_vanish(&self) -> usize {
        let there = self.are(MirrorStatus::InSync) + self.are(MirrorStatus::AwaitingSignature);
        there.saturating_sub(1)
    }
}

impl ReportedRepository {
    /// Whether one server more or less decides if there is anything left: it has something to lose, and fewer than two
    /// verified copies.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        self.state.is_some() && self.wanted > 0 && self.may_vanish == 0
    }

    /// Whether anything is wrong with it that was not meant to be so: it has mirrors that are not in sync, elsewhere
    /// than on the `unused` servers. What a rule denies is wanted nowhere.
    #[must_use]
    pub fn is_troubled(&self, unused: &BTreeSet<&ServerUrl>) -> bool {
        self.wanted > 0 && self.problems.iter().any(|problem| !unused.contains(&problem.server))
    }

    fn of(outcome: &RepositoryOutcome) -> Self {
        let problems = outcome
            .mirrors
            .iter()
            .filter(|(_, mirror)| mirror.status != MirrorStatus::InSync)
            .map(|(server, mirror)| Problem {
                server: server.clone(),
                status: mirror.status,
                reason: mirror.reason.clone().unwrap_or_default(),
                since: mirror.since,
                retry_at: mirror.retry_at,
            })
            .collect();
        Self {
            a: outcome.coordinate.clone(),
            state: outcome.state,
            copies: outcome.are(MirrorStatus::InSync),
            wanted: outcome.copies_wanted(),
            may_vanish: outcome.may_vanish(),
            problems,
            // A note may quote what came from outside.
            notes: outcome.notes.iter().map(|note| clean(note, NOTE_MAX)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
