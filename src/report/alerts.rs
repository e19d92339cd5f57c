//! What the bot tells without being asked: only what has changed, and not more often than every ten minutes.
//!
//! After each cycle a [`Snapshot`] is taken; [`alerts_between`] two of them are the transitions, and a [`Digest`]
//! holds them until they may be told.

use std::collections::BTreeMap;

use grasp_mirror_commands::{clean, count, moment};
use nostr::prelude::RelayUrl;
use serde::{Deserialize, Serialize};

use super::{
    answers::{brief, named},
    document::{LeftAlone, Report, RepositoryOutcome},
};
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl, status::MirrorStatus},
    plan::{
        hold::{Held, sayable},
        record::MirrorRecord,
    },
};

/// At most one digest in so many seconds.
pub const EVERY_SECS: u64 = 600;

/// The most alerts held; the rest is only counted.
const MAX_WAITING: usize = 100;

/// The most lines of a digest.
const MAX_LINES: usize = 12;

/// Up to so many repositories have a line of their own.
const MAX_SINGLE: usize = 3;

/// A mirror that was in sync and is being brought a new state still counts as a copy, for so many tries.
const TRIES: u32 = 3;

/// How things stood after a cycle, as far as alerts go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    repos: BTreeMap<Coordinate, Repo>,
    /// The servers in use; with why, where one did not answer.
    servers: BTreeMap<ServerUrl, Option<String>>,
    /// What is left alone because somebody wants it so, and who; `None` before that was noted.
    #[serde(default)]
    left_alone: Option<BTreeMap<Coordinate, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Repo {
    copies: usize,
    wanted: usize,
    rewritten_at: Option<u64>,
    /// The state that is held.
    #[serde(default)]
    held: Option<Held>,
}

/// Something that has changed, and that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alert {
    /// A server does not answer any more.
    ServerLost {
        /// Which one.
        server: ServerUrl,
        /// What happened, where it is known.
        reason: String,
    },
    /// It answers again.
    ServerBack {
        /// Which one.
        server: ServerUrl,
    },
    /// A repository has lost copies, and has fewer than wanted.
    TooFewCopies {
        /// Which one.
        repo: Coordinate,
        /// Copies there were.
        before: usize,
        /// Copies there are.
        copies: usize,
        /// Copies there should be.
        wanted: usize,
    },
    /// It has more again. Never told by itself: it takes back what was not told yet.
    MoreCopies {
        /// Which one.
        repo: Coordinate,
        /// Copies there are.
        copies: usize,
        /// Copies there should be.
        wanted: usize,
    },
    /// Its maintainers rewrote its history.
    Rewritten {
        /// Which one.
        repo: Coordinate,
        /// When it was seen here, Unix seconds.
        at: u64,
    },
    /// A state that takes most of it away is held.
    Held {
        /// Which one.
        repo: Coordinate,
        /// What is held, and until when.
        held: Held,
    },
    /// Somebody who may say so wants it left alone.
    OptedOut {
        /// Which one.
        repo: Coordinate,
        /// Who, and how.
        reason: String,
    },
    /// Nobody wants it left alone any more.
    WantedAgain {
        /// Which one.
        repo: Coordinate,
    },
    /// A command failed after it was answered.
    CommandFailed {
        /// The command, as it is shown.
        command: String,
        /// Why.
        reason: String,
    },
    /// Something about a remote signer, that a person may have to do something about.
    Signer {
        /// What, for the operator's eyes: it may hold an address that nobody else should open.
        text: String,
    },
    /// An inbox relay took a message for the bot and did not bring it.
    SilentInbox {
        /// Which one.
        relay: RelayUrl,
    },
}

impl Snapshot {
    /// How things stand after a cycle. `left_alone` is said by itself, since the report may not have room for all of it.
    #[must_use]
    pub fn of(report: &Report, outcomes: &[RepositoryOutcome], left_alone: &LeftAlone) -> Self {
        let repos = outcomes.iter().map(|outcome| {
            let repo = Repo {
                // While a state is held, servers have what they had.
                copies: match outcome.held {
                    Some(_) => mirrors_read_back(outcome),
                    None => outcome.mirrors.values().filter(|mirror| counts(mirror)).count(),
                },
                wanted: outcome.copies_wanted(),
                rewritten_at: outcome.rewritten_at,
                held: outcome.held.clone(),
            };
            (outcome.coordinate.clone(), repo)
        });
        let why = |server: &ServerUrl| {
            let mirrors = outcomes.iter().filter_map(|outcome| outcome.mirrors.get(server));
            let mut down = mirrors.filter(|mirror| mirror.status == MirrorStatus::Unreachable);
            brief(down.find_map(|mirror| mirror.reason.as_deref()).unwrap_or_default())
        };
        let used = report.servers.iter().filter(|server| server.unused.is_none());
        let servers =
            used.map(|server| (server.url.clone(), (!server.reachable).then(|| why(&server.url)))).collect();
        Self { repos: repos.collect(), servers, left_alone: Some(left_alone.forgotten.clone()) }
    }
}

