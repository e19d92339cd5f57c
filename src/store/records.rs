//! The bot's bookkeeping: what each server acknowledged, last read-backs, retries.
//!
//! A record is a kind 30078 event signed by the bot, `d` = `grasp-mirror/local/<name>` (a long name's hash),
//! content JSON, that is never published. It lives in the same database as every other event.

use std::collections::HashMap;

use nostr::prelude::{Event, EventBuilder, Filter, FinalizeEvent, Keys, Kind, Tag, Timestamp};
use nostr_database::NostrDatabase;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{Store, StoreError};
use crate::model::replace::dated_after;

const PREFIX: &str = "grasp-mirror/local/";

/// Then what a long name is kept by.
const HASHED: &str = "sha256/";

/// The longest `d`, in bytes, that the database tells apart from others: longer ones with the same beginning
/// replace each other.
const IDENTIFIER_MAX: usize = 182;

/// Reads and writes the bot's own records.
#[derive(Clone, Debug)]
pub struct Records {
    store: Store,
    keys: Keys,
}

impl Records {
    /// The records of the bot with `keys`.
    #[must_use]
    pub fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    fn filter(&self, identifier: &str) -> Filter {
        Filter::new()
            .kind(Kind::ApplicationSpecificData)
            .author(self.keys.public_key())
            .identifier(identifier)
    }

    /// The record called `name`; `None` when there is none, or when an older version wrote what this one
    /// cannot read (records can always be learned again from the servers).
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let found = self.store.query(self.filter(&identifier(name))).await?;
        Ok(found.first().and_then(parsed))
    }

    /// Writes the record called `name`, unless it already says the same.
    ///
    /// # Errors
    ///
    /// [`StoreError::Record`] when the database did not take it.
    pub async fn write<T: Serialize + Sync>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let failed = |reason: String| StoreError::Record { name: name.to_owned(), reason };
        let content = serde_json::to_string(value).map_err(|error| failed(error.to_string()))?;
        let identifier = identifier(name);
        let before = self.store.query(self.filter(&identifier)).await?;
        if before.first().is_some_and(|before| before.content == content) {
            return Ok(());
        }
        let event = EventBuilder::new(Kind::ApplicationSpecificData, content)
            .tag(Tag::identifier(identifier))
            .custom_created_at(dated_after(before.first(), Timestamp::now()))
            .finalize(&self.keys)
            .map_err(|error| failed(error.to_string()))?;
        let status = self.store.database.save_event(&event).await?;
        if status.is_success() { Ok(()) } else { Err(failed(format!("the database said {status:?}"))) }
    }

    /// Changes the record called `name`, which is empty when there is none. Nobody else does meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn update<T>(&self, name: &str, change: impl FnOnce(&mut T) + Send) -> Result<(), StoreError>
    where
        T: Default + Serialize + DeserializeOwned + Send + Sync,
    {
        let _updating = self.store.updating.lock().await;
        let mut value: T = self.read(name).await?.unwrap_or_default();
        change(&mut value);
        self.write(name, &value).await
    }

    /// All records there are, read at once: for whoever needs most of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let filter = Filter::new().kind(Kind::ApplicationSpecificData).author(self.keys.public_key());
        let events = self.store.query(filter).await?;
        let named = |event: Event| Some((event.tags.identifier()?.to_string(), event.content));
        Ok(Snapshot { contents: events.into_iter().filter_map(named).collect() })
    }

    /// All records whose name begins with `prefix` and that can be read. Short names only.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        let begins = format!("{PREFIX}{prefix}");
        let filter = Filter::new().kind(Kind::ApplicationSpecificData).author(self.keys.public_key());
        let events = self.store.query(filter).await?;
        let named = events.iter().filter(|event| {
            event.tags.identifier().is_some_and(|identifier| identifier.starts_with(&begins))
        });
        Ok(named.filter_map(parsed).collect())
    }

    /// Removes the record called `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.store.database.delete(self.filter(&identifier(name))).await?;
        Ok(())
    }
}

/// The records as they were at one moment.
#[derive(Debug)]
pub struct Snapshot {
    contents: HashMap<String, String>,
}

impl Snapshot {
    /// The record called `name`, as [`Records::read`] has it.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let identifier = identifier(name);
        read_content(&identifier, self.contents.get(&identifier)?)
    }

    /// Whether one may have a name that begins with `prefix`: of long names that is not known.
    #[must_use]
    pub fn may_hold(&self, prefix: &str) -> bool {
        let begins = [format!("{PREFIX}{prefix}"), format!("{PREFIX}{HASHED}")];
        self.contents.keys().any(|identifier| begins.iter().any(|begin| identifier.starts_with(begin)))
    }
}

fn parsed<T: DeserializeOwned>(record: &Event) -> Option<T> {
    read_content(&record.tags.identifier().unwrap_or_default(), &record.content)
}

fn read_content<T: DeserializeOwned>(name: &str, content: &str) -> Option<T> {
    serde_json::from_str(content)
        .inspect_err(|error| tracing::warn!(name, %error, "a record is unreadable and starts anew"))
        .ok()
}

/// The `d` of the record called `name`; names hold repositories' identifiers, which may be of any length.
fn identifier(name: &str) -> String {
    let whole = format!("{PREFIX}{name}");
    if whole.len() <= IDENTIFIER_MAX {
        return whole;
    }
    let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{HASHED}{hash}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn what_a_snapshot_may_hold_is_told_by_the_beginning_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(dir.path()).await.unwrap(), Keys::generate());
        let may_hold = async || records.snapshot().await.unwrap().may_hold("signing/");
        records.write("mirrors/x", &1).await.unwrap();
        assert!(!may_hold().await);
        records.write("signing/x", &1).await.unwrap();
        assert!(may_hold().await);
        records.remove("signing/x").await.unwrap();
        assert!(!may_hold().await);
        records.write(&format!("signing/{}", "x".repeat(300)), &1).await.unwrap();
        assert!(may_hold().await, "a long name");
    }

    #[tokio::test]
    async fn the_last_write_counts_even_within_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate();
        let records = Records::new(Store::open(dir.path()).await.unwrap(), keys.clone());
        assert_eq!(records.read::<u32>("x").await.unwrap(), None);
        for value in 0..5_u32 {
            records.write("x", &value).await.unwrap();
        }
        records.write("y", &"other").await.unwrap();
        assert_eq!(records.read::<u32>("x").await.unwrap(), Some(4));
        // Another type in its place is not an error but a fresh start.
        assert_eq!(records.read::<u32>("y").await.unwrap(), None);
        // Another bot's records are not ours.
        let other = Records::new(records.store.clone(), Keys::generate());
        assert_eq!(other.read::<u32>("x").await.unwrap(), None);
    }

    #[tokio::test]
    async fn long_names_that_begin_alike_are_two_records() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(dir.path()).await.unwrap(), Keys::generate());
        let long = "x".repeat(200);
        records.write(&format!("{long}1"), &1_u32).await.unwrap();
        records.write(&format!("{long}2"), &2_u32).await.unwrap();
        assert_eq!(records.read::<u32>(&format!("{long}1")).await.unwrap(), Some(1));
        assert_eq!(records.read::<u32>(&format!("{long}2")).await.unwrap(), Some(2));
        let snapshot = records.snapshot().await.unwrap();
        assert_eq!(snapshot.read::<u32>(&format!("{long}2")), Some(2));
        assert_eq!(snapshot.read::<u32>(&long), None);
    }
}
