//! Reading from a relay to the end.

use std::{
    collections::{BTreeSet, HashSet},
    future::pending,
    sync::atomic::Ordering,
    time::Duration,
};

use futures::{Stream, StreamExt};
use grasp_mirror_commands::{clean, with_causes};
use nostr::prelude::{
    Event, EventId, Filter, MachineReadablePrefix, RelayMessage, SubscriptionId, Timestamp,
};
use nostr_sdk::{
    error::ErrorKind,
    relay::{RelayNotification, ReqExitPolicy, SubscribeAutoCloseOptions, SyncOptions, SyncSummary},
};

use tokio::{
    select,
    time::{Instant, timeout, timeout_at},
};

use super::{RelayError, door::Admit, link::Link};

/// Ids in one filter: well below every relay's message limit (66 bytes each).
pub(super) const IDS_PER_FILTER: usize = 400;

/// Events asked for at once; relays cut off at 500 or so, and then more pages follow.
const PAGE: usize = 500;

pub(super) const TOO_MANY: &str = "more events than the limit";

/// How long a relay gets to show that it speaks NIP-77.
const NEGENTROPY_PATIENCE: Duration = Duration::from_secs(5);

/// How long one answer may take in all, as so many silences: a page takes seconds, and a relay that sends an event now
/// and then is never silent.
const LONGEST_ANSWER: u32 = 10;

/// How long it may take to read everything, page after page.
const LONGEST_READ: u32 = 30;

/// What one filter matches, newest first, a page at a time.
pub(super) struct Pages {
    filter: Filter,
    size: usize,
    seen: HashSet<EventId>,
    until: Option<Timestamp>,
    /// Whether an empty page may hide older events.
    wary: bool,
    /// Whether one second is looked at by itself.
    second: bool,
    /// The next step back, in seconds.
    step: u64,
    ended: bool,
}

/// Events of one second asked for.
const SECOND: usize = 5_000;

/// How far back the search goes on behind an empty page, in seconds, where strangers may have filled it; doubled each
/// time until something shows.
const STEP_SECS: u64 = 60;

/// The longest step.
const STEP_MAX_SECS: u64 = 12 * 3_600;

impl Pages {
    /// At most `size` events a page.
    pub(super) fn new(filter: Filter, size: usize) -> Self {
        let until = filter.until;
        Self {
            filter,
            size,
            seen: HashSet::new(),
            until,
            wary: false,
            second: false,
            step: STEP_SECS,
            ended: false,
        }
    }

    /// For what anyone can write: nostr-sdk drops what is too long or expired before it can be counted, so a page of
    /// that looks empty. Older pages are asked for all the same, back to the filter's `since`.
    pub(super) fn wary(self) -> Self {
        Self { wary: true, ..self }
    }

    /// The next events that no page had before; `None` at the end.
    pub(super) async fn next(&mut self, link: &Link) -> Result<Option<Vec<Event>>, RelayError> {
        while !self.ended {
            let mut page = self.filter.clone().limit(if self.second { SECOND } else { self.size });
            page.until = self.until;
            if self.second {
                page.since = self.until;
            }
            let events = link.read_once(vec![page]).await?;
            let oldest = events.iter().map(|event| event.created_at).min();
            let brought = events.len();
            let fresh: Vec<Event> = events.into_iter().filter(|event| self.seen.insert(event.id)).collect();
            match oldest {
                None => self.step_back(),
                // A page full of one second's events would come again and again: look at that second alone, then
                // step over it.
                Some(oldest) if fresh.is_empty() && self.wary && !self.second => {
                    self.second = true;
                    self.until = Some(oldest);
                }
                Some(oldest) if fresh.is_empty() || self.second => {
                    self.second = false;
                    self.ended = brought < self.size && !self.wary || oldest.as_secs() == 0;
                    self.until = Some(Timestamp::from_secs(oldest.as_secs().saturating_sub(1)));
                }
                oldest => self.until = oldest,
            }
            if !fresh.is_empty() {
                self.step = STEP_SECS;
                return Ok(Some(fresh));
            }
        }
        Ok(None)
    }

    fn step_back(&mut self) {
        let until = self.until.unwrap_or_else(Timestamp::now).as_secs();
        let since = self.filter.since.filter(|since| self.wary && since.as_secs() < until);
        self.second = false;
        self.ended = since.is_none();
        self.until = Some(Timestamp::from_secs(until.saturating_sub(self.step)));
        self.step = self.step.saturating_mul(2).min(STEP_MAX_SECS);
    }
}

impl Link {
    pub(super) fn incomplete(&self, reason: impl Into<String>) -> RelayError {
        RelayError::Incomplete { relay: self.relay.url().to_string(), reason: reason.into() }
    }

    fn not_done(&self, limit: Duration) -> RelayError {
        self.incomplete(format!("not done after {} s", limit.as_secs()))
    }

