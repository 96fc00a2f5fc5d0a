//! Bytes by digest, zstd-compressed in a folder, checked whenever they are read.

pub(crate) mod codec;
pub(crate) mod disk;
mod error;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::Digest;
use bytes::{Buf as _, Bytes};
use futures_util::stream::Fuse;
use futures_util::{Stream, StreamExt as _};
use tokio::runtime::Handle;

use self::disk::Disk;
pub use self::error::BlobError;
pub(crate) use self::error::READ;

type Result<T> = std::result::Result<T, BlobError>;

/// Most bytes that a blob may have uncompressed, unless told otherwise: models of 8 billion half-precision parameters fit.
pub const DEFAULT_LIMIT: u64 = 16 << 30;

/// A content-addressed store in a folder. Clones share it; several processes may use one folder at a time.
#[derive(Debug, Clone)]
pub struct BlobStore {
    disk: Arc<Disk>,
}

impl BlobStore {
    /// Opens the store in `root`, making the folders that it needs. Blocks for the time of two `mkdir`s.
    ///
    /// # Errors
    /// [`BlobError::ReadOnly`], [`BlobError::Full`] or another [`BlobError::Io`] if the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { disk: Arc::new(Disk::open(root.into(), DEFAULT_LIMIT)?) })
    }

    /// Sets the most bytes that a blob may have uncompressed. Only before the store is shared.
    ///
    /// # Panics
    /// If the store has been cloned.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        Arc::get_mut(&mut self.disk).expect("the limit is set before the store is shared").set_limit(limit);
        self
    }

    /// The most bytes that a blob may have uncompressed.
    pub fn limit(&self) -> u64 {
        self.disk.limit()
    }

    /// The file that holds the blob, if the store has it.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.disk.path(digest)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&disk)).await
    }

    /// Stores bytes; does nothing if it has them.
    ///
    /// # Errors
    /// Those of the file system; [`BlobError::TooLarge`].
    pub async fn put(&self, content: impl Into<Bytes>) -> Result<Digest> {
        let content = content.into();
        self.blocking(move |disk| {
            let digest = Digest::of(&content);
            disk.put(digest, &content).map(|()| digest)
        })
        .await
    }

    /// Stores bytes that are said to have the digest `expected`.
    ///
    /// # Errors
    /// As [`Self::put`]; [`BlobError::Refused`] if they do not.
    pub async fn put_expected(&self, expected: Digest, content: impl Into<Bytes>) -> Result<()> {
        let content = content.into();
        self.blocking(move |disk| {
            let actual = Digest::of(&content);
            if actual != expected {
                return Err(BlobError::Refused { digest: expected, reason: format!("they have the digest {actual}") });
            }
            disk.put(expected, &content)
        })
        .await
    }

    /// Stores the content of a file, without holding it in memory; returns its digest and size.
    ///
    /// # Errors
    /// As [`Self::put`], and if the file cannot be read or changes meanwhile.
    pub async fn put_file(&self, path: impl Into<PathBuf>) -> Result<(Digest, u64)> {
        let path = path.into();
        self.blocking(move |disk| disk.put_file(&path)).await
    }

    /// Stores the content of a stream of zstd frames, which are kept as they come, if the content has the digest `expected`.
    /// Nothing is left behind otherwise. The stream is not read to its end after an error.
    ///
    /// # Errors
    /// [`BlobError::Refused`], [`BlobError::BrokeOff`], [`BlobError::TooLarge`], and those of the file system.
    pub async fn put_compressed<S, E>(&self, expected: Digest, stream: S) -> Result<()>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let handle = Handle::current();
        self.blocking(move |disk| {
            disk.put_compressed(expected, BlockingStream { handle, stream: stream.fuse(), chunk: Bytes::new() })
        })
        .await
    }

    /// Whether the store has the blob. A blob that was asked for is kept by [`Self::sweep`] as if it were new.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn contains(&self, digest: Digest) -> Result<bool> {
        self.blocking(move |disk| disk.contains(digest)).await
    }

    /// Bytes of the content, without reading it.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`] and those of the file system.
    pub async fn size(&self, digest: Digest) -> Result<u64> {
        self.blocking(move |disk| disk.size(digest)).await
    }

    /// The content, verified.
    ///
    /// # Errors
    /// [`BlobError::Missing`]; [`BlobError::Damaged`], after which the store does not have it any more;
    /// [`BlobError::TooLarge`] and those of the file system.
    pub async fn get(&self, digest: Digest) -> Result<Bytes> {
        self.blocking(move |disk| disk.get(digest).map(Bytes::from)).await
    }

    /// Writes the verified content to `path`, which is replaced in one step, and only if all went well. Its folder must exist.
    /// Returns the size.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_to_file(&self, digest: Digest, path: impl Into<PathBuf>) -> Result<u64> {
        let path = path.into();
        self.blocking(move |disk| disk.get_to_file(digest, &path)).await
    }

    /// The verified content as an open file that has no name and goes away with its handle; for passing it on in pieces.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn unpack(&self, digest: Digest) -> Result<File> {
        self.blocking(move |disk| disk.unpack(digest)).await
    }

    /// Reads the content through; returns the size.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn verify(&self, digest: Digest) -> Result<u64> {
        self.blocking(move |disk| disk.verify(digest)).await
    }

    /// The stored zstd frames, unverified, and their length: for sending on to somebody who verifies.
    ///
    /// # Errors
    /// [`BlobError::Missing`] and those of the file system.
    pub async fn open_stored(&self, digest: Digest) -> Result<(File, u64)> {
        self.blocking(move |disk| disk.open_stored(digest)).await
    }

    /// Every blob with its stored (compressed) bytes, in the order of digests.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn list(&self) -> Result<Vec<(Digest, u64)>> {
        self.blocking(Disk::list).await
    }

    /// Removes blobs that are not in `keep`, damaged files and left-over temporary ones, unless they were used within the
    /// last `min_age`, which must be longer than any upload waits to be referenced. Returns the files and bytes removed.
    ///
    /// # Errors
    /// Those of the file system; what was removed before stays removed.
    pub async fn sweep(&self, keep: HashSet<Digest>, min_age: Duration) -> Result<(u64, u64)> {
        self.blocking(move |disk| disk.sweep(&keep, min_age)).await
    }
}

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(BlobError::Io {
            action: "access",
            path: Path::new("the blob store").to_owned(),
            source: io::Error::other("the program is shutting down"),
        }),
    }
}

/// A stream as a reader, for a thread that may block.
struct BlockingStream<S> {
    handle: Handle,
    /// Readers are asked again after their end, which streams need not stand.
    stream: Fuse<S>,
    chunk: Bytes,
}

impl<S, E> Read for BlockingStream<S>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let n = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
