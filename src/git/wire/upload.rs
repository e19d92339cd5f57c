//! The body of a push: pieces of a file, no faster than the operator allows, each told to the watch.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    num::NonZeroU32,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Shared},
    stream,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::task::spawn_blocking;

use super::watch::Activity;
use crate::git::pack::{Pack, empty_pack};

/// How much of a pack is read from its file at once, in bytes.
const READ_AT_ONCE: usize = 256 << 10;

/// How many pieces are kept for others that send the same pack.
const RECENT: usize = 16;

/// How many pieces fit into a second, at least: several pushes share what may be sent.
const PIECES_A_SECOND: u32 = 16;

/// The shortest piece, in bytes.
const PIECE_MIN: u32 = 1 << 10;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How fast all pushes together may send. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct UploadRate(Option<Arc<Cap>>);

#[derive(Debug)]
struct Cap {
    bytes: DefaultDirectRateLimiter,
    piece: NonZeroU32,
}

impl UploadRate {
    /// At most `bytes_per_sec`; 0 means as fast as it goes.
    pub(super) fn new(bytes_per_sec: u32) -> Self {
        let piece = NonZeroU32::new((bytes_per_sec / PIECES_A_SECOND).max(PIECE_MIN));
        Self(NonZeroU32::new(bytes_per_sec).zip(piece).map(|(bytes_per_sec, piece)| {
            // A burst of one piece: what is sent is even from the first second on.
            let quota = Quota::per_second(bytes_per_sec).allow_burst(piece);
            Arc::new(Cap { bytes: RateLimiter::direct(quota), piece })
        }))
    }

    /// The length of a piece to read.
    fn piece(&self) -> usize {
        let piece = self.0.as_ref().and_then(|cap| usize::try_from(cap.piece.get()).ok());
        piece.unwrap_or(READ_AT_ONCE).min(READ_AT_ONCE)
    }

    /// Waits until `bytes` may be sent.
    async fn until_ready(&self, bytes: usize) {
        let (Some(cap), Ok(mut left)) = (&self.0, u32::try_from(bytes)) else { return };
        while let Some(some) = NonZeroU32::new(left.min(cap.piece.get())) {
            // Never more than the burst, so there is nothing it could refuse.
            let _ = cap.bytes.until_n_ready(some).await;
            left -= some.get();
        }
    }
}

/// `head` and then, unless there is none, `pack`.
pub(super) async fn body(
    head: Bytes,
    pack: Option<&Pack>,
    (rate, recent): (&UploadRate, &Recent),
    activity: &Activity,
) -> io::Result<reqwest::Body> {
    let head = stream::iter([Ok(head)]);
    let pieces: Pieces = match pack {
        None => Box::pin(head),
        Some(pack) => Box::pin(head.chain(pack_pieces(pack, rate.piece(), recent).await?)),
    };
    let (rate, activity) = (rate.clone(), activity.clone());
    Ok(reqwest::Body::wrap_stream(pieces.then(move |piece| {
        let (rate, activity) = (rate.clone(), activity.clone());
        async move {
            if let Ok(bytes) = &piece {
                rate.until_ready(bytes.len()).await;
                activity.sent(bytes.len());
            }
            piece
        }
    })))
}

/// The pieces read last. A pack goes to many servers at about the same time, and is read once for those that keep up
/// with each other. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<Piece>>>);

#[derive(Debug)]
struct Piece {
    /// A pack's name is its own as long as anybody sends it.
    path: Arc<Path>,
    offset: u64,
    read: BeingRead,
}

/// A piece that is being read, or was. Whoever wants it waits for it, and none of them for another's connection.
type BeingRead = Shared<BoxFuture<'static, Result<Bytes, Arc<io::Error>>>>;

impl Recent {
    fn piece(&self, path: &Arc<Path>, offset: u64, read: impl FnOnce() -> BeingRead) -> BeingRead {
        let mut pieces = self.pieces();
        if let Some(found) = pieces.iter().find(|piece| piece.offset == offset && piece.path == *path) {
            return found.read.clone();
        }
        let read = read();
        pieces.truncate(RECENT - 1);
        pieces.push_front(Piece { path: Arc::clone(path), offset, read: read.clone() });
        read
    }

    /// Somebody has sent the pack at `path` to its end, or cannot read it; whoever comes later reads it again.
    fn forget(&self, path: &Path) {
        self.pieces().retain(|piece| &*piece.path != path);
    }

    fn pieces(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pack_pieces(pack: &Pack, piece: usize, recent: &Recent) -> io::Result<Pieces> {
    Ok(match pack.path() {
        None => Box::pin(stream::iter([Ok(Bytes::from(empty_pack()))])),
        Some(path) => {
            let path: Arc<Path> = path.into();
            let opened = Arc::clone(&path);
            let file = spawn_blocking(move || File::open(opened)).await.map_err(io::Error::other)??;
            let reading = Reading { file: Arc::new(file), path, piece, recent: recent.clone() };
            Box::pin(stream::try_unfold((reading, 0), |(reading, offset)| async move {
                let bytes = reading.at(offset).await?;
                let next = offset + bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some((bytes, (reading, next))))
            }))
        }
    })
}

/// A pack on its way to one server.
struct Reading {
    file: Arc<File>,
    path: Arc<Path>,
    /// The length of a piece.
    piece: usize,
    recent: Recent,
}

impl Reading {
    /// The piece at `offset`, empty at the end.
    async fn at(&self, offset: u64) -> io::Result<Bytes> {
        let read = self.recent.piece(&self.path, offset, || self.read(offset)).await;
        if read.as_ref().map_or(true, Bytes::is_empty) {
            self.recent.forget(&self.path);
        }
        read.map_err(|error| io::Error::new(error.kind(), error))
    }

    /// Straight into the buffer that is sent: an async file would copy it once more.
    fn read(&self, offset: u64) -> BeingRead {
        let (file, len) = (Arc::clone(&self.file), self.piece);
        let read = spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(len);
            let mut file = &*file;
            file.seek(SeekFrom::Start(offset))?;
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        });
        async { read.await.map_err(io::Error::other).flatten().map_err(Arc::new) }.boxed().shared()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use futures::{TryStreamExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn everybody_gets_all_of_a_pack_however_far_apart_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pack");
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &content).unwrap();
        let pack = Pack::Stored { path, len: content.len() as u64 };
        let recent = Recent::default();
        let whole = async |pieces: Pieces| pieces.try_collect::<Vec<Bytes>>().await.map(|all| all.concat());
        let mut late = pack_pieces(&pack, 1_000, &recent).await.unwrap();
        let first = late.next().await.unwrap().unwrap();
        let together =
            (0..8).map(|_| async { whole(pack_pieces(&pack, 1_000, &recent).await.unwrap()).await });
        for all in join_all(together).await {
            assert_eq!(all.unwrap(), content);
        }
        assert!(recent.pieces().len() < RECENT, "little is kept of what was sent to its end");
        assert_eq!([first.to_vec(), whole(late).await.unwrap()].concat(), content);
    }

    #[tokio::test]
    async fn a_piece_is_read_once_for_all_who_want_it_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pack");
        fs::write(&path, [7; 3_000]).unwrap();
        let pack = Pack::Stored { path, len: 3_000 };
        let recent = Recent::default();
        let first = async || pack_pieces(&pack, 1_000, &recent).await.unwrap().next().await.unwrap().unwrap();
        let pieces = join_all((0..8).map(|_| first())).await;
        assert!(pieces.iter().all(|piece| piece.as_ptr() == pieces[0].as_ptr()), "one piece of memory");
    }
}
