//! Every event seen, in one LMDB Nostr database, and the bot's own bookkeeping in the same.
//!
//! The database is nostr-lmdb behind `nostr-database`'s trait; relays save what they bring straight into it.
//! The bot's records ([`records`]) are events too, signed by the bot and never published, so that there is no
//! second format on the disk. One daemon at a time works on a data folder ([`lock`]); readers such as `status`
//! may stand beside it, as LMDB allows.

mod database;
pub mod lock;
pub mod records;

use std::{
    fs::DirBuilder,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nostr::prelude::{Event, EventId, Filter};
use nostr_database::NostrDatabase;
use nostr_lmdb::NostrLmdb;
use tempfile::NamedTempFile;
use tokio::sync::Mutex;

use self::database::Database;
use crate::disk::free_bytes;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data folder, or what is in it, cannot be made or written.
    #[error("cannot write in {path}: {source}{}", way_out(source))]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works on the same data folder.
    #[error("the data folder {path} is in use by process {holder}; stop it, or use another --data-dir")]
    Locked {
        /// Which.
        path: PathBuf,
        /// Its process id, as far as it said.
        holder: String,
    },
    /// The database cannot be opened.
    #[error(
        "cannot open the event database in {path}: {source}; if it is damaged, move that folder away: with its key the bot \
         reads its lists back, and the rest from relays and servers"
    )]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: nostr_database::error::Error,
    },
    /// The database.
    #[error("the event database: {0}")]
    Database(#[from] nostr_database::error::Error),
    /// A record cannot be written or read.
    #[error("the record {name}: {reason}")]
    Record {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
}

/// How many events were saved since this process opened the store, by what they may change. Compared, never counted
/// on: equal numbers say that nothing was saved in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Of the kinds that say which repositories there are, and where.
    pub sources: u64,
    /// Of kinds that may be part of a conversation.
    pub talk: u64,
}

/// The event database of one data folder.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
    /// Held while a record is read and written again.
    updating: Arc<Mutex<()>>,
}

/// What a person does about a data folder that cannot be written.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or choose another folder with data_dir or --data-dir"
        }
        _ => "; choose another folder with data_dir or --data-dir, or run as its owner",
    }
}

/// Makes a folder, and those it lies in, that nobody else may enter (0700); one that is there stays as it is.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether a full disk is the reason why something in `folder` could not be written.
fn is_full(folder: &Path) -> bool {
    const BELOW_BYTES: u64 = 1 << 20;
    free_bytes(folder).is_some_and(|free| free < BELOW_BYTES)
}

/// Makes the lock file of the database in `folder`, unless it is there. LMDB would make one with holes in it and map it
/// into memory, and a hole that a full disk cannot fill ends the process without a word (SIGBUS).
fn whole_lock_file(folder: &Path) -> io::Result<()> {
    /// Larger than LMDB's own, which is then as large as it is.
    const BYTES: usize = 16 << 10;
    let file = folder.join("lock.mdb");
    if file.exists() {
        return Ok(());
    }
    let mut whole = NamedTempFile::new_in(folder)?;
    whole.write_all(&[0; BYTES])?;
    match whole.persist_noclobber(&file) {
        // Another process was faster.
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map(drop).map_err(|failed| failed.error),
    }
}

impl Store {
    /// Opens (or makes) `<data_dir>/events`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Folder`] or [`StoreError::Database`].
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("events");
        let made = private_folder(&path).and_then(|()| whole_lock_file(&path));
        made.map_err(|source| StoreError::Folder { path: path.clone(), source })?;
        let opened = NostrLmdb::open(&path).await;
        let opened = opened.map_err(|source| match is_full(&path) {
            true => StoreError::Folder { path: path.clone(), source: io::ErrorKind::StorageFull.into() },
            false => StoreError::Open { path: path.clone(), source },
        })?;
        let database = Database::over(opened, path);
        Ok(Self { database: Arc::new(database), updating: Arc::default() })
    }

    /// The database as relays take it, to save what they bring.
    #[must_use]
    pub fn database(&self) -> Arc<dyn NostrDatabase> {
        Arc::<Database>::clone(&self.database)
    }

    /// What was saved so far, by relays or by anyone else.
    #[must_use]
    pub fn news(&self) -> News {
        self.database.news()
    }

    /// Saves an event that was verified already. Whether it is new, and nothing newer stands in its place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn save(&self, event: &Event) -> Result<bool, StoreError> {
        Ok(self.database.save_event(event).await?.is_success())
    }

    /// Those of `ids` that are stored.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn by_ids(&self, ids: &[EventId]) -> Result<Vec<Event>, StoreError> {
        /// Ids in one look-up.
        const IDS_PER_FILTER: usize = 500;
        let mut found = Vec::new();
        for some in ids.chunks(IDS_PER_FILTER) {
            found.extend(self.query(Filter::new().ids(some.iter().copied())).await?);
        }
        Ok(found)
    }

    /// All stored events that match `filter`, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn query(&self, filter: Filter) -> Result<Vec<Event>, StoreError> {
        Ok(self.database.query(filter).await?.into_iter().collect())
    }
}
