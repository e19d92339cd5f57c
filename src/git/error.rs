//! Why something failed in a local repository.

use std::{io, path::PathBuf};

use super::pack::PackError;
use crate::model::refs::ObjectId;

/// Why an operation on a local repository failed. Every variant names the repository's folder.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 refused.
    #[error("{doing} in {repository}: {source}")]
    Git {
        /// Folder of the repository.
        repository: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// libgit2's reason.
        source: git2::Error,
    },
    /// The file system refused.
    #[error("{doing} in {repository}: {source}")]
    Io {
        /// Folder of the repository.
        repository: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A pack is not good, received or stored.
    #[error("{repository}: {source}")]
    Pack {
        /// Folder of the repository.
        repository: PathBuf,
        /// What is wrong with it.
        source: PackError,
    },
    /// Objects are borrowed from a repository that is not there any more.
    #[error(
        "{repository} borrows objects from {base}, which is gone; put it back, or remove {repository} to have it fetched again"
    )]
    BaseGone {
        /// Folder of the repository.
        repository: PathBuf,
        /// The objects folder it borrows from.
        base: PathBuf,
    },
    /// A ref would point at nothing.
    #[error("{name} is to point at {id}, which is not in {repository}; fetch it from another clone URL")]
    MissingTip {
        /// Folder of the repository.
        repository: PathBuf,
        /// The ref, or what else wants the object.
        name: String,
        /// The object that is not there.
        id: ObjectId,
    },
    /// A branch can only point at a commit.
    #[error("{name} is to point at {id}, which is a {kind} and no commit, in {repository}")]
    NotACommit {
        /// Folder of the repository.
        repository: PathBuf,
        /// The branch.
        name: String,
        /// The object.
        id: ObjectId,
        /// What the object is.
        kind: &'static str,
    },
    /// Of two refs one would have to be a folder for the other.
    #[error("{name} cannot be there beside {other} in {repository}; one of them has to go or to be renamed")]
    InTheWay {
        /// Folder of the repository.
        repository: PathBuf,
        /// The ref.
        name: String,
        /// The one above it.
        other: String,
    },
    /// Nothing is overwritten.
    #[error("{folder} is not empty; name a folder that is, or one that is not there")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A pull request's event id has to be 64 hex digits.
    #[error("{id:?} is not an event id (64 hex digits); nothing was changed in {repository}")]
    NotAnEventId {
        /// Folder of the repository.
        repository: PathBuf,
        /// What was given.
        id: String,
    },
}
