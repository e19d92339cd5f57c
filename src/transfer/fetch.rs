//! Brings git data here: exactly the signed commits and tags, from whoever has them.
//!
//! Sources are tried one after the other, and each is asked only for what is still missing, so several can
//! supply one repository together. Nothing a source says about its refs is believed: what arrives is checked
//! by the local repository, which takes a pack whole or not at all. Where one source offers all that is missing,
//! its pack may go to the servers before that check: they make their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    Transfer, blocking,
    supply::{Fetched, Supply, SupplyError},
};
use crate::{
    disk::free_bytes,
    git::{
        GitError, Repository,
        wire::{RemoteRefs, Room, WireError},
    },
    model::{
        address::{shown, shown_text},
        refs::ObjectId,
    },
};

/// Objects that signed events name, by what names them.
pub type Tips = BTreeMap<String, ObjectId>;

/// Why git data could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No source had it all.
    #[error("no clone URL serves what was signed: {}", .sources.join("; "))]
    NotServed {
        /// What each source said or lacked.
        sources: Vec<String>,
        /// Whether one of them sent more than `limits.max_repo_bytes`.
        too_large: bool,
    },
    /// The disk is nearly full.
    #[error("the disk of {folder} is full: {reason}; free some space, or lower limits.disk_floor_bytes")]
    DiskFull {
        /// The local copy's folder.
        folder: PathBuf,
        /// What there is, and what there would have to be.
        reason: String,
    },
    /// The local copy is in trouble.
    #[error(transparent)]
    Local(Arc<GitError>),
}

impl From<GitError> for FetchError {
    fn from(error: GitError) -> Self {
        Self::Local(Arc::new(error))
    }
}

impl FetchError {
    fn spoiled(source: &str, error: &GitError) -> Self {
        let sources = vec![format!("{source} sent a pack that is thrown away: {error}")];
        Self::NotServed { sources, too_large: false }
    }
}

/// Why one source did not help.
#[derive(Default)]
struct Unhelpful {
    reason: String,
    too_large: bool,
    no_room: bool,
}

impl From<String> for Unhelpful {
    fn from(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }
}

impl From<WireError> for Unhelpful {
    fn from(error: WireError) -> Self {
        Self {
            too_large: matches!(error, WireError::TooLarge { .. }),
            no_room: matches!(error, WireError::NoRoom { .. }),
            reason: error.to_string(),
        }
    }
}

impl Transfer {
    /// Makes sure that `repository` holds every one of `tips` with all they refer to, and fetches no pack of more than
    /// `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`FetchError::NotServed`] says for each source why it did not help.
    pub async fn bring(
        &self,
        repository: &Repository,
        tips: &Tips,
        sources: &[String],
        max_bytes: u64,
    ) -> Result<(), FetchError> {
        let mut sources = sources.to_vec();
        loop {
            let supply = self.fetch(repository, tips, &sources, max_bytes).await?;
            match supply.take_in().await {
                Ok(()) => return Ok(()),
                Err(SupplyError::Local(error)) => return Err(FetchError::Local(error)),
                Err(SupplyError::Spoiled { source_url, error }) => {
                    let before = sources.len();
                    sources.retain(|source| shown_text(source) != source_url);
                    if sources.is_empty() || sources.len() == before {
                        return Err(FetchError::spoiled(&source_url, &error));
                    }
                    tracing::warn!(source = source_url, %error, "a source sent a pack that is thrown away");
                }
            }
        }
    }

