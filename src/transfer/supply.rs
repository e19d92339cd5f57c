//! What the pushes of one repository are made from: the pack that was just fetched for it, as it came, and the
//! local copy.
//!
//! Indexing is nine tenths of what a first mirror costs this machine, and no server needs it: each indexes and
//! checks a pack by itself, and takes it only if the result is exactly the signed state. So a fetched pack is
//! streamed to the servers at once, and taken into the local copy afterwards, or as soon as a server turns up that
//! needs something else.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::{Mutex, OnceCell, Semaphore};

use super::{blocking, low_priority};
use crate::git::{GitError, Ingested, Pack, Repository, wire::FetchedPack};
use crate::model::refs::ObjectId;

/// Packs indexed at the same time, over all repositories: each takes some 60 bytes an object.
static INDEXING: Semaphore = Semaphore::const_new(2);

/// A pack up to this length, in bytes, is streamed to every server that can use it, even to one that needs only a
/// part: cutting out the part would take longer.
const SMALL: u64 = 256 << 10;

/// A pack from one source that brings everything that was missing, not taken into the local copy yet.
#[derive(Debug)]
pub struct Fetched {
    /// The pack and what it builds on.
    pub pack: FetchedPack,
    /// What it was fetched for.
    pub wants: Vec<ObjectId>,
    /// Where it came from, for people.
    pub source: String,
}

/// Why there is no pack for a server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SupplyError {
    /// What a source sent is not what was asked for.
    #[error("{source_url} sent a pack that is thrown away: {error}")]
    Spoiled {
        /// The source.
        source_url: String,
        /// What is wrong with it.
        error: Arc<GitError>,
    },
    /// The local copy is in trouble.
    #[error(transparent)]
    Local(Arc<GitError>),
}

/// Where the pushes of one repository take their objects from. Clones share one.
#[derive(Debug, Clone)]
pub struct Supply {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    repository: Repository,
    fetched: Option<AsItCame>,
    /// Whether the fetched pack has become part of the local copy.
    taken: OnceCell<Result<(), SupplyError>>,
    /// Packs that were made, with what they were made for: most servers lack the same.
    made: Mutex<Vec<(Need, Pack)>>,
}

/// A fetched pack, ready to be streamed.
#[derive(Debug)]
struct AsItCame {
    pack: Pack,
    wants: Vec<ObjectId>,
    haves: Vec<ObjectId>,
    source: String,
}

/// What a server lacks and has.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    wants: Vec<ObjectId>,
    haves: Vec<ObjectId>,
}

impl AsItCame {
    /// Whether the pack is right for a server with `haves` where `wants` are to be set.
    ///
    /// A pack fetched on top of something is for who has all of that. One with a whole history is for servers
    /// that have nothing; others mostly lack a small part of it.
    fn suits(&self, need: &Need) -> bool {
        let has: HashSet<&ObjectId> = need.haves.iter().collect();
        let brings: HashSet<&ObjectId> = self.wants.iter().collect();
        let complete = need.wants.iter().all(|want| brings.contains(want) || has.contains(want));
        let on_top = self.haves.iter().all(|have| has.contains(have));
        let whole = self.haves.is_empty() && !has.is_empty();
        complete && on_top && (!whole || self.pack.len() <= SMALL)
    }
}

impl Supply {
    /// Over a local copy that is whole.
    #[must_use]
    pub fn of(repository: Repository) -> Self {
        Self::new(repository, None)
    }

    /// Over a local copy that will be whole with `fetched`.
    #[must_use]
    pub fn with(repository: Repository, fetched: Fetched) -> Self {
        let Fetched { pack, wants, source } = fetched;
        let (haves, len) = (pack.haves, pack.bytes);
        let pack = Pack::Built { path: Arc::new(pack.path), len };
        Self::new(repository, Some(AsItCame { pack, wants, haves, source }))
    }

    fn new(repository: Repository, fetched: Option<AsItCame>) -> Self {
        let shared = Shared { repository, fetched, taken: OnceCell::new(), made: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The local copy. Before [`Self::take_in`] it may lack what was fetched.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.shared.repository
    }

    /// Makes the fetched pack part of the local copy, once, at low priority: checks that it is whole and holds what
    /// it was fetched for.
    ///
    /// # Errors
    ///
    /// [`SupplyError::Spoiled`] names the source. The local copy is as it was then.
    pub async fn take_in(&self) -> Result<(), SupplyError> {
        let Some(fetched) = &self.shared.fetched else { return Ok(()) };
        let take = || async {
            let (repository, pack) = (self.shared.repository.clone(), fetched.pack.clone());
            let wants = fetched.wants.clone();
            // Closed never: it is static.
            let _turn = INDEXING.acquire().await;
            let taken = low_priority("index", move || match pack.path() {
                Some(path) => repository.ingest_fetched(path, &wants),
                None => Ok(Ingested { objects: 0, pack: None, bytes: 0 }),
            })
            .await;
            match taken {
                Ok(Ingested { objects, bytes, .. }) => {
                    tracing::info!(source = fetched.source, objects, pack_bytes = bytes, "taken in");
                    Ok(())
                }
                Err(error @ GitError::Pack { .. }) => {
                    Err(SupplyError::Spoiled { source_url: fetched.source.clone(), error: Arc::new(error) })
                }
                Err(error) => Err(SupplyError::Local(Arc::new(error))),
            }
        };
        self.shared.taken.get_or_init(take).await.clone()
    }

    /// The pack that a server with `haves` needs so that `wants` can be set there; it may hold more.
    ///
    /// The fetched pack as it came, where that will do; else one cut out of the local copy, made once for all
    /// servers that lack the same.
    ///
    /// # Errors
    ///
    /// [`SupplyError`].
    pub async fn pack_for(&self, wants: &[ObjectId], haves: &[ObjectId]) -> Result<Pack, SupplyError> {
        let need = Need { wants: sorted(wants), haves: sorted(haves) };
        if need.wants.iter().all(|want| need.haves.binary_search(want).is_ok()) {
            return Ok(Pack::Empty);
        }
        let spoiled = || matches!(self.shared.taken.get(), Some(Err(_)));
        if let Some(fetched) = self.shared.fetched.as_ref().filter(|fetched| fetched.suits(&need))
            && !spoiled()
        {
            return Ok(fetched.pack.clone());
        }
        self.take_in().await?;
        let mut made = self.shared.made.lock().await;
        if let Some((_, pack)) = made.iter().find(|(known, _)| *known == need) {
            return Ok(pack.clone());
        }
        let repository = self.shared.repository.clone();
        let (need, pack) = blocking(move || {
            let pack = repository.pack_for(&need.wants, &need.haves)?;
            Ok::<_, GitError>((need, pack))
        })
        .await
        .map_err(|error| SupplyError::Local(Arc::new(error)))?;
        made.push((need, pack.clone()));
        Ok(pack)
    }
}

fn sorted(ids: &[ObjectId]) -> Vec<ObjectId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::git::{
        testing::{Source, tips},
        wire::FetchedPack,
    };

