//! Blobs: bytes by their SHA-256, zstd-compressed, checked whenever they are read.

use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

use aotfarm_blob::FileError;
use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncSeek};

type Result<T, E = BlobError> = std::result::Result<T, E>;

/// Chunks of zstd frames from a sender who may break off.
pub type Frames = BoxStream<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// What is read in pieces, from any place.
pub trait Source: AsyncRead + AsyncSeek + Send + Unpin {}

impl<T: AsyncRead + AsyncSeek + Send + Unpin> Source for T {}

/// The zstd frames of a blob as they are stored.
pub struct Stored {
    /// Their length in bytes.
    pub length: u64,
    /// The frames.
    pub source: Box<dyn Source>,
}

/// A content-addressed store. Several processes may use one at a time.
#[async_trait]
pub trait BlobStore: Debug + Send + Sync {
    /// The most bytes that a blob may have uncompressed.
    fn limit(&self) -> u64;

    /// Stores bytes; does nothing if the store has them.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`]; [`BlobError::File`].
    async fn put(&self, content: Bytes) -> Result<Digest>;

    /// Stores bytes that are said to have the digest `expected`.
    ///
    /// # Errors
    /// As [`Self::put`]; [`BlobError::Refused`] if they do not.
    async fn put_expected(&self, expected: Digest, content: Bytes) -> Result<()>;

    /// Stores the content of a file, without holding it in memory; returns its digest and its size
    /// in bytes.
    ///
    /// # Errors
    /// As [`Self::put`], and if the file cannot be read or changes meanwhile.
    async fn put_file(&self, path: &Path) -> Result<(Digest, u64)>;

    /// Stores the content of zstd frames, which are kept as they come, if the content has the
    /// digest `expected`. Nothing is left behind otherwise. The stream is not read to its end after
    /// an error.
    ///
    /// # Errors
    /// [`BlobError::Refused`], [`BlobError::BrokeOff`], [`BlobError::TooLarge`],
    /// [`BlobError::File`].
    async fn put_compressed(&self, expected: Digest, frames: Frames) -> Result<()>;

    /// Whether the store has the blob. A blob that was asked for is kept by [`Self::sweep`] as if
    /// it were new.
    ///
    /// # Errors
    /// [`BlobError::File`].
    async fn contains(&self, digest: Digest) -> Result<bool>;

    /// Bytes of the content, without reading it.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], [`BlobError::File`].
    async fn size(&self, digest: Digest) -> Result<u64>;

    /// The content, verified.
    ///
    /// # Errors
    /// [`BlobError::Missing`]; [`BlobError::Damaged`], after which the store does not have it any
    /// more; [`BlobError::TooLarge`], [`BlobError::File`].
    async fn get(&self, digest: Digest) -> Result<Bytes>;

    /// Writes the verified content to `path`, which is replaced in one step, and only if all went
    /// well. Its folder must exist. Returns the size in bytes.
    ///
    /// # Errors
    /// As [`Self::get`].
    async fn get_to_file(&self, digest: Digest, path: &Path) -> Result<u64>;

    /// The verified content from its start, not held in memory; for passing it on in pieces.
    ///
    /// # Errors
    /// As [`Self::get`].
    async fn unpack(&self, digest: Digest) -> Result<Box<dyn Source>>;

    /// Reads the content through; returns its size in bytes.
    ///
    /// # Errors
    /// As [`Self::get`].
    async fn verify(&self, digest: Digest) -> Result<u64>;

    /// The stored zstd frames, unverified: for sending on to somebody who verifies.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::File`].
    async fn open_stored(&self, digest: Digest) -> Result<Stored>;

    /// Every blob with its stored (compressed) bytes, in the order of digests.
    ///
    /// # Errors
    /// [`BlobError::File`].
    async fn list(&self) -> Result<Vec<(Digest, u64)>>;

    /// Removes blobs that are not in `keep`, damaged ones and what uploads left over, unless they
    /// were used within the last `min_age`, which must be longer than any upload waits to be
    /// referenced. Returns how many things were removed, and how many bytes they had.
    ///
    /// # Errors
    /// [`BlobError::File`]; what was removed before stays removed.
    async fn sweep(&self, keep: HashSet<Digest>, min_age: Duration) -> Result<(u64, u64)>;
}

/// Why a store of blobs failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("blob {digest} is not in the store {store}")]
    Missing {
        /// Which.
        digest: Digest,
        /// Which store.
        store: String,
    },
    /// The stored bytes are not the content; they were moved out of the way, so that the blob can
    /// be stored anew.
    #[error("the stored blob {place} is damaged: {reason}; {}", aside(moved.as_deref()))]
    Damaged {
        /// Where the blob was.
        place: String,
        /// What is wrong with it.
        reason: String,
        /// Where its bytes are now, if they could be moved.
        moved: Option<String>,
    },
    /// The bytes that were handed in are not the content that they were said to be.
    #[error("the bytes sent for blob {digest} are not its content: {reason}")]
    Refused {
        /// What they were said to be.
        digest: Digest,
        /// What is wrong with them.
        reason: String,
    },
    /// The sender broke off.
    #[error("receiving blob {digest} broke off: {source}")]
    BrokeOff {
        /// Which.
        digest: Digest,
        /// How.
        source: io::Error,
    },
    /// More bytes than are allowed.
    #[error("blob {digest} is too large: {reason}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// How much it is and how much it may be.
        reason: String,
    },
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
}

fn aside(moved: Option<&str>) -> String {
    moved.map_or_else(|| "it could not be moved aside".to_owned(), |to| format!("it was moved to {to}"))
}

impl BlobError {
    /// [`FileError::io`].
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let file_error = FileError::io(action, path);
        move |source| file_error(source).into()
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } => Some("submit the model again to store it anew; check the disk if this repeats".to_owned()),
            Self::File(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        let code = match &error {
            BlobError::Missing { .. } => ErrorCode::NotFound,
            BlobError::Damaged { .. } => ErrorCode::Damaged,
            BlobError::Refused { .. } | BlobError::BrokeOff { .. } | BlobError::TooLarge { .. } => ErrorCode::BadRequest,
            BlobError::File(_) => ErrorCode::Storage,
        };
        Self { code, message: error.to_string(), hint: error.hint() }
    }
}