    /// What is needed to push `tips`: where one source has all that is missing, its pack as it came, not looked at
    /// yet; else everything is brought into `repository`. No pack may have more than `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`FetchError::NotServed`] says for each source why it did not help.
    pub async fn fetch(
        &self,
        repository: &Repository,
        tips: &Tips,
        sources: &[String],
        max_bytes: u64,
    ) -> Result<Supply, FetchError> {
        let mut missing = self.missing(repository, tips).await?;
        if missing.is_empty() {
            return Ok(Supply::of(repository.clone()));
        }
        let room = self.room(repository, max_bytes)?;
        let mut reasons = Vec::new();
        let mut too_large = false;
        let deadline = Instant::now() + self.limits.total_timeout;
        for (index, source) in sources.iter().enumerate() {
            // Half of the time that is left: one that drips byte by byte must not use up the next one's.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if index + 1 == sources.len() { left } else { left / 2 };
            let tried = timeout(share, self.fetch_from(repository, tips, &missing, source, room)).await;
            let tried = tried.unwrap_or_else(|_| {
                Err(format!("{} was not done within {} s", shown_text(source), share.as_secs()).into())
            });
            if let Ok(Some(fetched)) = tried {
                return Ok(Supply::with(repository.clone(), fetched));
            }
            missing = self.missing(repository, tips).await?;
            let reason = match (tried, missing.first_key_value()) {
                (_, None) => return Ok(Supply::of(repository.clone())),
                (Err(Unhelpful { no_room: true, reason, .. }), _) => {
                    return Err(FetchError::DiskFull { folder: repository.path().to_owned(), reason });
                }
                (Err(unhelpful), _) => {
                    too_large |= unhelpful.too_large;
                    unhelpful.reason
                }
                (Ok(_), Some((name, id))) => format!("{} has not {id} ({name})", shown_text(source)),
            };
            tracing::debug!(reason, "a source did not help");
            reasons.push(reason);
        }
        if sources.is_empty() {
            reasons.push("there is no clone URL".to_owned());
        }
        reasons.dedup();
        Err(FetchError::NotServed { sources: reasons, too_large })
    }

    /// How much may be fetched: what is allowed, and what the disk has above the floor.
    fn room(&self, repository: &Repository, max_bytes: u64) -> Result<Room, FetchError> {
        let allowed = Room::up_to(max_bytes);
        // A disk that cannot be asked is not taken for a full one.
        let Some(free) = free_bytes(repository.path()) else { return Ok(allowed) };
        match free.checked_sub(self.limits.disk_floor_bytes) {
            Some(above) if above >= allowed.bytes => Ok(allowed),
            Some(above) if above > 0 => Ok(Room { bytes: above, is_disk: true }),
            _ => {
                let reason = format!("only {free} bytes are free, less than limits.disk_floor_bytes");
                Err(FetchError::DiskFull { folder: repository.path().to_owned(), reason })
            }
        }
    }

    async fn missing(&self, repository: &Repository, tips: &Tips) -> Result<Tips, GitError> {
        let (repository, tips) = (repository.clone(), tips.clone());
        blocking(move || {
            let absent: HashSet<ObjectId> = repository.missing(tips.values().copied())?.into_iter().collect();
            Ok(tips.into_iter().filter(|(_, id)| absent.contains(id)).collect())
        })
        .await
    }

