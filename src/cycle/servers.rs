//! Which servers there are, and what they say about themselves.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use nostr::prelude::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    CycleError,
    kept::Kept,
    world::{AT_ONCE, World},
};
use crate::{
    model::{advertised::Advertised, server::ServerUrl},
    plan::{
        placement::Grasp,
        record::not_ahead,
        retry::ServerTries,
        spread::{Candidate, LOST_AFTER_SECS},
    },
    relay::nip11::{self, Nip11Error},
    report::document::ServerOutcome,
};

/// The record that remembers servers between runs.
const RECORD: &str = "servers";

/// The record of the servers that are down, and since when, Unix seconds.
const DOWN: &str = "down";

/// The record that says when servers are asked again that could not be worked with.
const TRIES: &str = "server-tries";

/// What is known of one server.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it is, as it last said.
    pub grasp: Grasp,
    /// Its program.
    pub software: Option<String>,
    /// What it says it can do and demands; nothing while it is down.
    pub(super) advertised: Advertised,
    /// Why it cannot be reached now; `None` when it answered.
    pub down: Option<String>,
    /// Whether it has been down for longer than a day.
    pub is_lost: bool,
    /// When it is tried again, Unix seconds, while it is down.
    pub(super) retry_at: Option<u64>,
    /// For how long it wants to be left alone, in seconds.
    told_secs: Option<u64>,
    /// Whether it was not asked in this run: its next try is later.
    pub(super) left_alone: bool,
}

impl Server {
    pub(super) fn new(grasp: Grasp, software: Option<String>, down: Option<String>) -> Self {
        Self {
            grasp,
            software,
            advertised: Advertised::default(),
            down,
            is_lost: false,
            retry_at: None,
            told_secs: None,
            left_alone: false,
        }
    }

    /// Whether it can be worked with now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.down.is_none() && !matches!(self.grasp, Grasp::NotGrasp(_))
    }

    pub(super) fn outcome(&self, url: &ServerUrl) -> ServerOutcome {
        ServerOutcome {
            url: url.clone(),
            reachable: self.down.is_none(),
            software: self.software.clone(),
            reason: self.down.clone(),
            unused: match &self.grasp {
                Grasp::NotGrasp(reason) => Some(format!("no GRASP server: {reason}")),
                _ => None,
            },
        }
    }
}

/// What a server once said, so that one that is down keeps its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    archive_only: bool,
    software: Option<String>,
}

