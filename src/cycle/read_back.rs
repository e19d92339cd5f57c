//! What the servers serve already, before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, PublicKey, Timestamp};

use super::{CycleError, kept::Kept, subject::Subject, survey::Survey, world::World};
use crate::{
    model::server::ServerUrl,
    plan::{converge::Seen, holdings::Holdings, record::doubts},
};

impl World {
    /// Notes which of the wanted announcements and states every server serves. Discovery has seen it already; servers
    /// and authors that turned up since are compared now.
    pub(super) async fn read_back(
        &self,
        survey: &mut Survey,
        kept: &mut Kept,
        now: Timestamp,
    ) -> Result<(), CycleError> {
        let up: Vec<ServerUrl> =
            survey.servers.iter().filter(|(_, server)| server.is_up()).map(|(url, _)| url.clone()).collect();
        let mut todo = Vec::new();
        for url in &up {
            let proofs = survey.subjects.iter().filter_map(|subject| {
                let wanted = subject.wanted.get(url)?;
                Some(wanted.proofs().filter_map(|id| subject.events.get(id)).map(|event| event.pubkey))
            });
            let mut authors: BTreeSet<PublicKey> = proofs.flatten().collect();
            if let Some(compared) = kept.compared.get(url.relay_url()) {
                authors.retain(|author| !compared.contains(author));
            }
            if !authors.is_empty() {
                todo.push((url.relay_url().clone(), authors.into_iter().collect::<Vec<_>>()));
            }
        }
        let compared = todo.clone();
        let failed = if todo.is_empty() { BTreeMap::new() } else { self.ask_relays(todo, kept).await? };
        for (relay, authors) in compared.into_iter().filter(|(relay, _)| !failed.contains_key(relay)) {
            kept.compared.entry(relay).or_default().extend(authors);
        }
        let nothing = Holdings::default();
        for url in up {
            match failed.get(url.relay_url()) {
                None => survey.note_served(&url, kept.holdings.get(url.relay_url()).unwrap_or(&nothing), now),
                Some(error) => {
                    tracing::warn!(server = %url, error, "could not be read; its mirrors wait for the next run");
                    if let Some(server) = survey.servers.get_mut(&url) {
                        server.down = Some(error.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Survey {
    fn note_served(&mut self, url: &ServerUrl, holdings: &Holdings, now: Timestamp) {
        for subject in &mut self.subjects {
            subject.note_served(url, |event| holdings.has(&event.pubkey, &event.id), now);
        }
    }
}

impl Subject {
    /// Notes which of the announcements and states wanted at `url` it was just seen to serve.
    pub(super) fn note_served(&mut self, url: &ServerUrl, serves: impl Fn(&Event) -> bool, now: Timestamp) {
        let Some(wanted) = self.wanted.get(url) else { return };
        let record = self.record.mirrors.get(url);
        let proofs = wanted.proofs().filter_map(|id| self.events.get(id));
        let mut seen = Seen {
            served: proofs.filter(|event| serves(event)).map(|event| event.id).collect(),
            fresh: true,
            refused: record.map(|record| record.refused.clone()).unwrap_or_default(),
            refs_differ: doubts(record, wanted),
            ..Seen::default()
        };
        let proved = wanted.is_proved_by(&seen);
        let record = self.record.mirrors.get_mut(url);
        if record.is_some_and(|record| record.still_holds(&self.fingerprint, proved, now)) {
            seen.lacks = Some(BTreeSet::new());
        }
        self.seen.insert(url.clone(), seen);
    }
}
