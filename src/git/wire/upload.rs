//! The body of a push: pieces of a file, no faster than the operator allows, each told to the watch.

use std::{
    fs::File,
    io::{self, Read},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::task::spawn_blocking;

use super::watch::Activity;
use crate::git::pack::{Pack, empty_pack};

/// How much of a pack is read from its file at once, in bytes: one such buffer for each push under way.
const READ_AT_ONCE: usize = 256 << 10;

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
    rate: &UploadRate,
    activity: &Activity,
) -> io::Result<reqwest::Body> {
    let head = stream::iter([Ok(head)]);
    let pieces: Pieces = match pack {
        None => Box::pin(head),
        Some(pack) => Box::pin(head.chain(pack_pieces(pack, rate.piece()).await?)),
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

async fn pack_pieces(pack: &Pack, piece: usize) -> io::Result<Pieces> {
    Ok(match pack.path() {
        None => Box::pin(stream::iter([Ok(Bytes::from(empty_pack()))])),
        Some(path) => {
            let path = path.to_owned();
            let file = spawn_blocking(move || File::open(path)).await.map_err(io::Error::other)??;
            Box::pin(stream::try_unfold(file, move |file| next_piece(file, piece)))
        }
    })
}

/// The next piece of `file`, straight into the buffer that is sent: an async file would copy it once more, and large
/// packs go to many servers.
async fn next_piece(file: File, piece: usize) -> io::Result<Option<(Bytes, File)>> {
    let read = move || {
        let mut bytes = Vec::with_capacity(piece);
        (&file).take(piece as u64).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>((!bytes.is_empty()).then(|| (Bytes::from(bytes), file)))
    };
    spawn_blocking(read).await.map_err(io::Error::other)?
}
