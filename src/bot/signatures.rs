//! Remote signers, as far as people have to do with them: pairing, and what waits for a person.

use std::collections::BTreeMap;

use grasp_mirror_commands::{pair, short};
use nostr::prelude::PublicKey;

use super::{Bot, Notice, orders::OrderError};
use crate::{
    cycle::{self, CycleDone, CycleError, PairError, Pairing},
    model::{coordinate::Coordinate, status::MirrorStatus},
    plan::signing::Stands,
};

impl Bot {
    /// Shows an address for a signer, and listens for it meanwhile.
    pub(super) async fn pair(&mut self) -> Result<String, OrderError> {
        let own = &self.own;
        let pairing = Pairing::new(&own.config, &own.keys, &own.store).await?;
        let text = pair::reply(&pairing.address(), pairing.seconds_left());
        self.wait_for_signer(async move { Ok(Some(pairing)) });
        Ok(text)
    }

    /// Goes on with the address that was shown before a restart.
    pub(super) fn resume_pairing(&mut self) {
        let own = self.own.clone();
        self.wait_for_signer(async move { Pairing::resume(&own.config, &own.keys, &own.store).await });
    }

    /// One task at a time: there is one address.
    fn wait_for_signer(
        &mut self,
        pairing: impl Future<Output = Result<Option<Pairing>, PairError>> + Send + 'static,
    ) {
        let notices = self.notices.0.clone();
        let waiting = self.tasks.spawn(async move {
            let came = match pairing.await {
                Ok(None) => return,
                Ok(Some(pairing)) => {
                    tracing::info!(seconds = pairing.seconds_left(), "a signer may be paired");
                    pairing.wait().await
                }
                Err(error) => Err(error),
            };
            let text = match came {
                Ok(paired) => pair::paired(&paired.user),
                Err(error) => pair::failed(&error.to_string()),
            };
            // Nobody listens any more when the program stops.
            let _ = notices.send(Notice::Paired(text)).await;
        });
        if let Some(before) = self.pairing.replace(waiting) {
            before.abort();
        }
    }

    /// The address that a signer wants a person to open before it signs for a repository.
    pub(super) async fn page_to_open(&self, coordinate: &Coordinate) -> Result<Option<String>, OrderError> {
        let request = cycle::requested(&self.records, coordinate).await?;
        Ok(match request.map(|request| request.stands) {
            Some(Stands::WaitingForYouAt(url)) => Some(format!("Open this, and the signer goes on: {url}")),
            _ => None,
        })
    }

    /// Notes which signers wait for a person, are away or refuse, so that it is told once.
    pub(super) async fn note_signatures(&mut self, done: &CycleDone) -> Result<(), CycleError> {
        let mut now: BTreeMap<PublicKey, String> = BTreeMap::new();
        for (signer, stands) in &done.signers {
            now.insert(*signer, told(&format!("remote signer {}", short(signer)), stands));
        }
        for outcome in &done.outcomes {
            let waits =
                outcome.mirrors.values().any(|mirror| mirror.status == MirrorStatus::AwaitingSignature);
            if waits && let Some(request) = cycle::requested(&self.records, &outcome.coordinate).await? {
                now.insert(request.by, told(&format!("signer of {}", short(&request.by)), &request.stands));
            }
        }
        self.alerts.compare_signers(now);
        Ok(())
    }
}

fn told(who: &str, stands: &Stands) -> String {
    match stands {
        Stands::Asked | Stands::WaitingForYou => format!("! The {who} waits for you: approve what it shows"),
        Stands::WaitingForYouAt(url) => format!("! The {who} wants you to open {url}"),
        Stands::Unreachable(reason) => format!("! The {who} is unreachable: {reason}"),
        Stands::Refused(words, _) => format!("! The {who} said no: {words}"),
        Stands::TooLarge(words, _) => format!("! The {who} cannot be asked, it is too large: {words}"),
    }
}
