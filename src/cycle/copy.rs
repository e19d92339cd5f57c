//! The bot's own announcement and state of its copies, signed where what is published no longer says it.

use std::collections::BTreeMap;

use nostr::prelude::Event;

use super::{CycleError, survey::Subject, world::World};
use crate::{
    model::{server::ServerUrl, state::State},
    plan::{
        namespace,
        placement::{self, Grasp},
    },
};

/// The bot's events for one copy.
#[derive(Default)]
pub(super) struct Signed {
    /// Announcement and state, as they are to stand.
    pub(super) current: Vec<Event>,
    /// Those of them that nobody has seen yet.
    pub(super) new: Vec<Event>,
}

impl World {
    /// The bot's announcement and state for its copy: those already published where they still say what they
    /// should, else newly signed.
    pub(super) fn sign_copy(
        &self,
        subject: &Subject,
        state: &State,
        copy: &str,
        servers: &BTreeMap<ServerUrl, Grasp>,
        own: &[Event],
    ) -> Result<Signed, CycleError> {
        let announced = placement::announced_servers(&subject.places, servers);
        let mut signed = Signed::default();
        if announced.is_empty() {
            return Ok(signed);
        }
        let announcement = namespace::announcement(&subject.repository, &self.bot(), copy, &announced);
        for draft in announcement.into_iter().chain([namespace::state(state, copy)]) {
            let existing = own
                .iter()
                .find(|event| event.kind == draft.kind && event.tags.identifier().as_deref() == Some(copy));
            let event = match (draft.unless_said(existing), existing) {
                (None, Some(existing)) => existing.clone(),
                (Some(draft), _) => {
                    let event = draft.sign(&self.keys)?;
                    signed.new.push(event.clone());
                    event
                }
                (None, None) => continue,
            };
            signed.current.push(event);
        }
        Ok(signed)
    }
}
