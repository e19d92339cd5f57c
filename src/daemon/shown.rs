//! What the daemon shows by HTTP: it changes its picture when something happens, and looks up the rest.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use nostr::prelude::{Keys, Timestamp};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::DaemonError;
use crate::{
    config::Config,
    cycle::{self, CycleDone, Trigger},
    http::{Bound, Library, Names},
    model::{coordinate::Coordinate, server::ServerUrl},
    plan::progress::Progress,
    report::{
        history::{self, History},
        page::{Page, Sources},
        picture::{Card, Picture},
        scoreboard::Scoreboard,
    },
    store::{Store, records::Records},
};

/// The daemon's side; does nothing where nothing is shown.
pub(super) struct Shown(Option<Open>);

struct Open {
    picture: Arc<watch::Sender<Picture>>,
    names: watch::Sender<Names>,
    config: watch::Sender<Config>,
    serving: AbortHandle,
    tasks: JoinSet<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shown {
    /// Listens where the configuration says, and shows what is remembered.
    pub(super) async fn open(config: &Config, keys: &Keys, store: &Store) -> Result<Self, DaemonError> {
        let Some(address) = config.http.listen else { return Ok(Self(None)) };
        let bound = Bound::to(address).await?;
        tracing::info!(dashboard = format!("http://{}/", bound.address()), "listening");
        let report = cycle::last_report(config, store, keys).await?;
        let interval = config.bot.cycle_interval.as_secs();
        let (picture, seen) = watch::channel(Picture::new(card(config, keys), interval, report, now()));
        let picture = Arc::new(picture);
        let (names, known_as) = watch::channel(names(config));
        let (sender, receiver) = watch::channel(config.clone());
        let (store, keys, own) = (store.clone(), keys.clone(), Arc::clone(&picture));
        let mut tasks = JoinSet::new();
        let shelf = Shelf {
            records: Records::new(store.clone(), keys.clone()),
            store: store.clone(),
            keys: keys.clone(),
            config: receiver,
        };
        let serving = tasks.spawn(bound.serve(seen, known_as, Arc::new(shelf)));
        let config = config.clone();
        tasks.spawn(async move {
            match cycle::all_remembered(&config, &store, &keys).await {
                Ok(outcomes) => own.send_modify(|picture| picture.remember(&outcomes)),
                Err(error) => tracing::warn!(%error, "what is remembered of the mirrors is not shown"),
            }
        });
        Ok(Self(Some(Open { picture, names, config: sender, serving, tasks })))
    }

    fn change(&self, change: impl FnOnce(&mut Picture)) {
        if let Some(open) = &self.0 {
            open.picture.send_modify(change);
        }
    }

    /// It is known what is to be mirrored.
    pub(super) fn settled(&self, paused: bool) {
        let Some(open) = &self.0 else { return };
        open.picture.send_if_modified(|picture| {
            let new = !picture.settled || picture.paused != paused;
            (picture.settled, picture.paused) = (true, paused);
            new
        });
    }

    pub(super) fn begin(&self, trigger: Trigger) {
        self.change(|picture| picture.begin(trigger.as_str(), now()));
    }

    pub(super) fn end(&self, done: &CycleDone, elapsed: Duration) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.change(|picture| picture.end(&done.report, &done.outcomes, elapsed_ms, now()));
    }

    pub(super) fn follow(&self, done: &CycleDone) {
        self.change(|picture| picture.follow(&done.report, &done.outcomes));
    }

    pub(super) fn fail(&self, problem: &str) {
        self.change(|picture| picture.fail(problem, now()));
    }

    pub(super) fn drop_cycle(&self) {
        self.change(Picture::drop_cycle);
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        let Some(open) = &mut self.0 else { return };
        while open.tasks.try_join_next().is_some() {}
        open.names.send_replace(names(config));
        open.config.send_replace(config.clone());
        self.change(|picture| {
            picture.interval_secs = config.bot.cycle_interval.as_secs();
            picture.bot.name.clone_from(&config.bot.name);
            picture.bot.nip05 = config.bot.nip05.as_ref().map(ToString::to_string);
        });
    }
}

fn now() -> u64 {
    Timestamp::now().as_secs()
}

fn card(config: &Config, keys: &Keys) -> Card {
    let nip05 = config.bot.nip05.as_ref().map(ToString::to_string);
    Card { key: keys.public_key(), name: config.bot.name.clone(), nip05 }
}

fn names(config: &Config) -> Names {
    Names {
        nip05: config.bot.nip05.clone(),
        relays: config.bot.relays.iter().map(ToString::to_string).collect(),
        hosts: config.http.hosts.clone(),
    }
}

/// What is looked up in the store.
struct Shelf {
    store: Store,
    keys: Keys,
    records: Records,
    config: watch::Receiver<Config>,
}

impl Library for Shelf {
    fn page(&self, picture: Picture, coordinate: Coordinate) -> BoxFuture<'_, Result<Option<Page>, String>> {
        async move {
            let Some(row) = picture.row(&coordinate) else { return Ok(None) };
            let bot = self.keys.public_key();
            let failed = |error: &dyn ToString| error.to_string();
            let record =
                cycle::remembered(&self.records, &coordinate).await.map_err(|error| failed(&error))?;
            let history: Option<History> = self
                .records
                .read(&history::record_name(&coordinate))
                .await
                .map_err(|error| failed(&error))?;
            let config = self.config.borrow().clone();
            let (repository, own) = cycle::described(&config, &self.store, &bot, &coordinate)
                .await
                .map_err(|error| failed(&error))?;
            // A local copy that is broken must not hide how the mirrors are.
            let archive = cycle::old_tips(&config, &coordinate).await.unwrap_or_else(|error| {
                tracing::warn!(repository = %coordinate, %error, "its old tips are not shown");
                Vec::new()
            });
            Ok(Some(Page::of(Sources {
                bot,
                row,
                record: &record,
                history: &history.unwrap_or_default(),
                archive,
                repository: repository.as_ref(),
                own: &own,
            })))
        }
        .boxed()
    }

    fn scoreboards(
        &self,
        servers: Vec<ServerUrl>,
    ) -> BoxFuture<'_, Result<BTreeMap<ServerUrl, Scoreboard>, String>> {
        async move { cycle::scoreboards(&self.records, servers).await.map_err(|error| error.to_string()) }
            .boxed()
    }

    fn progress(&self) -> BoxFuture<'_, Result<Option<Progress>, String>> {
        async move { cycle::running(&self.records).await.map_err(|error| error.to_string()) }.boxed()
    }
}