/// Whether a mirror is a copy to rely on.
fn counts(mirror: &MirrorRecord) -> bool {
    match mirror.status {
        MirrorStatus::InSync | MirrorStatus::AwaitingSignature => true,
        MirrorStatus::Pending => mirror.read_back_at.is_some() && mirror.failures < TRIES,
        _ => false,
    }
}

fn mirrors_read_back(outcome: &RepositoryOutcome) -> usize {
    outcome.mirrors.values().filter(|mirror| mirror.read_back_at.is_some()).count()
}

/// What has changed from `old` to `new`. What is seen for the first time has not changed; but that a state is held is
/// told also then, since time passes.
#[must_use]
pub fn alerts_between(old: &Snapshot, new: &Snapshot) -> Vec<Alert> {
    let mut alerts = Vec::new();
    for (server, down) in &new.servers {
        let server = server.clone();
        match (old.servers.get(&server), down) {
            (Some(None), Some(reason)) => alerts.push(Alert::ServerLost { server, reason: reason.clone() }),
            (Some(Some(_)), None) => alerts.push(Alert::ServerBack { server }),
            _ => {}
        }
    }
    for (repo, now) in &new.repos {
        let before = old.repos.get(repo);
        let repo = repo.clone();
        let told = before.and_then(|before| before.held.as_ref()).map(|held| held.state);
        if let Some(held) = now.held.as_ref().filter(|held| told != Some(held.state)) {
            alerts.push(Alert::Held { repo: repo.clone(), held: held.clone() });
        }
        let Some(before) = before else { continue };
        let Repo { copies, wanted, .. } = *now;
        // Some mirrors are refused for good, so what was below before may well fall further.
        if copies < before.copies && copies < wanted {
            alerts.push(Alert::TooFewCopies { repo: repo.clone(), before: before.copies, copies, wanted });
        } else if copies > before.copies {
            alerts.push(Alert::MoreCopies { repo: repo.clone(), copies, wanted });
        }
        if let Some(at) = now.rewritten_at.filter(|at| before.rewritten_at.is_none_or(|then| then < *at)) {
            alerts.push(Alert::Rewritten { repo, at });
        }
    }
    if let (Some(before), Some(now)) = (&old.left_alone, &new.left_alone) {
        let opted_out = now.iter().filter(|(repo, _)| !before.contains_key(*repo));
        alerts.extend(
            opted_out.map(|(repo, reason)| Alert::OptedOut { repo: repo.clone(), reason: reason.clone() }),
        );
        let back = before.keys().filter(|repo| !now.contains_key(*repo) && new.repos.contains_key(*repo));
        alerts.extend(back.map(|repo| Alert::WantedAgain { repo: repo.clone() }));
    }
    alerts
}

/// Alerts that are not told yet, and when the last ones were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    waiting: Vec<Alert>,
    /// Alerts beyond what is held.
    #[serde(default)]
    left_out: usize,
    /// Unix seconds.
    #[serde(default)]
    told_at: Option<u64>,
}

impl Digest {
    /// Takes in `alerts`. One that undoes another that is still waiting takes it away instead: a server that was
    /// gone and is back before anybody heard of it is no news.
    pub fn add(&mut self, alerts: impl IntoIterator<Item = Alert>) {
        for alert in alerts {
            let known = self.waiting.iter().position(|waiting| waiting.is_about_what(&alert));
            match known.map(|at| self.waiting.remove(at)) {
                Some(waiting) => self.waiting.extend(waiting.joined_with(alert)),
                None if matches!(alert, Alert::MoreCopies { .. }) => {}
                None if self.waiting.len() >= MAX_WAITING => self.left_out += 1,
                None => self.waiting.push(alert),
            }
        }
    }

    /// When there is something to tell, Unix seconds; `None` while there is nothing.
    #[must_use]
    pub fn due_at(&self) -> Option<u64> {
        let any = !self.waiting.is_empty() || self.left_out > 0;
        any.then(|| self.told_at.map_or(0, |at| at.saturating_add(EVERY_SECS)))
    }

    /// What is to be told at `now` (Unix seconds), once: the digest is empty then.
    #[must_use]
    pub fn due(&mut self, now: u64) -> Option<String> {
        // A clock that was set back must not keep the bot silent for long.
        let too_early = self.told_at.is_some_and(|at| at.abs_diff(now) < EVERY_SECS);
        if too_early || self.due_at().is_none() {
            return None;
        }
        self.told_at = Some(now);
        let mut lines = lines(&std::mem::take(&mut self.waiting));
        let left_out = std::mem::take(&mut self.left_out) + lines.len().saturating_sub(MAX_LINES);
        lines.truncate(MAX_LINES);
        if left_out > 0 {
            lines.push(format!("… and {left_out} more. Send: status"));
        }
        Some(lines.join("\n"))
    }
}

