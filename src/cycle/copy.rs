//! The bot's own announcement and state of its copies, signed where what is published no longer says it.

use std::{collections::BTreeMap, sync::Arc};

use nostr::prelude::{Event, Kind, PublicKey, Timestamp};

use super::{
    CycleError,
    subject::{Ground, Subject},
    world::World,
};
use crate::{
    model::{
        announcement::Announcement, coordinate::addressed, draft::Draft, placement::Placement,
        replace::dated_after, state::State,
    },
    plan::{converge::Wanted, namespace, placement},
};

/// The bot's events for one copy.
#[derive(Default)]
pub(super) struct Signed {
    /// Announcement and state, as they are to stand.
    pub(super) current: Vec<Event>,
    /// Those of them that nobody has seen yet.
    pub(super) new: Vec<Event>,
}

/// The announcements and states that the bot has published, by identifier.
pub(super) struct OwnCopies {
    by_name: BTreeMap<String, Vec<Event>>,
    /// Up to when copies of a name were deleted (NIP-09): no server takes anything older.
    deleted_at: BTreeMap<String, Timestamp>,
}

impl OwnCopies {
    /// Those of `bot` among `events`.
    pub(super) fn of(events: Vec<Event>, bot: &PublicKey) -> Self {
        let (mut by_name, mut deleted_at) = (BTreeMap::<String, Vec<Event>>::new(), BTreeMap::new());
        for event in events.into_iter().filter(|event| event.pubkey == *bot) {
            if event.kind == Kind::EventDeletion {
                for (.., name) in addressed(&event).filter(|(_, author, _)| author == bot) {
                    let at = deleted_at.entry(name.to_owned()).or_insert(event.created_at);
                    *at = event.created_at.max(*at);
                }
            } else if let Some(identifier) = event.tags.identifier() {
                by_name.entry(identifier.to_string()).or_default().push(event);
            }
        }
        Self { by_name, deleted_at }
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.by_name.values().flatten()
    }

    /// The newest of each kind comes first, as in the store.
    pub(super) fn called(&self, copy: &str) -> impl Iterator<Item = &Event> {
        self.by_name.get(copy).into_iter().flatten()
    }

    /// `at`, or after what was deleted of `copy`.
    fn after_deletion(&self, copy: &str, at: Timestamp) -> Timestamp {
        let later = self
            .deleted_at
            .get(copy)
            .map(|deleted| Timestamp::from_secs(deleted.as_secs().saturating_add(1)));
        later.map_or(at, |later| at.max(later))
    }

    /// The announcement of a copy, as it was last published.
    pub(super) fn announcement(&self, copy: &str) -> Option<Announcement> {
        let event = self.called(copy).find(|event| event.kind == Kind::GitRepoAnnouncement)?;
        Announcement::read(event.clone())
    }
}

impl World {
    /// Signs the bot's state of its copy anew where a server lost the copy's git data, with a later date and nothing
    /// else changed: the server takes it again only for a state that it does not know yet.
    pub(super) async fn renew_state(&self, subject: &mut Subject, now: Timestamp) -> Result<(), CycleError> {
        let is_copy = |wanted: &Wanted| wanted.place.placement == Placement::Namespace;
        let lost = subject.wanted.values().find(|wanted| {
            is_copy(wanted) && subject.seen.get(&wanted.server).is_some_and(|seen| seen.refs_differ)
        });
        let old = lost.and_then(|wanted| wanted.state).and_then(|id| subject.events.get(&id));
        let Some(old) = old.cloned() else { return Ok(()) };
        let renewed = Draft {
            kind: old.kind,
            tags: old.tags.iter().cloned().collect(),
            content: old.content.clone(),
            created_at: dated_after(Some(&old), now),
        };
        let renewed = renewed.sign(&self.keys)?;
        self.store.save(&renewed).await?;
        for wanted in subject.wanted.values_mut().filter(|wanted| is_copy(wanted)) {
            for id in wanted.governing.iter_mut().chain(&mut wanted.state).filter(|id| **id == old.id) {
                *id = renewed.id;
            }
            if let Some(seen) = subject.seen.get_mut(&wanted.server) {
                seen.refs_differ = false;
            }
        }
        Arc::make_mut(&mut subject.events).insert(renewed.id, renewed);
        Ok(())
    }

    /// The bot's announcement and state for its copy: those already published where they still say what they
    /// should, else newly signed.
    pub(super) fn sign_copy(
        &self,
        subject: &Subject,
        state: &State,
        copy: &str,
        ground: &Ground<'_>,
    ) -> Result<Signed, CycleError> {
        let (own, candidates) = (ground.own, ground.candidates.iter());
        let grasps = candidates.map(|(url, candidate)| (url.clone(), candidate.grasp.clone())).collect();
        let announced = placement::announced_servers(&subject.places, &grasps);
        let mut signed = Signed::default();
        if announced.is_empty() {
            return Ok(signed);
        }
        // Elsewhere the maintainers' own state governs.
        let signs = subject.places.values().any(|place| place.placement == Placement::Namespace);
        let lead = subject.repository.lead().filter(|_| !signs);
        let announcement = namespace::announcement(&subject.repository, &self.bot(), copy, &announced, lead);
        let state = signs.then(|| namespace::state(state, copy));
        for mut draft in announcement.into_iter().chain(state) {
            draft.created_at = own.after_deletion(copy, draft.created_at);
            let existing = own.called(copy).find(|event| event.kind == draft.kind);
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
