//! What is new, for whoever keeps the page open.
//!
//! Each picture that differs from the one before has a number. A client that has number n is told what became
//! different in n + 1; one that missed something, or for whom it would be more than half of everything, is told to
//! read all again.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{body::Bytes, response::sse::Event};
use futures::{Stream, stream};
use nostr::prelude::Timestamp;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch},
    time::{Instant, sleep},
};

use super::Library;
use crate::{
    model::{coordinate::npub, server::ServerUrl},
    plan::progress::Progress,
    report::picture::{Brief, Header, Picture},
};

/// Streams of events at a time.
const STREAMS: usize = 48;

/// News that may wait for a slow client, before it is told to read all again.
const BEHIND: usize = 32;

/// More changed repositories than this are not told one by one.
const CHANGES_MAX: usize = 300;

/// Between two news: a burst is one.
const BETWEEN: Duration = Duration::from_millis(200);

/// Between two looks at how far a cycle is, while somebody watches.
const PROGRESS: Duration = Duration::from_secs(2);

/// A picture with its number.
pub(super) struct Edition {
    number: u64,
    pub(super) picture: Picture,
    everything: OnceLock<Bytes>,
}

#[derive(Serialize)]
struct Everything<'a> {
    edition: u64,
    #[serde(flatten)]
    header: Header<'a>,
    repos: Vec<Brief<'a>>,
}

#[derive(Serialize)]
struct Changes<'a> {
    edition: u64,
    #[serde(flatten)]
    header: Header<'a>,
    repos: Vec<Brief<'a>>,
    gone: Vec<(String, &'a str)>,
}

impl Edition {
    /// All that the dashboard needs at first, as JSON; made once, for whoever asks.
    pub(super) fn everything(&self) -> Result<Bytes, serde_json::Error> {
        if let Some(known) = self.everything.get() {
            return Ok(known.clone());
        }
        let picture = &self.picture;
        let columns = picture.columns();
        let repos = picture.rows.iter().map(|row| Brief { row, columns: &columns }).collect();
        let header = picture.header(Timestamp::now().as_secs());
        let json = Bytes::from(serde_json::to_vec(&Everything { edition: self.number, header, repos })?);
        Ok(self.everything.get_or_init(|| json).clone())
    }

    /// What is new in here, as JSON; `None` when it is better to read all again.
    fn news_since(&self, before: &Self) -> Option<String> {
        let columns: Vec<ServerUrl> = self.picture.columns();
        let (changed, gone) = self.picture.changes_since(&before.picture);
        if columns != before.picture.columns() || changed.len() + gone.len() > CHANGES_MAX {
            return None;
        }
        let changes = Changes {
            edition: self.number,
            header: self.picture.header(Timestamp::now().as_secs()),
            repos: changed.into_iter().map(|row| Brief { row, columns: &columns }).collect(),
            gone: gone.into_iter().map(|gone| (npub(&gone.owner), gone.identifier.as_str())).collect(),
        };
        serde_json::to_string(&changes).ok()
    }
}

/// One piece of news; `data` is JSON without line breaks.
#[derive(Clone, Debug)]
struct News {
    name: &'static str,
    data: Arc<str>,
}

impl News {
    fn event(&self) -> Event {
        Event::default().event(self.name).data(&*self.data)
    }
}

/// The newest edition, and who waits for the next.
pub(super) struct Live {
    edition: watch::Sender<Arc<Edition>>,
    news: broadcast::Sender<News>,
    free: Arc<Semaphore>,
}

impl Live {
    pub(super) fn new(picture: Picture) -> Arc<Self> {
        let first = Edition { number: first_number(), picture, everything: OnceLock::new() };
        Arc::new(Self {
            edition: watch::channel(Arc::new(first)).0,
            news: broadcast::channel(BEHIND).0,
            free: Arc::new(Semaphore::new(STREAMS)),
        })
    }

    pub(super) fn edition(&self) -> Arc<Edition> {
        Arc::clone(&self.edition.borrow())
    }

    /// Numbers the pictures and tells what is new, until there are no more.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut picture: watch::Receiver<Picture>,
        library: Arc<dyn Library>,
    ) {
        let mut told: Option<Progress> = None;
        let mut look_at = Instant::now() + PROGRESS;
        loop {
            let watched = self.news.receiver_count() > 0 && picture.borrow().running.is_some();
            tokio::select! {
                changed = picture.changed() => match changed {
                    Ok(()) => {
                        let newest = picture.borrow_and_update().clone();
                        self.publish(newest);
                        sleep(BETWEEN).await;
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(look_at), if watched => {
                    look_at = Instant::now() + PROGRESS;
                    let progress = library.progress().await.ok().flatten();
                    if progress != told {
                        self.tell("progress", serde_json::to_string(&progress).ok());
                        told = progress;
                    }
                }
            }
        }
    }

    fn publish(&self, picture: Picture) {
        let before = self.edition();
        if before.picture == picture {
            return;
        }
        let edition = Edition { number: before.number + 1, picture, everything: OnceLock::new() };
        let watched = self.news.receiver_count() > 0;
        let news = watched.then(|| edition.news_since(&before));
        // Whoever comes now has it, and is told nothing twice: the number says so.
        self.edition.send_replace(Arc::new(edition));
        match news {
            Some(Some(news)) => self.tell("changed", Some(news)),
            Some(None) => self.tell("reload", Some("{}".to_owned())),
            None => {}
        }
    }

    fn tell(&self, name: &'static str, data: Option<String>) {
        if let Some(data) = data {
            // Nobody may be there any more.
            let _ = self.news.send(News { name, data: data.into() });
        }
    }

    /// What is new from now on; `None` when too many listen. First comes the number of the newest edition.
    pub(super) fn listen(
        &self,
    ) -> Option<impl Stream<Item = Result<Event, std::convert::Infallible>> + use<>> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let listener =
            Listener { news: self.news.subscribe(), _permit: permit, first: Some(self.edition().number) };
        Some(stream::unfold(
            listener,
            |mut listener| async move { Some((Ok(listener.next().await?), listener)) },
        ))
    }
}

struct Listener {
    news: broadcast::Receiver<News>,
    _permit: OwnedSemaphorePermit,
    first: Option<u64>,
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        if let Some(number) = self.first.take() {
            return Some(Event::default().event("edition").data(number.to_string()));
        }
        match self.news.recv().await {
            Ok(news) => Some(news.event()),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::default().event("reload").data("{}")),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Editions of two processes must not be taken for each other; a browser reads such a number exactly.
fn first_number() -> u64 {
    Timestamp::now().as_secs().saturating_mul(1_000)
}
