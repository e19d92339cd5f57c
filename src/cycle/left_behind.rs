//! What an earlier process left behind, perhaps killed in the middle: taken up before anything newer is heard.

use nostr::prelude::Timestamp;

use super::{
    CycleError,
    sign::{SIGNING, signing_name},
    world::World,
};
use crate::{plan::signing::Signing, transfer::left_alone::CoolDowns};

/// The record of the servers and relays that said for how long they want to be left alone.
const COOL_DOWNS: &str = "cool-downs";

impl World {
    /// Takes up what an earlier process left behind, once in a program.
    pub(super) async fn take_up(&self) -> Result<(), CycleError> {
        let take_up = async {
            self.recall_cool_downs().await?;
            self.note_all_come().await
        };
        self.shared.taken_up.get_or_try_init(|| take_up).await?;
        Ok(())
    }

    /// Who runs the program by hand wants to see it done, whatever servers said before.
    async fn recall_cool_downs(&self) -> Result<(), CycleError> {
        if self.patient
            && let Some(known) = self.records.read(COOL_DOWNS).await?
        {
            self.shared.transfer.recall_cool_downs(known, Timestamp::now());
        }
        Ok(())
    }

    /// Writes down which servers and relays want to be left alone, when one has said so since it was last done.
    pub(super) async fn note_cool_downs(&self) -> Result<(), CycleError> {
        let now = Timestamp::now();
        let Some(new) = self.shared.transfer.new_cool_downs(now) else { return Ok(()) };
        let note = |all: &mut CoolDowns| {
            all.retain(|_, told| told.holds(now));
            all.extend(new);
        };
        Ok(self.records.update(COOL_DOWNS, note).await?)
    }

    /// What is stored has been seen: what was signed for a maintainer, and stored before the end, is there no more when
    /// that maintainer has signed something newer.
    async fn note_all_come(&self) -> Result<(), CycleError> {
        let records = self.records.snapshot().await?;
        if !records.may_hold(SIGNING) {
            return Ok(());
        }
        for repository in self.catalogued().await? {
            let signing: Option<Signing> = records.read(&signing_name(&repository.coordinate));
            if signing.is_some_and(|mut signing| signing.note_come(&repository)) {
                self.note_come(&repository).await?;
            }
        }
        Ok(())
    }
}
