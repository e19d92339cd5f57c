//! Listens to a relay for as long as the program runs: what it has, page by page, and what comes.
//!
//! Events go into two bounded channels: what is stored waits for room in its own; what comes live and finds no room in
//! the other is asked for again. A connection that is lost is made again, after ever longer pauses.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use grasp_mirror_commands::with_causes;
use nostr::prelude::{Event, EventId, Filter, MachineReadablePrefix, RelayMessage, RelayUrl, SubscriptionId};
use nostr_sdk::relay::{Relay, RelayNotification};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{RelayError, Relays, known::Known, link::Link, read::Pages};

/// Events of a backlog asked for at once: private messages may be long, and many are strangers'.
const PAGE: usize = 100;

/// The first pause after a lost connection.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// How long after a live event found no room everything is asked for again.
const MISSED: Duration = Duration::from_secs(5);

/// Events taken from one relay's answer about what it has.
const STORED_MAX: usize = 200_000;

/// A connection that lasted so long was a good one: the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(60);

/// What a followed relay brings.
#[derive(Debug)]
pub enum Heard {
    /// An event whose signature is good. It may come again, from this relay or another.
    Event {
        /// Where from.
        relay: RelayUrl,
        /// The event.
        event: Box<Event>,
    },
    /// What it has comes now, in no order that could be relied on.
    Reading(RelayUrl),
    /// Everything the relay had has been brought; from now on it is live.
    CaughtUp(RelayUrl),
    /// The relay cannot be read now, or shows only part of what is asked for; it is tried again.
    Failed(RelayUrl),
}

/// What to listen for. Each part is a subscription of its own, so that a relay that wants to know who asks
/// before it shows private messages still shows the rest.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Filters without `limit`.
    pub parts: Vec<Vec<Filter>>,
}

/// Where what is heard goes.
#[derive(Clone, Debug)]
pub struct Ears {
    /// Events that come while listening.
    pub live: mpsc::Sender<Heard>,
    /// Events that the relay has stored, between [`Heard::Reading`] and [`Heard::CaughtUp`] or [`Heard::Failed`].
    pub stored: mpsc::Sender<Heard>,
    /// What need not be heard again; whoever listens fills it.
    pub known: Arc<Known>,
}

impl Relays {
    /// Listens to `relay` until nobody hears it any more; dropping the future ends it, too.
    ///
    /// `interest` is asked at every new connection, so that it can look back from then.
    pub async fn follow(&self, relay: &RelayUrl, interest: impl Fn() -> Interest, ears: Ears) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE)
            .with_max_delay(PAUSE_MAX)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        let mut told = false;
        while !ears.stored.is_closed() {
            let started = Instant::now();
            let error = match self.link(relay).await {
                Ok(link) => link.follow(relay, interest(), &ears).await,
                Err(error) => error,
            };
            if started.elapsed() > STEADY {
                pause = pauses.build();
                told = false;
            }
            let wait = pause.next().unwrap_or(PAUSE_MAX);
            if told {
                tracing::debug!(%relay, %error, wait_secs = wait.as_secs(), "not listening");
            } else {
                tracing::warn!(%relay, %error, "not listening there now; I keep trying");
                told = true;
            }
            if ears.stored.send(Heard::Failed(relay.clone())).await.is_err() {
                return;
            }
            sleep(wait).await;
        }
    }
}

/// Subscriptions that end with this, also when whoever holds it is stopped.
struct Subscribed {
    relay: Relay,
    ids: Vec<SubscriptionId>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let (relay, ids) = (self.relay.clone(), std::mem::take(&mut self.ids));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                for id in ids {
                    let _ = relay.unsubscribe(&id).await;
                }
            });
        }
    }
}

/// How one round on one connection went on.
enum Round {
    /// The relay may show more when it is asked again.
    Again,
    /// Over, for this reason.
    Over(RelayError),
}

impl Link {
    /// Listens on one connection until it is lost; says why.
    async fn follow(&self, relay: &RelayUrl, interest: Interest, ears: &Ears) -> RelayError {
        loop {
            if let Err(error) = self.connect_again().await {
                return error;
            }
            let ids = interest.parts.iter().map(|_| SubscriptionId::generate()).collect();
            let subscribed = Subscribed { relay: self.relay.clone(), ids };
            match self.listen(relay, &interest, &subscribed.ids, ears).await {
                Round::Again => {}
                Round::Over(error) => return error,
            }
        }
    }

