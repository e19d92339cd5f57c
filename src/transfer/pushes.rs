//! Pushes wait for a place at their server, and go on by themselves when their walk leaves off for something newer.
//!
//! A push is not broken off for that: states could come faster than a slow server takes a pack, and then none would ever
//! arrive. It ends by itself, and the walk for what is newer begins with its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::{Limits, newer::Newer};
use crate::{
    git::{
        Pack,
        wire::{Advertisement, GitHttp, Pushed, RefUpdate, WireError},
    },
    model::{coordinate::Coordinate, server::ServerUrl},
};

/// A push of so many bytes is a large one.
const LARGE: u64 = 8 << 20;

/// Small pushes to one server at a time.
const SMALL_AT_ONCE: usize = 8;

/// Where a push goes: the server, and the path there.
pub(super) type Target = (ServerUrl, Coordinate);

/// The pushes of one program.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    places: Mutex<HashMap<ServerUrl, Places>>,
    /// Those whose walk has left off; broken off when dropped.
    left: Mutex<HashMap<Target, JoinSet<()>>>,
}

/// The places for pushes at one server.
#[derive(Debug)]
struct Places {
    large: Arc<Semaphore>,
    small: Arc<Semaphore>,
}

/// A place at a server, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// What is pushed.
#[derive(Clone, Copy)]
pub(super) struct Parcel<'a> {
    /// The refs that the server has.
    pub(super) server: &'a Advertisement,
    /// How they are to change.
    pub(super) commands: &'a [RefUpdate],
    /// The objects that it lacks for that.
    pub(super) pack: &'a Pack,
}

impl Pushes {
    /// A place for a push of so many bytes to `server`. A server holds what it is sent in memory, so large ones wait
    /// for each other; small ones go beside them.
    ///
    /// `None` when something newer came first.
    pub(super) async fn place(
        &self,
        server: &ServerUrl,
        pack_bytes: u64,
        limits: Limits,
        newer: &Newer,
    ) -> Option<Place> {
        let places = {
            let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let places = all.entry(server.clone()).or_insert_with(|| Places {
                large: Arc::new(Semaphore::new(limits.per_server)),
                small: Arc::new(Semaphore::new(SMALL_AT_ONCE)),
            });
            Arc::clone(if pack_bytes < LARGE { &places.small } else { &places.large })
        };
        tokio::select! {
            // Nobody closes them, so there is always one.
            place = places.acquire_owned() => place.ok().map(Place),
            () = newer.comes() => None,
        }
    }

    /// Pushes in its `place`. `None` when something newer came first: then the push goes on without its walk.
    pub(super) async fn push(
        &self,
        place: Place,
        git: &GitHttp,
        target: &Target,
        parcel: Parcel<'_>,
        limits: Limits,
        newer: &Newer,
    ) -> Option<Result<Pushed, WireError>> {
        let (git, server) = (git.clone(), parcel.server.clone());
        let (commands, pack) = (parcel.commands.to_vec(), parcel.pack.clone());
        let mut push = JoinSet::new();
        push.spawn(async move {
            let _place = place;
            git.push(&server, &commands, &pack).await
        });
        tokio::select! {
            Some(Ok(pushed)) = push.join_next() => return Some(pushed),
            () = newer.comes() => {}
        }
        tracing::debug!(server = %target.0, path = %target.1, "a push goes on while something newer begins");
        let mut left = JoinSet::new();
        left.spawn(async move {
            if timeout(limits.total_timeout, push.join_next()).await.is_err() {
                tracing::warn!("a push that was left to itself was not done in time");
            }
        });
        self.left().insert(target.clone(), left);
        None
    }

    /// Waits for the push that an earlier walk has left at `target`, or until something newer comes.
    pub(super) async fn end_of_earlier(&self, target: &Target, newer: &Newer) {
        let Some(mut push) = self.left().remove(target) else { return };
        tokio::select! {
            _ = push.join_next() => {}
            () = newer.comes() => {
                self.left().insert(target.clone(), push);
            }
        }
    }

    /// Breaks off what goes on without its walk.
    pub(super) fn break_off(&self) {
        self.left().clear();
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Target, JoinSet<()>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
