//! What the bot tells by itself to those who may command it.

use std::collections::BTreeSet;

use nostr::prelude::RelayUrl;

use super::Bot;
use crate::{
    cycle::{CycleDone, CycleError},
    store::records::Records,
};

pub(super) struct Alerts {}

impl Alerts {
    pub(super) async fn load(_records: &Records) -> Result<Self, CycleError> {
        Ok(Self {})
    }

    pub(super) fn compare(&mut self, _done: &CycleDone) {}

    pub(super) fn note_silent(&mut self, _silent: &BTreeSet<RelayUrl>) {}
}

impl Bot {
    pub(super) async fn send_alerts(&mut self) -> Result<(), CycleError> {
        Ok(())
    }
}