    /// Fetches what `source` has of `missing`: as a pack that is not looked at yet where that is all of it, else
    /// into `repository`.
    async fn fetch_from(
        &self,
        repository: &Repository,
        tips: &Tips,
        missing: &Tips,
        source: &str,
        room: Room,
    ) -> Result<Option<Fetched>, Unhelpful> {
        let url: Url = source.parse().map_err(|_| format!("{} is not a URL", shown_text(source)))?;
        let source = shown(&url);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{source} is not http(s)").into());
        }
        self.guard.check(&url).await.map_err(|error| error.to_string())?;
        let advertised: HashSet<ObjectId> = self.list_refs(&url).await?.refs.into_values().collect();
        let wanted: BTreeSet<ObjectId> = missing.values().copied().collect();
        // What a source does not advertise it may still have, but one unknown object spoils a whole request.
        let (shown, hidden): (Vec<ObjectId>, Vec<ObjectId>) =
            wanted.into_iter().partition(|id| advertised.contains(id));
        let is_all = hidden.is_empty();
        for wants in [shown, hidden] {
            let (wants, haves) =
                self.wants_and_haves(repository, tips, wants).await.map_err(|error| error.to_string())?;
            if wants.is_empty() {
                continue;
            }
            let pack = self.git.fetch_pack(&url, &wants, &haves, room, &repository.incoming_dir()).await;
            let pack = pack.map_err(|error| self.noted(&url, error))?;
            tracing::info!(source, pack_bytes = pack.bytes, "fetched");
            let fetched = Fetched { pack, wants, source: source.clone() };
            if is_all {
                return Ok(Some(fetched));
            }
            let taken = Supply::with(repository.clone(), fetched).take_in().await;
            taken.map_err(|error| error.to_string())?;
        }
        Ok(None)
    }

    /// The refs at `url`, unless its host is left alone.
    async fn list_refs(&self, url: &Url) -> Result<RemoteRefs, Unhelpful> {
        self.common.left_alone.may_be_asked(url)?;
        self.git.ls_refs(url).await.map_err(|error| self.noted(url, error))
    }

    fn noted(&self, url: &Url, error: WireError) -> Unhelpful {
        self.common.left_alone.note_failed(url, &error, self.limits.silence.first);
        error.into()
    }

    /// Those of `wants` that an earlier request has not brought along, and what a source is told is here: the local
    /// refs, which are those of the last state. Servers that were in sync with it have all of them, and so can use
    /// what is fetched as it comes. Without local refs: what is here already of
    /// `tips`, and what a base lends.
    async fn wants_and_haves(
        &self,
        repository: &Repository,
        tips: &Tips,
        wants: Vec<ObjectId>,
    ) -> Result<(Vec<ObjectId>, Vec<ObjectId>), GitError> {
        let (held, tips) = (repository.clone(), tips.clone());
        blocking(move || {
            let mut haves: Vec<ObjectId> = held.refs()?.into_values().collect();
            if haves.is_empty() {
                let absent: HashSet<ObjectId> = held.missing(tips.values().copied())?.into_iter().collect();
                haves = tips.into_values().filter(|id| !absent.contains(id)).collect();
                haves.extend(held.borrowed_haves()?);
            }
            Ok((held.missing(wants)?, haves))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{net::TcpListener, sync::Arc, time::Duration};

    use nostr::prelude::Keys;

    use super::*;
    use crate::{
        git::wire::{self, GitHttp, http_client},
        relay::{self, Relays},
        store::Store,
        transfer::{self, guard::Guard},
    };

    #[tokio::test]
    async fn a_host_that_does_not_answer_is_waited_for_once() {
        let minute = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(true, []);
        let limits = relay::Limits::waiting(minute);
        let database = Store::open(folder.path()).await.unwrap().database();
        let relays = Relays::new(database, Arc::new(guard.clone()), Keys::generate(), limits);
        let stall = Duration::from_millis(100);
        let git = GitHttp::new(
            http_client(minute, None).unwrap(),
            wire::Limits { stall, ..wire::Limits::default() },
        );
        let silence = transfer::Waits { first: minute, longest: minute };
        let limits = transfer::Limits { per_server: 1, disk_floor_bytes: 0, total_timeout: minute, silence };
        let transfer = Transfer::new(Arc::new(relays), git, guard, limits, Arc::default());

        // Takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let sources =
            ["a", "b", "c"].map(|name| format!("http://{}/{name}.git", silent.local_addr().unwrap()));
        let repository = Repository::open_or_create(&folder.path().join("x.git")).unwrap();
        let tips = Tips::from([("refs/heads/main".to_owned(), "1".repeat(40).parse().unwrap())]);
        let error = transfer.bring(&repository, &tips, &sources, 1 << 20).await.unwrap_err().to_string();
        assert!(error.contains("of silence") && error.contains("did not answer before"), "{error}");
        silent.set_nonblocking(true).unwrap();
        assert!(silent.accept().is_ok() && silent.accept().is_err());
    }
}