    /// What the relay said when it ended a request.
    pub(super) fn closed(&self, reason: &str) -> RelayError {
        RelayError::Closed { relay: self.relay.url().to_string(), reason: clean(reason, 300) }
    }

    /// Why nothing more is to be expected on this connection, if `notice` says so.
    pub(super) fn ended_by(&self, notice: &RelayNotification) -> Option<RelayError> {
        match notice {
            RelayNotification::AuthenticationFailed => {
                Some(self.closed("it wants authentication and refused ours"))
            }
            RelayNotification::RelayStatus { status } if !status.is_connected() => {
                Some(self.incomplete("the connection was lost"))
            }
            _ => None,
        }
    }

    /// One request, to its `EOSE`.
    ///
    /// nostr-sdk's own fetch ends a stream in the same way on `EOSE` and on a lost connection, so the end is
    /// watched for here.
    pub(super) async fn read_once(&self, filters: Vec<Filter>) -> Result<Vec<Event>, RelayError> {
        self.read_through(filters, None).await
    }

    /// One request, of which only what `admit` takes is kept and returned.
    pub(super) async fn read_through(
        &self,
        filters: Vec<Filter>,
        admit: Option<Admit>,
    ) -> Result<Vec<Event>, RelayError> {
        let _slot = self.requests.acquire().await.map_err(|_| self.incomplete("shutting down"))?;
        self.connect().await?;
        let id = SubscriptionId::generate();
        let longest = self.limits.stall_timeout * LONGEST_ANSWER;
        let guarded = admit.map(|admit| self.door.guard(id.clone(), admit, longest));
        let mut notices = self.relay.notifications();
        // One that is given up here ends by itself: when the relay has been silent, or has gone on for too long.
        let close = SubscribeAutoCloseOptions::default()
            .exit_policy(ReqExitPolicy::ExitOnEOSE)
            .timeout(Some(longest))
            .idle_timeout(Some(self.limits.stall_timeout));
        self.relay
            .subscribe(filters)
            .with_id(id.clone())
            .close_on(close)
            .await
            .map_err(|error| self.incomplete(with_causes(&error)))?;
        let mut events = Vec::new();
        // Other answers on the same connection do not count.
        let mut silent_at = Instant::now() + self.limits.stall_timeout;
        let end = Instant::now() + longest;
        loop {
            let notice = match timeout_at(silent_at.min(end), notices.next()).await {
                Ok(Some(_)) if Instant::now() >= end => return Err(self.not_done(longest)),
                Ok(Some(notice)) => notice,
                Ok(None) => return Err(self.incomplete("the connection ended")),
                Err(_) if Instant::now() >= end => return Err(self.not_done(longest)),
                Err(_) => {
                    let silence = self.limits.stall_timeout.as_secs();
                    return Err(self.incomplete(format!("silent for {silence} s")));
                }
            };
            if let Some(error) = self.ended_by(&notice) {
                return Err(error);
            }
            let RelayNotification::Message { message } = notice else { continue };
            match *message {
                RelayMessage::Event { subscription_id, event } if *subscription_id == id => {
                    silent_at = Instant::now() + self.limits.stall_timeout;
                    events.push(event.into_owned());
                    if events.len() > self.limits.max_events {
                        return Err(self.incomplete(TOO_MANY));
                    }
                }
                RelayMessage::EndOfStoredEvents(of) if *of == id => {
                    self.note_answer();
                    if let Some(guarded) = guarded {
                        guarded.end();
                    }
                    return Ok(events);
                }
                RelayMessage::Closed { subscription_id, message } if *subscription_id == id => {
                    match MachineReadablePrefix::parse(&message) {
                        // nostr-sdk authenticates and asks again.
                        Some(MachineReadablePrefix::AuthRequired) => {
                            silent_at = Instant::now() + self.limits.stall_timeout;
                        }
                        _ => return Err(self.closed(&message)),
                    }
                }
                _ => {}
            }
        }
    }

    /// Every event that matches one of `filters`, page by page until a page brings nothing new.
    pub(super) async fn read_pages(&self, filters: Vec<Filter>) -> Result<Vec<Event>, RelayError> {
        let mut all = Vec::new();
        let longest = self.limits.stall_timeout * LONGEST_READ;
        let end = Instant::now() + longest;
        for filter in filters {
            let mut pages = Pages::new(filter, PAGE);
            while let Some(events) = pages.next(self).await? {
                all.extend(events);
                if all.len() > self.limits.max_events {
                    return Err(self.incomplete(TOO_MANY));
                }
                if Instant::now() >= end {
                    return Err(self.not_done(longest));
                }
            }
        }
        Ok(all)
    }