    /// A local copy that was in sync with `source`, and what `source` got since, fetched.
    fn fetched(source: &mut Source, commits: u64) -> (tempfile::TempDir, Supply, Need) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("x.git")).unwrap();
        let old = source.refs();
        let haves = tips(&old);
        if !haves.is_empty() {
            let pack = source.pack(&haves, &[], &[], &repository.incoming_dir());
            repository.ingest(&pack).unwrap();
            repository.set_refs(&old, None, 1).unwrap();
        }
        source.grow(commits);
        let wants = repository.missing(tips(&source.refs())).unwrap();
        let path = source.pack(&wants, &haves, &["--thin"], &repository.incoming_dir());
        let bytes = path.metadata().unwrap().len();
        let path = tempfile::TempPath::try_from_path(path).unwrap();
        let pack = FetchedPack { path, bytes, haves: haves.clone() };
        let fetched = Fetched { pack, wants: wants.clone(), source: "https://source/x.git".to_owned() };
        (dir, Supply::with(repository, fetched), Need { wants, haves })
    }

    #[tokio::test]
    async fn who_had_what_we_had_gets_the_pack_as_it_came() {
        let mut source = Source::new(41);
        source.grow(4);
        let (_dir, supply, need) = fetched(&mut source, 2);
        let as_it_came = supply.pack_for(&need.wants, &need.haves).await.unwrap();
        assert_eq!(as_it_came.path(), supply.shared.fetched.as_ref().unwrap().pack.path());
        assert!(supply.shared.taken.get().is_none(), "and nobody waits for the index");
        assert!(supply.pack_for(&need.haves, &need.haves).await.unwrap().is_empty());

        // Another one gets what it lacks, made once for all who lack the same.
        let whole = supply.pack_for(&need.wants, &[]).await.unwrap();
        assert!(whole.len() > as_it_came.len());
        assert_eq!(supply.pack_for(&need.wants, &[]).await.unwrap().path(), whole.path());
        // The file as it came is there still.
        assert_eq!(as_it_came.path().unwrap().metadata().unwrap().len(), as_it_came.len());
        assert_eq!(supply.pack_for(&need.wants, &need.haves).await.unwrap().path(), as_it_came.path());
    }

    #[tokio::test]
    async fn a_pack_of_something_else_names_its_source_and_is_used_no_more() {
        let (mut source, mut other) = (Source::new(42), Source::new(43));
        let (_dir, supply, need) = fetched(&mut source, 3);
        let fetched = supply.shared.fetched.as_ref().unwrap().pack.path().unwrap();
        other.grow(2);
        let bad = other.pack(&tips(&other.refs()), &[], &[], fetched.parent().unwrap());
        std::fs::rename(bad, fetched).unwrap();
        let said = supply.take_in().await.unwrap_err().to_string();
        assert!(said.contains("https://source/x.git") && said.contains("thrown away"), "{said}");
        assert_eq!(supply.pack_for(&need.wants, &[]).await.unwrap_err().to_string(), said);
    }

    #[test]
    fn a_pack_suits_who_has_what_it_builds_on() {
        let [a, b, c] = [1, 2, 3].map(|byte| ObjectId::Sha1([byte; 20]));
        let came = |wants: &[ObjectId], haves: &[ObjectId], len| AsItCame {
            pack: Pack::Stored { path: "x".into(), len },
            wants: sorted(wants),
            haves: sorted(haves),
            source: String::new(),
        };
        let need =
            |wants: &[ObjectId], haves: &[ObjectId]| Need { wants: sorted(wants), haves: sorted(haves) };
        let large = SMALL + 1;
        assert!(came(&[a], &[], large).suits(&need(&[a], &[])));
        assert!(!came(&[a], &[], large).suits(&need(&[a, b], &[])), "it lacks something");
        assert!(!came(&[a], &[], large).suits(&need(&[a], &[c])), "a whole history for who has a part");
        assert!(came(&[a], &[], SMALL).suits(&need(&[a], &[c])), "a short one");
        assert!(came(&[a], &[b], large).suits(&need(&[a, b], &[b, c])), "on top of what it has");
        assert!(!came(&[a], &[b, c], SMALL).suits(&need(&[a], &[b])), "it may build on what is not there");
    }
}
