//! Asks the servers what they serve already, before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use nostr::prelude::{EventId, Filter, Kind, PublicKey, Timestamp};

use super::{
    discovery::AUTHORS_PER_FILTER,
    survey::Survey,
    world::{AT_ONCE, World},
};
use crate::{
    model::server::ServerUrl,
    plan::{converge::Seen, record::doubts},
    relay::RelayError,
};

/// Events asked for, by author: filters are made from authors.
type PerAuthor = BTreeMap<PublicKey, Vec<(EventId, Timestamp)>>;

impl World {
    /// Asks every server which of the wanted announcements and states it serves: one round a server,
    /// however many repositories there are.
    pub(super) async fn read_back(&self, survey: &mut Survey, now: Timestamp) {
        let mut asks: Vec<(ServerUrl, PerAuthor)> = Vec::new();
        for (url, _) in survey.servers.iter().filter(|(_, server)| server.is_up()) {
            let mut per_author = PerAuthor::new();
            for subject in &survey.subjects {
                let Some(wanted) = subject.wanted.get(url) else { continue };
                for event in wanted.proofs().filter_map(|id| subject.events.get(id)) {
                    per_author.entry(event.pubkey).or_default().push((event.id, event.created_at));
                }
            }
            asks.push((url.clone(), per_author));
        }
        let answers: Vec<_> = stream::iter(asks)
            .map(|(url, per_author)| async move {
                let lacks = self.lacks(&url, per_author).await;
                (url, lacks)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (url, lacks) in answers {
            match lacks {
                Ok(lacks) => survey.note_served(&url, &lacks, now),
                Err(error) => {
                    tracing::warn!(server = %url, %error, "could not be read; its mirrors wait for the next run");
                    if let Some(server) = survey.servers.get_mut(&url) {
                        server.down = Some(error.to_string());
                    }
                }
            }
        }
    }

    async fn lacks(
        &self,
        server: &ServerUrl,
        per_author: PerAuthor,
    ) -> Result<BTreeSet<EventId>, RelayError> {
        let mut lacks = BTreeSet::new();
        let authors: Vec<PublicKey> = per_author.keys().copied().collect();
        for some in authors.chunks(AUTHORS_PER_FILTER) {
            let mut wanted: Vec<(EventId, Timestamp)> =
                some.iter().filter_map(|author| per_author.get(author)).flatten().copied().collect();
            wanted.sort_unstable();
            wanted.dedup();
            let filter = Filter::new()
                .kinds([Kind::GitRepoAnnouncement, Kind::RepoState])
                .authors(some.iter().copied());
            lacks.extend(self.relays.lacks(server.relay_url(), filter, &wanted).await?);
        }
        Ok(lacks)
    }
}

impl Survey {
    fn note_served(&mut self, url: &ServerUrl, lacks: &BTreeSet<EventId>, now: Timestamp) {
        for subject in &mut self.subjects {
            let Some(wanted) = subject.wanted.get(url) else { continue };
            let record = subject.record.mirrors.get(url);
            let mut seen = Seen {
                served: wanted.proofs().copied().filter(|id| !lacks.contains(id)).collect(),
                fresh: true,
                refused: record.map(|record| record.refused.clone()).unwrap_or_default(),
                refs_differ: doubts(record, wanted),
                ..Seen::default()
            };
            // A server that lost the repository may have lost the conversation, too.
            let held = record.and_then(|record| record.conversation.as_ref());
            if held.is_some_and(|held| held.covers(&subject.fingerprint, now)) && wanted.is_proved_by(&seen) {
                seen.lacks = Some(BTreeSet::new());
            }
            subject.seen.insert(url.clone(), seen);
        }
    }
}
