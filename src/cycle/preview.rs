//! `plan`: what a cycle would do, and why each mirror is placed as it is.

use nostr::prelude::Timestamp;

use super::{CycleError, kept::Kept, subject::Subject, world::World};
use crate::{
    model::{coordinate::Coordinate, server::ServerUrl},
    plan::{
        converge::{Outcome, Step, next_step},
        placement::Place,
        spread::why_placed,
    },
    report::tables::PlannedStep,
};

/// What a cycle would do, as far as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// The one repository that was asked for.
    pub repo: Option<Coordinate>,
    /// What it would do first for each mirror.
    pub steps: Vec<PlannedStep>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl World {
    /// What a cycle would do first for each mirror. Sends nothing to anyone.
    ///
    /// Of the repository that `which` picks from all there are, every server is told of, also those where it has no
    /// mirror; without one, every mirror of all repositories.
    ///
    /// # Errors
    ///
    /// [`CycleError`] when the store fails; what `which` says when it does not pick one.
    pub async fn plan<E>(
        &self,
        which: impl FnOnce(&[&Coordinate]) -> Result<Option<Coordinate>, E>,
    ) -> Result<Result<Preview, E>, CycleError> {
        let survey = self.survey(&mut Kept::default(), None, Timestamp::now()).await?;
        let all: Vec<&Coordinate> =
            survey.subjects.iter().map(|subject| &subject.repository.coordinate).collect();
        let only = match which(&all) {
            Ok(only) => only,
            Err(error) => return Ok(Err(error)),
        };
        let mut preview = Preview::default();
        for (url, server) in &survey.servers {
            let outcome = server.outcome(url);
            if let Some(reason) =
                outcome.unused.or_else(|| server.down.clone().map(|why| format!("down: {why}")))
            {
                preview.notes.push(format!("{}: {reason}", url.host()));
            }
        }
        for server in &survey.denied {
            let rule = server.unused.as_deref().unwrap_or_default();
            preview.notes.push(format!("{}: {rule}", server.url.host()));
        }
        for name in survey.not_found.repos.iter().filter(|_| only.is_none()) {
            preview.notes.push(format!("{}: nobody announces it", name.for_people()));
        }
        for subject in &survey.subjects {
            let coordinate = &subject.repository.coordinate;
            if only.as_ref().is_some_and(|only| only != coordinate) {
                continue;
            }
            let notes = subject.notes.iter().map(|note| format!("{}: {note}", coordinate.for_people()));
            preview.notes.extend(notes);
            let placed = subject.places.iter().map(|(server, place)| step(subject, server, place));
            preview.steps.extend(placed);
            if only.is_some() {
                preview.steps.extend(without_mirrors(subject));
            }
        }
        preview.repo = only;
        preview.steps.sort_by(|a, b| (&a.repo, &a.server).cmp(&(&b.repo, &b.server)));
        Ok(Ok(preview))
    }
}

fn step(subject: &Subject, server: &ServerUrl, place: &Place) -> PlannedStep {
    let rule = match &subject.obstacle {
        Some(obstacle) if subject.is_denied => format!("blocked: {}", obstacle.reason()),
        _ => why_placed(&subject.repository, server, place),
    };
    let step = match (&subject.obstacle, subject.wanted.get(server), subject.seen.get(server)) {
        (Some(obstacle), _, _) => format!("nothing: {}", obstacle.reason()),
        (None, None, _) => "nothing: the repository is empty".to_owned(),
        (None, Some(_), None) => "nothing: the server is down".to_owned(),
        (None, Some(wanted), Some(seen)) => describe(&next_step(wanted, seen)),
    };
    PlannedStep {
        repo: subject.repository.coordinate.clone(),
        server: server.clone(),
        placement: Some(place.placement),
        rule,
        step,
    }
}

/// The servers where it has no mirror, each with the rule.
fn without_mirrors(subject: &Subject) -> impl Iterator<Item = PlannedStep> {
    let barred = subject.barred.iter().map(|(server, (_, rule))| (server, format!("blocked: {rule}")));
    let left_out = subject.left_out.iter().map(|(server, why)| (server, why.to_string()));
    barred.chain(left_out).map(|(server, rule)| PlannedStep {
        repo: subject.repository.coordinate.clone(),
        server: server.clone(),
        placement: None,
        rule,
        step: "nothing".to_owned(),
    })
}

fn describe(step: &Step) -> String {
    match step {
        Step::Send(ids) => format!("send {} events, then the git data the server asks for", ids.len()),
        Step::Push => "push what git data is missing".to_owned(),
        Step::PushRequests(requests) => format!("push the commits of {} pull requests", requests.len()),
        Step::Look => "look whether the state is served".to_owned(),
        Step::LookAtConversation => "compare the conversation and send what is missing".to_owned(),
        Step::Settled(outcome) => match outcome {
            Outcome::InSync => "nothing: in sync".to_owned(),
            Outcome::Pending(reason) => format!("wait: {reason}"),
            Outcome::Refused(reason) => format!("nothing: refused: {reason}"),
        },
    }
}
