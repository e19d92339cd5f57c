//! The slow, deep check: do the servers list exactly the refs the maintainers signed?

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, future::join_all, stream};
use grasp_mirror_commands::clean;
use nostr::prelude::{Filter, Kind, RelayUrl, Timestamp};

use super::{CycleError, kept::Kept, subject::Subject, world::World};
use crate::{
    config::Bot,
    git::wire::WireError,
    model::{refs::ObjectId, server::ServerUrl},
    plan::{converge::Wanted, placement::Place},
    report::{
        audit::difference,
        tables::{Finding, RelayFinding, Verified},
    },
    transfer::Asked,
};

/// Mirrors compared at the same time.
const AT_ONCE: usize = 8;

impl World {
    /// Asks every relay, every server and every signer who it is, and every mirror for its refs; looks at the operator's
    /// rules.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub async fn verify(&self) -> Result<Verified, CycleError> {
        let survey = self.survey(&mut Kept::default(), None, Timestamp::now()).await?;
        let mut checks: Vec<(&Wanted, Option<String>)> = Vec::new();
        for wanted in survey.subjects.iter().flat_map(|subject| subject.wanted.values()) {
            let down = survey.servers.get(&wanted.server).and_then(|server| server.down.clone());
            checks.push((wanted, down));
        }
        let mut findings: Vec<Finding> = stream::iter(checks)
            .map(|(wanted, down)| async move {
                let reason = match down {
                    Some(reason) => Some(format!("the server is down: {reason}")),
                    None => self.compare(wanted).await.err().map(|reason| clean(&reason, 500)),
                };
                Finding {
                    repo: wanted.repository.clone(),
                    server: wanted.server.clone(),
                    ok: reason.is_none(),
                    reason,
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        // What is denied is not wanted.
        for subject in survey.subjects.iter().filter(|subject| !subject.is_denied) {
            let Some(obstacle) = &subject.obstacle else { continue };
            findings.extend(subject.places.keys().map(|server| Finding {
                repo: subject.repository.coordinate.clone(),
                server: server.clone(),
                ok: false,
                reason: Some(obstacle.reason().to_owned()),
            }));
        }
        findings.sort_by(|a, b| (&a.repo, &a.server).cmp(&(&b.repo, &b.server)));
        let signers = self.signers.examine(&self.catalogued().await?).await?;
        Ok(Verified {
            relays: self.try_relays().await,
            servers: survey.server_outcomes(),
            mirrors: findings,
            signers,
            contradictions: self.contradictions(),
        })
    }

    /// Reads something from each of the operator's relays.
    async fn try_relays(&self) -> Vec<RelayFinding> {
        let Bot { relays, inbox_relays, index_relays, .. } = &self.config.bot;
        let all: BTreeSet<&RelayUrl> = relays.iter().chain(inbox_relays).chain(index_relays).collect();
        let profile = Filter::new().kind(Kind::Metadata).author(self.bot());
        let looks = all.into_iter().map(|relay| async {
            let read = self.relays.read(relay, vec![profile.clone()]).await;
            let reason = read.err().map(|error| clean(&error.to_string(), 500));
            RelayFinding { relay: relay.clone(), own: relays.contains(relay), ok: reason.is_none(), reason }
        });
        join_all(looks).await
    }

    async fn compare(&self, wanted: &Wanted) -> Result<(), String> {
        let listed = self.listed(&wanted.server, &wanted.place).await.map_err(|error| error.to_string())?;
        difference(&wanted.refs, &listed).map_or(Ok(()), Err)
    }

    /// Notes which servers serve the state and list other refs all the same: they have lost git data. Asks `all`, or those
    /// that are to be looked at `again`, and these are once they have shown their refs.
    pub(super) async fn compare_refs(&self, subject: &mut Subject, all: bool, again: &BTreeSet<ServerUrl>) {
        let served = subject.wanted.iter().filter(|(server, wanted)| {
            let seen = subject.seen.get(*server).filter(|_| all || again.contains(*server));
            seen.is_some_and(|seen| wanted.state.is_some_and(|state| seen.served.contains(&state)))
        });
        let looks = served.map(|(server, wanted)| async move {
            match self.listed_if_heard(server, &wanted.place).await {
                Ok(listed) => Some((server.clone(), difference(&wanted.refs, &listed))),
                Err(reason) => {
                    tracing::warn!(%server, repository = %wanted.repository, reason, "its refs were not compared");
                    None
                }
            }
        });
        for (server, difference) in join_all(looks).await.into_iter().flatten() {
            if let Some(mirror) = subject.record.mirrors.get_mut(&server).filter(|_| again.contains(&server))
            {
                mirror.look_again = None;
            }
            let Some(difference) = difference else { continue };
            tracing::info!(%server, repository = %subject.repository.coordinate, difference, "the server has lost git data");
            if let Some(seen) = subject.seen.get_mut(&server) {
                seen.refs_differ = true;
            }
        }
    }

    /// The heads and tags that a server lists, unless it leaves such questions without an answer: whoever compares holds a
    /// place that others wait for.
    async fn listed_if_heard(
        &self,
        server: &ServerUrl,
        place: &Place,
    ) -> Result<BTreeMap<String, ObjectId>, String> {
        let relay = server.relay_url();
        self.transfer.is_heard(relay)?;
        let listed = self.listed(server, place).await;
        let silence = listed.as_ref().err().filter(|error| error.is_silence()).map(ToString::to_string);
        self.transfer.note_answer(relay, Asked::Refs, silence.as_deref());
        listed.map_err(|error| error.to_string())
    }

    /// The heads and tags that a server lists.
    pub(super) async fn listed(
        &self,
        server: &ServerUrl,
        place: &Place,
    ) -> Result<BTreeMap<String, ObjectId>, WireError> {
        let url = server.clone_url(&place.path.owner, &place.path.identifier);
        let listed = self.git.ls_refs(&url).await?.refs;
        let mirrored = |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
        Ok(listed.into_iter().filter(|(name, _)| mirrored(name)).collect())
    }
}
