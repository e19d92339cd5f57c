//! The bot's own key: given, or made once and kept in the data folder.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nostr::{
    key::{Keys, SecretKey},
    nips::nip19::ToBech32,
};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{KeyFrom, mode_for_others};

/// The key's name in the data folder.
const FILE_NAME: &str = "nsec";

/// No key is longer; more is not read from a file that somebody named by mistake.
const MAX_BYTES: u64 = 1024;

/// The bot's key pair and where it came from.
#[derive(Clone, Debug)]
pub struct BotKey {
    /// The key pair. Its `Debug` shows the public half only.
    pub keys: Keys,
    /// Where it came from.
    pub source: KeySource,
}

/// Where the bot's key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `MIRROR_NSEC`.
    Variable,
    /// This file, found there.
    File(PathBuf),
    /// Just made, and written to this file: people must hear of it.
    Made(PathBuf),
}

/// Why there is no key. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file cannot be read.
    #[error("the key file {} cannot be read: {source}{}", file.display(), way_out(source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file that was named is not there.
    #[error(
        "there is no key file {}, which MIRROR_NSEC_FILE names: put the bot's key there (nsec1… or 64 hex digits), or leave \
         MIRROR_NSEC_FILE out, and `grasp-mirror init` makes one",
        file.display()
    )]
    Missing {
        /// Which file.
        file: PathBuf,
    },
    /// A new key cannot be kept.
    #[error(
        "the bot's key cannot be written in {}: {source}; choose another folder with data_dir or --data-dir",
        folder.display()
    )]
    Unwritable {
        /// The data folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is no key.
    #[error("{origin} holds no secret key (content not shown); expected nsec1… or 64 hex digits")]
    Malformed {
        /// The file or variable.
        origin: String,
    },
}

/// What a person does about a file that is somebody else's.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as its owner, such as with sudo",
        _ => "",
    }
}

impl KeyError {
    fn is_missing(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(self, Self::Unreadable { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
    }
}

/// The key, when there is one; makes nothing.
///
/// # Errors
///
/// A file named by `MIRROR_NSEC_FILE` is missing, or what is there is no key.
pub fn find(from: &KeyFrom, data_dir: &Path) -> Result<Option<BotKey>, KeyError> {
    match from {
        KeyFrom::Value(nsec) => {
            let keys = parse(nsec, || "MIRROR_NSEC".to_owned())?;
            Ok(Some(BotKey { keys, source: KeySource::Variable }))
        }
        KeyFrom::File(file) => match read(file) {
            Err(error) if error.is_missing() => Err(KeyError::Missing { file: file.clone() }),
            found => found.map(Some),
        },
        KeyFrom::DataDir => match read(&data_dir.join(FILE_NAME)) {
            Err(error) if error.is_missing() => Ok(None),
            found => found.map(Some),
        },
    }
}

/// The key; with none anywhere, makes one and keeps it in `data_dir` (0700), readable by nobody else (0600).
///
/// # Errors
///
/// As [`find`], and when the new key cannot be written to the disk.
pub fn find_or_make(from: &KeyFrom, data_dir: &Path) -> Result<BotKey, KeyError> {
    if let Some(found) = find(from, data_dir)? {
        return Ok(found);
    }
    let file = data_dir.join(FILE_NAME);
    let keys = Keys::generate();
    match write(data_dir, &file, keys.secret_key()) {
        Ok(()) => Ok(BotKey { keys, source: KeySource::Made(file) }),
        // Another process was faster: there must be one key, so take its.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&file),
        Err(source) => Err(KeyError::Unwritable { folder: data_dir.to_owned(), source }),
    }
}

fn read(file: &Path) -> Result<BotKey, KeyError> {
    let failed = |source| KeyError::Unreadable { file: file.to_owned(), source };
    let opened = File::open(file).map_err(failed)?;
    if let Some(mode) = mode_for_others(file, &opened.metadata().map_err(failed)?) {
        tracing::warn!(file = %file.display(), mode = format!("{mode:o}"), "others may read the bot's key: chmod 600 it");
    }
    let mut text = String::new();
    match opened.take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => text.clear(),
        Err(error) => return Err(failed(error)),
    }
    let keys = parse(&text.into(), || file.display().to_string())?;
    Ok(BotKey { keys, source: KeySource::File(file.to_owned()) })
}

fn parse(nsec: &SecretString, origin: impl Fn() -> String) -> Result<Keys, KeyError> {
    Keys::parse(nsec.expose_secret().trim()).map_err(|_| KeyError::Malformed { origin: origin() })
}

/// Writes beside and links into place, so that a crash leaves a whole key or none.
fn write(data_dir: &Path, file: &Path, key: &SecretKey) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let Ok(nsec) = key.to_bech32();
    let nsec = SecretString::from(nsec);
    let beside = data_dir.join(format!("{FILE_NAME}.{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let written = (|| {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        new.write_all(nsec.expose_secret().as_bytes())?;
        new.write_all(b"\n")?;
        new.sync_all()?;
        // Unlike a rename, a link never replaces a key that is there.
        fs::hard_link(&beside, file)
    })();
    let _ = fs::remove_file(&beside);
    written?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        assert!(find(&KeyFrom::DataDir, &data_dir).unwrap().is_none());

        let made = find_or_make(&KeyFrom::DataDir, &data_dir).unwrap();
        let file = data_dir.join("nsec");
        assert_eq!(made.source, KeySource::Made(file.clone()));
        assert_eq!((mode(&data_dir), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);

        let again = find_or_make(&KeyFrom::DataDir, &data_dir).unwrap();
        assert_eq!(again.source, KeySource::File(file));
        assert_eq!(again.keys.public_key(), made.keys.public_key());
    }

    #[test]
    fn a_given_key_is_used_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::generate();
        let nsec = keys.secret_key().to_bech32().unwrap();

        let by_value = find_or_make(&KeyFrom::Value(nsec.clone().into()), folder.path()).unwrap();
        assert_eq!(by_value.keys.public_key(), keys.public_key());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let file = folder.path().join("my key");
        fs::write(&file, format!("  {nsec}\n")).unwrap();
        let by_file = find_or_make(&KeyFrom::File(file), folder.path()).unwrap();
        assert_eq!(by_file.keys.public_key(), keys.public_key());
    }

    #[test]
    fn what_is_no_key_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nsec");
        fs::write(&file, "nsec1secretsecret").unwrap();
        let error = find_or_make(&KeyFrom::DataDir, folder.path()).unwrap_err();
        assert!(error.to_string().contains("nsec") && !format!("{error} {error:?}").contains("secretsecret"));
        let missing = find_or_make(&KeyFrom::File(folder.path().join("gone")), folder.path()).unwrap_err();
        assert!(missing.to_string().contains("gone"));
    }
}