impl World {
    /// Asks every server the bot mirrors to, in general or for a few repositories, who it is (NIP-11).
    pub(super) async fn ask_servers(
        &self,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<BTreeMap<ServerUrl, Server>, CycleError> {
        let known = self.settings.servers.iter().chain(self.policy.excepted_servers());
        let known = known.filter(|server| self.policy.admits_server(server).is_ok()).cloned().collect();
        self.introduced(known, kept, now).await
    }

    /// Remembers since when servers are down, and marks those that are lost.
    pub(super) async fn note_down(
        &self,
        servers: &mut BTreeMap<ServerUrl, Server>,
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let note = |down: &mut BTreeMap<ServerUrl, u64>| {
            for (url, server) in servers {
                server.is_lost = false;
                if server.down.is_some() {
                    let since = down.entry(url.clone()).or_insert(now.as_secs());
                    *since = not_ahead(*since, 0, now);
                    server.is_lost = since.saturating_add(LOST_AFTER_SECS) < now.as_secs();
                } else {
                    down.remove(url);
                }
            }
        };
        Ok(self.records.update(DOWN, note).await?)
    }

    /// The servers among which a repository's are chosen, those included that rules keep away.
    pub(super) fn candidates(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        kept: &Kept,
    ) -> BTreeMap<ServerUrl, Candidate> {
        let excepted: BTreeSet<&ServerUrl> = self.policy.excepted_servers().collect();
        let is_general = |url: &ServerUrl| self.settings.servers.contains(url) || !excepted.contains(url);
        let is_found = |url: &ServerUrl| !self.settings.servers.contains(url) && !excepted.contains(url);
        let known = servers.iter().map(|(url, server)| {
            let candidate = Candidate {
                grasp: server.grasp.clone(),
                is_general: is_general(url),
                is_found: is_found(url),
                is_up: server.is_up(),
                is_lost: server.is_lost,
            };
            (url.clone(), candidate)
        });
        let denied = self.denied(kept).map(|url| {
            let candidate = Candidate {
                grasp: Grasp::Unknown,
                is_general: is_general(url),
                is_found: is_found(url),
                is_up: false,
                is_lost: false,
            };
            (url.clone(), candidate)
        });
        known.chain(denied).collect()
    }

    /// The servers that would be used but for a rule.
    fn denied<'a>(&'a self, kept: &'a Kept) -> impl Iterator<Item = &'a ServerUrl> {
        let found = kept.worked_out.iter().flat_map(|known| &known.denied);
        let all: BTreeSet<&ServerUrl> =
            self.settings.servers.iter().chain(self.policy.excepted_servers()).chain(found).collect();
        all.into_iter().filter(|url| self.policy.admits_server(url).is_err())
    }

    /// Who these servers are: as they said lately, else asked now. A daemon leaves one alone that was down until its
    /// next try.
    pub(super) async fn introduced(
        &self,
        servers: BTreeSet<ServerUrl>,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<BTreeMap<ServerUrl, Server>, CycleError> {
        let good_for = self.config.servers.health_interval.as_secs();
        let mut found = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        let mut tries: BTreeMap<ServerUrl, ServerTries> = BTreeMap::new();
        if self.is_patient() && servers.iter().any(|url| !kept.introduced.contains_key(url)) {
            tries = self.records.read(TRIES).await?.unwrap_or_default();
            tries.retain(|url, tries| {
                tries.waits(now) && (tries.told || !self.awake.contains(url.relay_url()))
            });
        }
        let mut remembered: BTreeMap<ServerUrl, Remembered> = BTreeMap::new();
        if !tries.is_empty() {
            remembered = self.records.read(RECORD).await?.unwrap_or_default();
        }
        for url in servers {
            if let Some(tries) = tries.get(&url) {
                let server = down(remembered.get(&url), tries.reason.clone());
                found.insert(url, Server { retry_at: tries.retry_at, left_alone: true, ..server });
                continue;
            }
            match kept.introduced.get(&url) {
                Some((server, at)) if *at <= now && now.as_secs() < at.as_secs().saturating_add(good_for) => {
                    found.insert(url, server.clone());
                }
                _ => {
                    unknown.insert(url);
                }
            }
        }
        if !unknown.is_empty() {
            let asked = self.ask(unknown).await?;
            for (url, server) in &asked {
                kept.introduced.remove(url);
                if server.down.is_none() {
                    kept.introduced.insert(url.clone(), (server.clone(), now));
                }
            }
            found.extend(asked);
        }
        Ok(found)
    }

    /// Writes down which servers were worked with in this run, and when the others are tried again.
    pub(super) async fn note_tries(
        &self,
        servers: &mut BTreeMap<ServerUrl, Server>,
    ) -> Result<(), CycleError> {
        // The look took its time.
        let now = Timestamp::now();
        let note = |all: &mut BTreeMap<ServerUrl, ServerTries>| {
            all.retain(|url, tries| servers.contains_key(url) || tries.waits(now));
            for (url, server) in servers.iter_mut().filter(|(_, server)| !server.left_alone) {
                let Some(reason) = &server.down else {
                    all.remove(url);
                    continue;
                };
                let tries = all.entry(url.clone()).or_default();
                if !self.afresh.is_empty() {
                    *tries = ServerTries::default();
                }
                tries.failed(url, &self.backoff(), server.told_secs, reason, now);
                server.retry_at = tries.retry_at;
                let next_try_secs = tries.retry_at.map(|at| at.saturating_sub(now.as_secs()));
                tracing::warn!(server = %url, reason, next_try_secs, failures = tries.failures, "the server is down");
            }
        };
        Ok(self.records.update(TRIES, note).await?)
    }

    /// The servers that the operator's own rules keep away; they are not even asked who they are.
    pub(super) fn denied_servers(&self, kept: &Kept) -> Vec<ServerOutcome> {
        let denied = self.denied(kept).filter_map(|url| {
            let rule = self.policy.admits_server(url).err()?;
            let unused = Some(format!("blocked: {rule}"));
            Some(ServerOutcome { url: url.clone(), reachable: false, software: None, reason: None, unused })
        });
        denied.collect()
    }

    async fn ask(&self, servers: BTreeSet<ServerUrl>) -> Result<BTreeMap<ServerUrl, Server>, CycleError> {
        let remembered: BTreeMap<ServerUrl, Remembered> =
            self.records.read(RECORD).await?.unwrap_or_default();
        let timeout = self.config.limits.connect_timeout;
        let answers: Vec<(ServerUrl, Result<nip11::Introduction, Nip11Error>)> = stream::iter(servers)
            .map(|server| async move {
                let asked_at = Instant::now();
                let answer = nip11::ask(&self.http, server.http_base(), timeout).await;
                self.note_asked(&server, answer.is_ok().then(|| asked_at.elapsed()));
                (server, answer)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let found = answers.into_iter().map(|(url, answer)| {
            let server = read_answer(remembered.get(&url), answer);
            (url, server)
        });
        let found: BTreeMap<ServerUrl, Server> = found.collect();
        let remember = |remembered: &mut BTreeMap<ServerUrl, Remembered>| {
            for (url, server) in &found {
                match (&server.down, &server.grasp) {
                    // Said when it is known when it is tried again.
                    (Some(_), _) => {}
                    (None, Grasp::NotGrasp(reason)) => {
                        tracing::warn!(server = %url, reason, "no GRASP server; it is not used");
                        remembered.remove(url);
                    }
                    (None, grasp) => {
                        let archive_only = *grasp == Grasp::ArchiveOnly;
                        let software = server.software.clone();
                        remembered.insert(url.clone(), Remembered { archive_only, software });
                    }
                }
            }
        };
        self.records.update(RECORD, remember).await?;
        Ok(found)
    }
}

/// What an answer says about a server, given what it said before. One that was a GRASP server and now answers
/// nonsense is down, not something else: it keeps its mirrors.
fn read_answer(before: Option<&Remembered>, answer: Result<nip11::Introduction, Nip11Error>) -> Server {
    let error = match answer {
        Ok(introduction) => {
            let advertised = introduction.advertised;
            return Server { advertised, ..Server::new(introduction.grasp, introduction.software, None) };
        }
        Err(error) => error,
    };
    match (before, &error) {
        (None, Nip11Error::NoDocument(_)) => Server::new(Grasp::NotGrasp(error.to_string()), None, None),
        (_, Nip11Error::Down { retry_after_secs, .. }) => {
            Server { told_secs: *retry_after_secs, ..down(before, error.to_string()) }
        }
        (Some(_), Nip11Error::NoDocument(_)) => down(before, error.to_string()),
    }
}

/// A server that is down, as it is remembered.
fn down(before: Option<&Remembered>, reason: String) -> Server {
    let grasp = match before {
        Some(known) if known.archive_only => Grasp::ArchiveOnly,
        Some(_) => Grasp::Full,
        None => Grasp::Unknown,
    };
    Server::new(grasp, before.and_then(|known| known.software.clone()), Some(reason))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::prelude::Keys;

    use super::*;
    use crate::{config::Config, cycle::World, store::Store};

    #[tokio::test]
    async fn what_jobs_find_out_at_the_same_time_is_all_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let (config, keys, now) = (Config::default(), Keys::generate(), Timestamp::now());
        let jobs = ["one", "two", "three", "four"].map(|name| {
            let url: ServerUrl = format!("wss://{name}.example").parse().unwrap();
            (World::new(&config, &keys, &store).unwrap(), url)
        });
        let notes = jobs.iter().map(|(world, url)| async move {
            let server = Server::new(Grasp::Full, None, Some("refused".to_owned()));
            let mut servers = BTreeMap::from([(url.clone(), server)]);
            world.note_down(&mut servers, now).await?;
            world.note_tries(&mut servers).await
        });
        for noted in futures::future::join_all(notes).await {
            noted.unwrap();
        }
        let records = &jobs[0].0.records;
        let down: BTreeMap<ServerUrl, u64> = records.read(DOWN).await.unwrap().unwrap();
        let tries: BTreeMap<ServerUrl, ServerTries> = records.read(TRIES).await.unwrap().unwrap();
        assert_eq!((down.len(), tries.len()), (4, 4));
    }
}
