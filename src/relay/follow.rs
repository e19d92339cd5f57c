//! Listens to a relay for as long as the program runs: what it has, page by page, and what comes.
//!
//! Every event goes into one bounded channel. What is stored waits for room in it; what comes live and finds no
//! room is asked for again. A connection that is lost is made again, after ever longer pauses.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use grasp_mirror_commands::{clean, with_causes};
use nostr::prelude::{Event, Filter, MachineReadablePrefix, RelayMessage, RelayUrl, SubscriptionId};
use nostr_sdk::relay::{Relay, RelayNotification};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{RelayError, Relays, link::Link, read::Pages};

/// Events of a backlog asked for at once: private messages may be long, and many are strangers'.
const PAGE: usize = 100;

/// The first pause after a lost connection.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(120);

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
    /// The relay cannot be read now; it is tried again.
    Failed(RelayUrl),
}

/// What to listen for. Each part is a subscription of its own, so that a relay that wants to know who asks
/// before it shows private messages still shows the rest.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Filters without `limit`.
    pub parts: Vec<Vec<Filter>>,
}

impl Relays {
    /// Listens to `relay` until `heard` is closed; dropping the future ends it, too.
    ///
    /// `interest` is asked at every new connection, so that it can look back from then.
    pub async fn follow(
        &self,
        relay: &RelayUrl,
        interest: impl Fn() -> Interest,
        heard: mpsc::Sender<Heard>,
    ) {
        let link = self.link(relay);
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE)
            .with_max_delay(PAUSE_MAX)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        let mut told = false;
        while !heard.is_closed() {
            let started = Instant::now();
            let error = link.follow(relay, interest(), &heard).await;
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
            if heard.send(Heard::Failed(relay.clone())).await.is_err() {
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
    async fn follow(
        self: &Arc<Self>,
        relay: &RelayUrl,
        interest: Interest,
        heard: &mpsc::Sender<Heard>,
    ) -> RelayError {
        loop {
            if let Err(error) = self.connect_again().await {
                return error;
            }
            let ids = interest.parts.iter().map(|_| SubscriptionId::generate()).collect();
            let subscribed = Subscribed { relay: self.relay.clone(), ids };
            match self.listen(relay, &interest, &subscribed.ids, heard).await {
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
        heard: &mpsc::Sender<Heard>,
    ) -> Round {
        let mut notices = self.relay.notifications();
        for (id, filters) in ids.iter().zip(&interest.parts) {
            // What is stored comes page by page.
            let live: Vec<Filter> = filters.iter().map(|filter| filter.clone().limit(1)).collect();
            if let Err(error) = self.relay.subscribe(live).with_id(id.clone()).await {
                return Round::Over(self.incomplete(with_causes(&error)));
            }
        }
        let mut backlog = Some(Box::pin(self.backlog(relay, interest, heard)));
        // Something came and there was no room for it.
        let mut missed = false;
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
                Ok(room) = heard.reserve(), if missed && backlog.is_none() => {
                    drop(room);
                    missed = false;
                    backlog = Some(Box::pin(self.backlog(relay, interest, heard)));
                    continue;
                }
                () = heard.closed() => return Round::Over(self.incomplete("nobody listens any more")),
            };
            match notice {
                Some(RelayNotification::Message { message }) => match *message {
                    RelayMessage::Event { subscription_id, event } if ids.contains(&subscription_id) => {
                        let event = Box::new(event.into_owned());
                        missed |= heard.try_send(Heard::Event { relay: relay.clone(), event }).is_err();
                    }
                    RelayMessage::Closed { subscription_id, message }
                        if ids.contains(&subscription_id)
                            && MachineReadablePrefix::parse(&message)
                                != Some(MachineReadablePrefix::AuthRequired) =>
                    {
                        let reason = clean(&message, 300);
                        open = open.saturating_sub(1);
                        if open == 0 {
                            return Round::Over(RelayError::Closed { relay: relay.to_string(), reason });
                        }
                        tracing::warn!(%relay, reason, "the relay does not show everything that is asked for");
                        again_at.get_or_insert_with(|| Instant::now() + PAUSE_MAX);
                    }
                    _ => {}
                },
                // It may have answered as to a stranger before.
                Some(RelayNotification::Authenticated) => return Round::Again,
                Some(RelayNotification::AuthenticationFailed) => {
                    let reason = "it wants authentication and refused ours".to_owned();
                    return Round::Over(RelayError::Closed { relay: relay.to_string(), reason });
                }
                Some(RelayNotification::RelayStatus { status }) if !status.is_connected() => {
                    return Round::Over(self.incomplete("the connection was lost"));
                }
                Some(_) => {}
                None => return Round::Over(self.incomplete("the connection ended")),
            }
        }
    }

    /// Brings everything that is stored, and says so. Whether the relay showed all that was asked for.
    async fn backlog(
        &self,
        relay: &RelayUrl,
        interest: &Interest,
        heard: &mpsc::Sender<Heard>,
    ) -> Result<bool, RelayError> {
        let gone = || self.incomplete("nobody listens any more");
        heard.send(Heard::Reading(relay.clone())).await.map_err(|_| gone())?;
        let mut all = true;
        for filter in interest.parts.iter().flatten() {
            let mut pages = Pages::new(filter.clone(), PAGE).wary();
            loop {
                let events = match pages.next(self).await {
                    Ok(Some(events)) => events,
                    Ok(None) => break,
                    Err(RelayError::Closed { reason, .. }) => {
                        tracing::debug!(%relay, reason, "not shown");
                        all = false;
                        break;
                    }
                    Err(error) => return Err(error),
                };
                for event in events {
                    let event = Heard::Event { relay: relay.clone(), event: Box::new(event) };
                    heard.send(event).await.map_err(|_| gone())?;
                }
            }
        }
        heard.send(Heard::CaughtUp(relay.clone())).await.map_err(|_| gone())?;
        Ok(all)
    }
}
