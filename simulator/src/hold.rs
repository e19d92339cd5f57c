//! States that take most of a repository away: held as `src/cycle/hold.rs` holds them, with the program's own judgement
//! ([`grasp_mirror::plan::hold`]).

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::coordinate::Coordinate,
    plan::{
        catalog::{Obstacle, Repository},
        hold::{self, Stands, Verdict},
        record::RepositoryRecord,
    },
};
use nostr::event::EventId;

use crate::{
    bot::{Bot, Subject},
    check,
    world::{Crash, tell},
};

/// What happened to states that are held, to be compared with what may happen to them.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// For how long states are held, in seconds.
    pub hold_secs: u64,
    /// Branches and tags of each local copy, as it last followed a state.
    pub followed: BTreeMap<Coordinate, BTreeSet<String>>,
    /// When a state was first there to be judged.
    pub seen: BTreeMap<EventId, u64>,
    /// What somebody said last of each state, and was told that it counts.
    pub said: BTreeMap<EventId, bool>,
    /// States that went out to servers.
    pub sent: BTreeSet<EventId>,
}

impl Bot<'_> {
    /// Puts an obstacle in the way of a state that is not to be followed (yet).
    pub(crate) fn hold_back(
        &mut self,
        repository: &mut Repository,
        record: &mut RepositoryRecord,
    ) -> Result<(), Crash> {
        let (None, Some(state)) = (&repository.obstacle, &repository.state) else { return Ok(()) };
        let now = self.world.time();
        self.world.ledger.decisions.seen.entry(state.event.id).or_insert(now.as_secs());
        if record.local == Some(state.event.id) {
            record.held = None;
            return Ok(());
        }
        let coordinate = repository.coordinate.clone();
        let old = self.disk.copies.get(&coordinate).map(|copy| copy.refs.clone()).unwrap_or_default();
        let hold_secs = self.world.ledger.decisions.hold_secs;
        let verdict = self.disk.verdicts.get(&coordinate);
        let before = record.held.take();
        let this = (state.event.id, &state.refs);
        record.held = hold::judge(&old, this, before.as_ref(), verdict, hold_secs, now);
        let Some(held) = &record.held else { return Ok(()) };
        self.world.totals.holds += u64::from(before.as_ref().is_none_or(|before| before.state != held.state));
        tell!(self.world, "{} {}: {:?}", coordinate.identifier, held.loss(), held.stands);
        if let Some(reason) = held.reason(&coordinate) {
            repository.obstacle = Some(Obstacle::Limit(reason));
        }
        Ok(())
    }

    /// Writes down that a state which takes most away is followed, before anything goes out because of that.
    pub(crate) fn begin_to_follow(&mut self, subject: &mut Subject) -> Result<(), Crash> {
        let is_followed = subject.record.held.as_ref().is_some_and(|held| held.stands == Stands::Followed);
        if is_followed {
            self.world.step()?;
            self.disk.write_record(&subject.repository.coordinate, &subject.record);
        }
        Ok(())
    }

    /// Whether somebody, or time, has decided about what is held for `coordinate` since it was last looked at.
    pub(crate) fn is_decided(&self, coordinate: &Coordinate, record: &RepositoryRecord) -> bool {
        let verdict = self.disk.verdicts.get(coordinate);
        record.held.as_ref().is_some_and(|held| !held.rests(verdict, self.world.time()))
    }

    /// Somebody says whether the state that is held for this project is to be followed.
    pub(crate) fn decide(&mut self, project: usize, approved: bool) -> Result<(), Crash> {
        let Some(project) = self.world.projects.get(project) else { return Ok(()) };
        let coordinate = project.coordinate();
        let Some(held) = self.disk.record(&coordinate).held else { return Ok(()) };
        if held.stands == Stands::Followed && !approved {
            return Ok(());
        }
        self.world.step()?;
        self.disk.verdicts.insert(coordinate.clone(), Verdict { state: held.state, approved });
        check::is_heard_in_time(self.world, &coordinate, held.state, approved);
        Ok(())
    }
}