impl Alert {
    /// Whether both say something of the same thing, so that one line is enough.
    fn is_about_what(&self, other: &Self) -> bool {
        use Alert::{
            Held, MoreCopies, OptedOut, Rewritten, ServerBack, ServerLost, TooFewCopies, WantedAgain,
        };
        match (self, other) {
            (
                ServerLost { server: a, .. } | ServerBack { server: a },
                ServerLost { server: b, .. } | ServerBack { server: b },
            ) => a == b,
            (
                OptedOut { repo: a, .. } | WantedAgain { repo: a },
                OptedOut { repo: b, .. } | WantedAgain { repo: b },
            ) => a == b,
            (TooFewCopies { repo: a, .. }, TooFewCopies { repo: b, .. } | MoreCopies { repo: b, .. })
            | (Rewritten { repo: a, .. }, Rewritten { repo: b, .. })
            | (Held { repo: a, .. }, Held { repo: b, .. }) => a == b,
            _ => self == other,
        }
    }

    /// What is left to tell of this one after a `newer` one about the same thing; `None` when all is as before.
    fn joined_with(self, newer: Self) -> Option<Self> {
        use Alert::{MoreCopies, OptedOut, ServerBack, ServerLost, TooFewCopies, WantedAgain};
        match (self, newer) {
            (ServerLost { .. }, ServerBack { .. })
            | (ServerBack { .. }, ServerLost { .. })
            | (OptedOut { .. }, WantedAgain { .. })
            | (WantedAgain { .. }, OptedOut { .. }) => None,
            (TooFewCopies { before, .. }, MoreCopies { copies, wanted, .. })
                if copies >= before.min(wanted) =>
            {
                None
            }
            (
                TooFewCopies { before, .. },
                TooFewCopies { repo, copies, wanted, .. } | MoreCopies { repo, copies, wanted },
            ) => Some(TooFewCopies { repo, before, copies, wanted }),
            (_, newer) => Some(newer),
        }
    }
}

/// One line an alert, servers first; many repositories share one.
fn lines(alerts: &[Alert]) -> Vec<String> {
    let (mut servers, mut short, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for alert in alerts {
        match alert {
            Alert::ServerLost { server, reason } => {
                let reason = clean(reason, 120);
                let why = if reason.is_empty() { reason } else { format!(": {reason}") };
                servers.push(format!("! {} does not answer any more{why}", host(server)));
            }
            Alert::ServerBack { server } => servers.push(format!("✓ {} is back", host(server))),
            Alert::TooFewCopies { repo, copies, wanted, .. } => short.push((repo, copies, wanted)),
            Alert::MoreCopies { .. } => {}
            Alert::Rewritten { repo, .. } => {
                others.push(format!(
                    "! {}: its history was rewritten; I keep what was there before",
                    named(repo)
                ));
            }
            Alert::Held { repo, held } => {
                let (until, name) = (moment(held.until), sayable(&repo.identifier));
                let name = clean(&name, 60);
                others.push(format!(
                    "! {}: a new state {}. I hold it until {until}. Send: approve {name}, or: reject {name}",
                    named(repo),
                    held.loss()
                ));
            }
            Alert::OptedOut { repo, reason } => {
                others.push(format!("! {} is left alone from now on: {}", named(repo), clean(reason, 200)));
            }
            Alert::WantedAgain { repo } => others.push(format!("✓ {} is mirrored again", named(repo))),
            Alert::CommandFailed { command, reason } => {
                others.push(format!("! {} failed later: {}", clean(command, 120), clean(reason, 200)));
            }
            Alert::Signer { text } => others.push(clean(text, 600)),
            Alert::SilentInbox { relay } => {
                let relay = clean(relay.as_str_without_trailing_slash(), 100);
                others.push(format!(
                    "! {relay} does not deliver messages to me; choose others in bot.inbox_relays"
                ));
            }
        }
    }
    let mut lines = servers;
    if short.len() > MAX_SINGLE {
        let first = short
            .iter()
            .take(MAX_SINGLE)
            .map(|(repo, copies, wanted)| format!("{} ({copies} of {wanted})", clean(&repo.identifier, 40)));
        lines.push(format!(
            "! {} have fewer copies than wanted: {} and {} more",
            count(short.len(), "repository", "repositories"),
            first.collect::<Vec<_>>().join(", "),
            short.len() - MAX_SINGLE
        ));
    } else {
        lines.extend(short.iter().map(|(repo, copies, wanted)| {
            format!("! {} has {}, {wanted} wanted", named(repo), count(**copies, "copy", "copies"))
        }));
    }
    lines.extend(others);
    lines
}

fn host(server: &ServerUrl) -> String {
    clean(server.host(), 60)
}

#[cfg(test)]
mod tests;
