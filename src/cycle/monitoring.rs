//! Tells relays how the servers are, where the operator wants that (NIP-66), and takes it back where that is over.

use std::collections::BTreeMap;

use nostr::prelude::{Event, Filter, Kind, PublicKey, SingleLetterTag, Timestamp};

use super::{CycleError, noted, servers::Server, world::World};
use crate::{
    model::{draft::Draft, replace::dated_after, server::ServerUrl},
    report::monitoring::{self, Probe},
};

/// What servers are told of with.
const MONITORING: [Kind; 2] = [Kind::RelayDiscovery, Kind::RelayMonitor];

/// What `bot` published of servers.
#[must_use]
pub fn monitoring_filter(bot: PublicKey) -> Filter {
    Filter::new().kinds(MONITORING).author(bot)
}

impl World {
    /// Signs and sends what is to be said anew of `servers` that answered.
    pub(super) async fn publish_monitoring(
        &self,
        servers: &BTreeMap<ServerUrl, Server>,
        now: Timestamp,
    ) -> Result<(), CycleError> {
        if !self.config.servers.publish_monitoring {
            return Ok(());
        }
        let said = self.monitoring().await?;
        let up: Vec<_> = servers.iter().filter(|(_, server)| server.is_up()).collect();
        let weeks = noted::scoreboards(&self.records, up.iter().map(|(url, _)| (*url).clone()).collect());
        let weeks = weeks.await?;
        let interval = self.config.bot.cycle_interval.as_secs();
        let mut due: Vec<Draft> = Vec::new();
        for (url, server) in up {
            let week = weeks.get(url).map(|board| board.week(now.as_secs())).unwrap_or_default();
            let opened_in = self.relays.opened_in(url.relay_url());
            let probe = Probe { server: url, advertised: &server.advertised, opened_in, week };
            let draft = monitoring::discovery(&probe, now);
            // Its name comes first in both.
            let before = said
                .iter()
                .find(|event| event.kind == draft.kind && event.tags.first() == draft.tags.first());
            due.extend(monitoring::when_due(draft, before, interval));
        }
        if due.is_empty() {
            return Ok(());
        }
        let announced = said.iter().find(|event| event.kind == Kind::RelayMonitor);
        let announcement = monitoring::announcement(now).unless_said(announced);
        // Also when it says the same as ever: a relay may be new.
        let as_ever = announced.filter(|_| announcement.is_none()).cloned();
        due.extend(announcement);
        let deleted = self.monitoring_deleted().await?;
        let mut signed: Vec<Event> = as_ever.into_iter().collect();
        for mut draft in due {
            // What is dated no later than its deletion stays deleted.
            draft.created_at = dated_after(deleted.as_ref(), draft.created_at);
            signed.push(draft.sign(&self.keys)?);
        }
        for event in &signed {
            self.store.save(event).await?;
        }
        self.send_to_own_relays(&signed).await;
        Ok(())
    }

    /// The deletion of what was published before the operator switched it off; `None` when nothing was, or is deleted.
    pub(super) async fn monitoring_taken_back(&self, now: Timestamp) -> Result<Option<Event>, CycleError> {
        if self.config.servers.publish_monitoring {
            return Ok(None);
        }
        let Some(draft) = monitoring::taken_back(&self.monitoring().await?, now) else { return Ok(None) };
        tracing::info!("servers.publish_monitoring is off: what was published of servers is deleted");
        Ok(Some(draft.sign(&self.keys)?))
    }

    /// The newest deletion of what was published.
    async fn monitoring_deleted(&self) -> Result<Option<Event>, CycleError> {
        let kinds = MONITORING.map(|kind| kind.to_string());
        let of_them = Filter::new().kind(Kind::EventDeletion).author(self.bot());
        let of_them = of_them.custom_tags(SingleLetterTag::LOWERCASE_K, kinds);
        Ok(self.store.query(of_them).await?.into_iter().next())
    }

    /// What was published.
    async fn monitoring(&self) -> Result<Vec<Event>, CycleError> {
        Ok(self.store.query(monitoring_filter(self.bot())).await?)
    }
}