    pub(super) async fn backfill(&self, filter: Filter) -> Result<(), RelayError> {
        match self.reconcile(filter.clone(), None).await? {
            // nostr-sdk could fetch what is missing in the same breath, but takes the `CLOSED` that GRASP servers
            // send after each batch of ids for the end of the next one, and drops that.
            Some(difference) => {
                let missing: Vec<EventId> = difference.remote.into_iter().collect();
                if missing.len() > self.limits.max_events {
                    return Err(self.incomplete(TOO_MANY));
                }
                for some in missing.chunks(IDS_PER_FILTER) {
                    self.read_once(vec![Filter::new().ids(some.iter().copied())]).await?;
                }
                Ok(())
            }
            None => self.read_pages(vec![filter]).await.map(|_| ()),
        }
    }

    /// Which of `ids`, at most [`IDS_PER_FILTER`], the relay serves.
    pub(super) async fn serves(&self, ids: &[EventId]) -> Result<BTreeSet<EventId>, RelayError> {
        let filter = Filter::new().ids(ids.iter().copied());
        if self.is_known_to_speak_negentropy()
            // Names instead of events: a state has a line for every ref, and is known here.
            && let Some(difference) = self.reconcile(filter.clone(), Some(&[])).await?
        {
            return Ok(ids.iter().filter(|id| difference.remote.contains(id)).copied().collect());
        }
        Ok(self.read_once(vec![filter]).await?.into_iter().map(|event| event.id).collect())
    }

    pub(super) async fn lacks(
        &self,
        filter: Filter,
        wanted: &[(EventId, Timestamp)],
    ) -> Result<BTreeSet<EventId>, RelayError> {
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        if let Some(difference) = self.reconcile(filter.clone(), Some(wanted)).await? {
            return Ok(difference.local.into_iter().collect());
        }
        let served: HashSet<EventId> =
            self.read_pages(vec![filter]).await?.into_iter().map(|event| event.id).collect();
        Ok(wanted.iter().map(|(id, _)| *id).filter(|id| !served.contains(id)).collect())
    }

    /// Compares `items`, or else what the database holds for `filter`, with what the relay holds (NIP-77), and
    /// moves nothing. `None` when the relay does not speak it.
    pub(super) async fn reconcile(
        &self,
        filter: Filter,
        items: Option<&[(EventId, Timestamp)]>,
    ) -> Result<Option<SyncSummary>, RelayError> {
        if !self.speaks_negentropy() {
            return Ok(None);
        }
        let _slot = self.requests.acquire().await.map_err(|_| self.incomplete("shutting down"))?;
        self.connect().await?;
        let options = SyncOptions::new()
            .initial_timeout(NEGENTROPY_PATIENCE)
            .idle_timeout(self.limits.stall_timeout)
            .dry_run();
        let mut comparing = self.relay.sync(filter).opts(options);
        if let Some(items) = items {
            comparing = comparing.items(items.iter().copied());
        }
        let longest = self.limits.stall_timeout * LONGEST_ANSWER;
        let notifications = self.relay.notifications();
        let compared = select! {
            compared = timeout(longest, comparing) => compared,
            words = self.complaint(notifications) => {
                self.no_negentropy.store(true, Ordering::Relaxed);
                tracing::debug!(relay = %self.relay.url(), error = words, "no negentropy; reading by pages");
                return Ok(None);
            }
        };
        match compared {
            Err(_) => Err(self.not_done(longest)),
            Ok(Ok(difference)) => {
                self.note_negentropy();
                Ok(Some(difference))
            }
            Ok(Err(error)) => {
                self.negentropy_failed(&error);
                Ok(None)
            }
        }
    }

    /// What the relay says because it does not know NIP-77. nostr-sdk knows strfry's words for it only, and waits when it
    /// hears others. Whoever has answered in NIP-77 means something else.
    async fn complaint(&self, mut notifications: impl Stream<Item = RelayNotification> + Unpin) -> String {
        while let Some(notification) = notifications.next().await {
            if let RelayNotification::Message { message } = notification
                && let RelayMessage::Notice(words) = *message
                && !self.is_known_to_speak_negentropy()
                && is_about_unknown(&words)
            {
                return words.into_owned();
            }
        }
        pending().await
    }

    fn negentropy_failed(&self, error: &nostr_sdk::error::Error) {
        // A relay that does not know NIP-77 says so, or says nothing; either way it is not asked again in this run.
        if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Timeout | ErrorKind::Rejected) {
            self.no_negentropy.store(true, Ordering::Relaxed);
        }
        if error.kind() == ErrorKind::Timeout {
            self.is_silent.store(true, Ordering::Relaxed);
        }
        tracing::debug!(relay = %self.relay.url(), error = %with_causes(error), "no negentropy; reading by pages");
    }
}

/// Whether a relay's notice may be about a request that it does not know.
fn is_about_unknown(words: &str) -> bool {
    const MARKS: [&str; 7] = ["neg-", "negentropy", "unknown", "unrecogni", "support", "invalid", "pars"];
    let words = words.to_lowercase();
    MARKS.iter().any(|mark| words.contains(mark))
}
