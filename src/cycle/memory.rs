//! What the store tells without anyone being asked: the last report, the repositories known, how their mirrors were.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::{Event, Filter, Keys, Kind, PublicKey};

use super::{
    settings::own_word,
    sign::signing_name,
    survey::{SOURCES, record_name},
    world::{World, catalog_limits},
};
use crate::{
    config::Config,
    model::{announcement::Announcement, coordinate::Coordinate, server::ServerUrl},
    plan::{
        catalog::{self, Catalog, Repository, Watched},
        record::RepositoryRecord,
        signing::Signing,
    },
    report::{
        Report,
        document::{CycleSummary, IDENTIFIER, LeftAlone, RepositoryOutcome},
    },
    store::{Store, StoreError, records::Records},
};

/// The record that says when servers last proved all their mirrors.
const PROVED: &str = "proved";

pub(super) async fn latest_report_event(store: &Store, keys: &Keys) -> Result<Option<Event>, StoreError> {
    let filter =
        Filter::new().kind(Kind::ApplicationSpecificData).author(keys.public_key()).identifier(IDENTIFIER);
    Ok(store.query(filter).await?.into_iter().next())
}

/// The report of the last cycle, as stored; one that tells of no cycle when none has run.
///
/// # Errors
///
/// [`StoreError`].
pub async fn last_report(config: &Config, store: &Store, keys: &Keys) -> Result<Report, StoreError> {
    let event = latest_report_event(store, keys).await?;
    if let Some(report) = event.and_then(|event| serde_json::from_str(&event.content).ok()) {
        return Ok(report);
    }
    let authors = own_word(config, keys, store).await?.settled.settings.watched.authors;
    Ok(Report::of(CycleSummary::default(), &authors, &[], &[], LeftAlone::default()))
}

/// The catalog of everything stored, as of now.
///
/// # Errors
///
/// [`StoreError`].
pub async fn known(
    config: &Config,
    store: &Store,
    bot: &PublicKey,
    watched: &Watched,
) -> Result<Catalog, StoreError> {
    let events = store.query(Filter::new().kinds(SOURCES)).await?;
    Ok(catalog::build(&events, watched, bot, catalog_limits(config)))
}

impl World {
    /// The repositories known so far of what is watched.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn known(&self) -> Result<Vec<Coordinate>, StoreError> {
        let catalog = known(&self.config, &self.store, &self.bot(), &self.settings.watched).await?;
        Ok(catalog.repositories.into_iter().map(|repository| repository.coordinate).collect())
    }
}

/// How the mirrors of one repository were when they were last looked at.
///
/// # Errors
///
/// [`StoreError`].
pub async fn remembered(records: &Records, coordinate: &Coordinate) -> Result<RepositoryRecord, StoreError> {
    let mut record: RepositoryRecord = records.read(&record_name(coordinate)).await?.unwrap_or_default();
    record.confirm(&records.read(PROVED).await?.unwrap_or_default());
    if let Some(signing) = records.read::<Signing>(&signing_name(coordinate)).await? {
        signing.show(&mut record.mirrors);
    }
    Ok(record)
}

/// How all mirrors were when they were last looked at. For the dashboard of a daemon that has just started.
///
/// # Errors
///
/// [`StoreError`].
pub async fn all_remembered(
    config: &Config,
    store: &Store,
    keys: &Keys,
) -> Result<Vec<RepositoryOutcome>, StoreError> {
    let watched = own_word(config, keys, store).await?.settled.settings.watched;
    let catalog = known(config, store, &keys.public_key(), &watched).await?;
    let records = Records::new(store.clone(), keys.clone()).snapshot().await?;
    let proved: BTreeMap<ServerUrl, u64> = records.read(PROVED).unwrap_or_default();
    let outcome = |coordinate: Coordinate| {
        let mut record: RepositoryRecord = records.read(&record_name(&coordinate))?;
        record.confirm(&proved);
        if let Some(signing) = records.read::<Signing>(&signing_name(&coordinate)) {
            signing.show(&mut record.mirrors);
        }
        let state = record.read_back_state().or(record.local);
        Some(RepositoryOutcome::recorded(coordinate, state, &record))
    };
    let repositories = catalog.repositories.into_iter().map(|repository| repository.coordinate);
    let mut outcomes: Vec<_> = repositories.filter_map(outcome).collect();
    outcomes.sort_by(|a, b| a.coordinate.cmp(&b.coordinate));
    Ok(outcomes)
}

/// What is known of one repository, and all that the bot itself announces.
///
/// # Errors
///
/// [`StoreError`].
pub async fn described(
    config: &Config,
    store: &Store,
    bot: &PublicKey,
    coordinate: &Coordinate,
) -> Result<(Option<Repository>, Vec<Announcement>), StoreError> {
    let kinds = [Kind::GitRepoAnnouncement, Kind::RepoState];
    let family = Filter::new().kinds(kinds).identifier(coordinate.identifier.clone());
    let mut events = store.query(family).await?;
    let authors: BTreeSet<PublicKey> = events.iter().map(|event| event.pubkey).collect();
    events.extend(store.query(Filter::new().kind(Kind::EventDeletion).authors(authors)).await?);
    let watched = Watched { repositories: BTreeSet::from([coordinate.clone()]), ..Watched::default() };
    let catalog = catalog::build(&events, &watched, bot, catalog_limits(config));
    let mut repositories = catalog.repositories.into_iter();
    let own = store.query(Filter::new().kind(Kind::GitRepoAnnouncement).author(*bot)).await?;
    Ok((
        repositories.find(|repository| repository.coordinate == *coordinate),
        own.into_iter().filter_map(Announcement::read).collect(),
    ))
}

/// Remembers when servers were seen to serve all that counts as in sync there.
pub(super) async fn note_proved(
    records: &Records,
    proved: &BTreeMap<ServerUrl, u64>,
) -> Result<(), StoreError> {
    let mut all: BTreeMap<ServerUrl, u64> = records.read(PROVED).await?.unwrap_or_default();
    all.extend(proved.iter().map(|(server, at)| (server.clone(), *at)));
    records.write(PROVED, &all).await
}
