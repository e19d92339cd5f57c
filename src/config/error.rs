//! What can be wrong with the configuration.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the configuration cannot be used. No variant carries the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is there (or was asked for) and cannot be read.
    #[error("cannot read {}: {source}{}", file.display(), way_out(file, source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, or not the lines of a `.env`.
    #[error("{}, line {line}: {problem}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was met, and what would do.
        problem: String,
    },
    /// A key or variable of a file is unknown, or its value will not do.
    #[error("{}, line {line}: {key}: {problem}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The whole key, such as `limits.transfers`, or the variable.
        key: String,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// A variable of the real environment will not do.
    #[error("environment variable {variable}: {problem}")]
    Variable {
        /// Which one.
        variable: String,
        /// What is wrong, and what would do.
        problem: String,
    },
}

/// What a person does about a file that is not there, or is somebody else's.
fn way_out(file: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; `grasp-mirror init --config {}` writes one", file.display())
        }
        io::ErrorKind::PermissionDenied => "; run as its owner, such as with sudo".to_owned(),
        _ => String::new(),
    }
}

/// The one of `known` that a person most likely meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
