//! What people took out of announcements by hand, as the bot's own event has it: on its relays, and in the store.

use nostr::prelude::{Event, Filter, Kind, Timestamp};

use super::{
    CycleError,
    settings::{for_itself, read_own},
    world::World,
};
use crate::{
    plan::taken_out::{TAKEN_OUT_IDENTIFIER, TakenOut},
    store::StoreError,
};

/// The record that says that the bot's relays were asked for the event since this disk is in use.
const ASKED: &str = "taken-out/asked";

impl World {
    async fn taken_out_event(&self) -> Result<Option<Event>, StoreError> {
        let filter = Filter::new().kind(Kind::ApplicationSpecificData).author(self.bot());
        Ok(self.store.query(filter.identifier(TAKEN_OUT_IDENTIFIER)).await?.into_iter().next())
    }

    /// What is remembered of it.
    pub(super) async fn taken_out(&self) -> Result<TakenOut, StoreError> {
        let event = self.taken_out_event().await?;
        Ok(event.and_then(|event| read_own(&event, &self.keys)).unwrap_or_default())
    }

    /// Whether it is known what was taken out. On an empty disk the bot's relays have to be asked first.
    pub(super) async fn knows_what_was_taken_out(&self) -> Result<bool, StoreError> {
        if self.taken_out_event().await?.is_some() || self.records.read(ASKED).await? == Some(true) {
            return Ok(true);
        }
        let is_known = self.config.bot.relays.is_empty() || self.read_own_word().await > 0;
        if is_known {
            self.records.write(ASKED, &true).await?;
        }
        Ok(is_known)
    }

    /// Remembers `all`, on this machine and on any other.
    pub(super) async fn remember_taken_out(&self, all: &TakenOut) -> Result<(), CycleError> {
        let existing = self.taken_out_event().await?;
        let draft =
            for_itself(TAKEN_OUT_IDENTIFIER, "servers taken out by hand", all, &self.keys, Timestamp::now())?;
        let Some(draft) = draft.unless_said(existing.as_ref()) else { return Ok(()) };
        let event = draft.sign(&self.keys)?;
        if self.store.save(&event).await? {
            self.send_to_own_relays(&[event]).await;
        }
        Ok(())
    }
}