    async fn listen(
        &self,
        relay: &RelayUrl,
        interest: &Interest,
        ids: &[SubscriptionId],
        ears: &Ears,
    ) -> Round {
        let mut notices = self.relay.notifications();
        for (id, filters) in ids.iter().zip(&interest.parts) {
            // What is stored comes page by page.
            let live: Vec<Filter> = filters.iter().map(|filter| filter.clone().limit(1)).collect();
            if let Err(error) = self.relay.subscribe(live).with_id(id.clone()).await {
                return Round::Over(self.incomplete(with_causes(&error)));
            }
        }
        let mut backlog = Some(Box::pin(self.backlog(relay, interest, ears)));
        // Something came and there was no room for it.
        let mut missed: Option<Instant> = None;
        let mut open = ids.len();
        // What the relay did not want to show is asked for again later.
        let mut again_at = None;
        loop {
            let notice = tokio::select! {
                notice = notices.next() => notice,
                read = async { match &mut backlog { Some(read) => read.await, None => std::future::pending().await } } => {
                    backlog = None;
                    match read {
                        Ok(true) => {}
                        Ok(false) => {
                            again_at.get_or_insert_with(|| Instant::now() + PAUSE_MAX);
                        }
                        Err(error) => return Round::Over(error),
                    }
                    continue;
                }
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    return Round::Again;
                }
                () = sleep_until(missed.unwrap_or_else(Instant::now)), if missed.is_some() && backlog.is_none() => {
                    missed = None;
                    backlog = Some(Box::pin(self.backlog(relay, interest, ears)));
                    continue;
                }
                () = ears.stored.closed() => return Round::Over(self.gone()),
            };
            let Some(notice) = notice else {
                return Round::Over(self.incomplete("the connection ended"));
            };
            if let Some(error) = self.ended_by(&notice) {
                return Round::Over(error);
            }
            match notice {
                RelayNotification::Message { message } => match *message {
                    RelayMessage::Event { subscription_id, event } if ids.contains(&subscription_id) => {
                        let event =
                            Heard::Event { relay: relay.clone(), event: Box::new(event.into_owned()) };
                        if ears.live.try_send(event).is_err() {
                            missed.get_or_insert_with(|| Instant::now() + MISSED);
                        }
                    }
                    RelayMessage::Closed { subscription_id, message }
                        if ids.contains(&subscription_id)
                            && MachineReadablePrefix::parse(&message)
                                != Some(MachineReadablePrefix::AuthRequired) =>
                    {
                        let error = self.closed(&message);
                        open = open.saturating_sub(1);
                        if open == 0 {
                            return Round::Over(error);
                        }
                        tracing::warn!(%relay, %error, "not everything that is asked for is shown");
                        again_at.get_or_insert_with(|| Instant::now() + PAUSE_MAX);
                    }
                    _ => {}
                },
                // It may have answered as to a stranger before.
                RelayNotification::Authenticated => return Round::Again,
                _ => {}
            }
        }
    }

    /// Brings everything that is stored, and says so. Whether the relay showed all that was asked for.
    async fn backlog(&self, relay: &RelayUrl, interest: &Interest, ears: &Ears) -> Result<bool, RelayError> {
        ears.stored.send(Heard::Reading(relay.clone())).await.map_err(|_| self.gone())?;
        let mut all = true;
        for filter in interest.parts.iter().flatten() {
            match self.bring(relay, filter, ears).await {
                Ok(()) => {}
                Err(RelayError::Closed { reason, .. }) => {
                    tracing::debug!(%relay, reason, "not shown");
                    all = false;
                }
                Err(error) => return Err(error),
            }
        }
        let end = if all { Heard::CaughtUp(relay.clone()) } else { Heard::Failed(relay.clone()) };
        ears.stored.send(end).await.map_err(|_| self.gone())?;
        Ok(all)
    }

    /// Brings what `filter` matches and is not known: by negentropy, which nothing can hide from, else page by page.
    async fn bring(&self, relay: &RelayUrl, filter: &Filter, ears: &Ears) -> Result<(), RelayError> {
        if let Some(difference) = self.reconcile(filter.clone(), Some(&[])).await? {
            let new = difference.remote.into_iter().filter(|id| !ears.known.contains(id));
            let new: Vec<EventId> = new.take(STORED_MAX).collect();
            for some in new.chunks(PAGE) {
                let events = self.read_once(vec![Filter::new().ids(some.iter().copied())]).await?;
                self.hand_over(relay, events, ears).await?;
            }
            return Ok(());
        }
        let mut pages = Pages::new(filter.clone(), PAGE).wary();
        while let Some(events) = pages.next(self).await? {
            self.hand_over(relay, events, ears).await?;
        }
        Ok(())
    }

    async fn hand_over(&self, relay: &RelayUrl, events: Vec<Event>, ears: &Ears) -> Result<(), RelayError> {
        for event in events.into_iter().filter(|event| !ears.known.contains(&event.id)) {
            let event = Heard::Event { relay: relay.clone(), event: Box::new(event) };
            ears.stored.send(event).await.map_err(|_| self.gone())?;
        }
        Ok(())
    }

    fn gone(&self) -> RelayError {
        self.incomplete("nobody listens any more")
    }
}
