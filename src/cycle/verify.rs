//! The slow, deep check: do the servers list exactly the refs the maintainers signed?

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use grasp_mirror_commands::clean;
use nostr::prelude::Timestamp;

use super::{CycleError, survey::Survey, world::World};
use crate::{model::refs::ObjectId, plan::converge::Wanted, report::tables::Finding};

/// Mirrors compared at the same time.
const AT_ONCE: usize = 8;

impl World {
    /// Asks every server who it is, and every mirror for its refs.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails.
    pub async fn verify(&self) -> Result<(Survey, Vec<Finding>), CycleError> {
        let survey = self.survey(Timestamp::now()).await?;
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
        for subject in &survey.subjects {
            let Some(obstacle) = &subject.obstacle else { continue };
            findings.extend(subject.places.keys().map(|server| Finding {
                repo: subject.repository.coordinate.clone(),
                server: server.clone(),
                ok: false,
                reason: Some(obstacle.reason().to_owned()),
            }));
        }
        findings.sort_by(|a, b| (&a.repo, &a.server).cmp(&(&b.repo, &b.server)));
        Ok((survey, findings))
    }

    async fn compare(&self, wanted: &Wanted) -> Result<(), String> {
        let path = &wanted.place.path;
        let url = wanted.server.clone_url(&path.owner, &path.identifier);
        let listed = self.git.ls_refs(&url).await.map_err(|error| error.to_string())?;
        let listed: BTreeMap<&str, ObjectId> = listed
            .refs
            .iter()
            .filter(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"))
            .map(|(name, id)| (name.as_str(), *id))
            .collect();
        for (name, id) in &wanted.refs {
            match listed.get(name.as_str()) {
                Some(there) if there == id => {}
                Some(there) => return Err(format!("{name} is {there}, signed is {id}")),
                None => return Err(format!("{name} is missing")),
            }
        }
        match listed.keys().find(|name| !wanted.refs.contains_key(**name)) {
            Some(extra) => Err(format!("{extra} is there, but nobody signed it")),
            None => Ok(()),
        }
    }
}
