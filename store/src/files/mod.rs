//! Blobs in a folder.

mod disk;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aotfarm_blob::DEFAULT_LIMIT;
use aotfarm_blob::file::blocking;
use aotfarm_protocol::Digest;
use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::Fuse;
use tokio::runtime::Handle;

use self::disk::Disk;
use crate::blobs::{BlobError, BlobStore, Frames, Source, Stored};

type Result<T> = std::result::Result<T, BlobError>;

/// A [`BlobStore`] in a folder. Clones share it.
#[derive(Debug, Clone)]
pub struct FileBlobStore {
    disk: Arc<Disk>,
}

impl FileBlobStore {
    /// Opens the store in `root`, making the folders that it needs. Blocks for the time of two
    /// `mkdir`s.
    ///
    /// # Errors
    /// [`BlobError::File`] if the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::open_limited(root, DEFAULT_LIMIT)
    }

    /// [`Self::open`] with another limit for the uncompressed bytes of a blob.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_limited(root: impl Into<PathBuf>, limit: u64) -> Result<Self> {
        Ok(Self { disk: Arc::new(Disk::open(root.into(), limit)?) })
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&disk)).await
    }
}

#[async_trait]
impl BlobStore for FileBlobStore {
    fn limit(&self) -> u64 {
        self.disk.limit()
    }

    async fn put(&self, content: Bytes) -> Result<Digest> {
        self.blocking(move |disk| {
            let digest = Digest::of(&content);
            disk.put(digest, &content).map(|()| digest)
        })
        .await
    }

    async fn put_expected(&self, expected: Digest, content: Bytes) -> Result<()> {
        self.blocking(move |disk| {
            let actual = Digest::of(&content);
            if actual != expected {
                return Err(BlobError::Refused { digest: expected, reason: format!("they have the digest {actual}") });
            }
            disk.put(expected, &content)
        })
        .await
    }

    async fn put_file(&self, path: &Path) -> Result<(Digest, u64)> {
        let path = path.to_owned();
        self.blocking(move |disk| disk.put_file(&path)).await
    }

    async fn put_compressed(&self, expected: Digest, frames: Frames) -> Result<()> {
        let handle = Handle::current();
        self.blocking(move |disk| {
            disk.put_compressed(expected, BlockingStream { handle, frames: frames.fuse(), chunk: Bytes::new() })
        })
        .await
    }

    async fn contains(&self, digest: Digest) -> Result<bool> {
        self.blocking(move |disk| disk.contains(digest)).await
    }

    async fn size(&self, digest: Digest) -> Result<u64> {
        self.blocking(move |disk| disk.size(digest)).await
    }

    async fn get(&self, digest: Digest) -> Result<Bytes> {
        self.blocking(move |disk| disk.get(digest).map(Bytes::from)).await
    }

    async fn get_to_file(&self, digest: Digest, path: &Path) -> Result<u64> {
        let path = path.to_owned();
        self.blocking(move |disk| disk.get_to_file(digest, &path)).await
    }

    async fn unpack(&self, digest: Digest) -> Result<Box<dyn Source>> {
        let file = self.blocking(move |disk| disk.unpack(digest)).await?;
        Ok(Box::new(tokio::fs::File::from_std(file)))
    }

    async fn verify(&self, digest: Digest) -> Result<u64> {
        self.blocking(move |disk| disk.verify(digest)).await
    }

    async fn open_stored(&self, digest: Digest) -> Result<Stored> {
        let (file, length) = self.blocking(move |disk| disk.open_stored(digest)).await?;
        Ok(Stored { length, source: Box::new(tokio::fs::File::from_std(file)) })
    }

    async fn list(&self) -> Result<Vec<(Digest, u64)>> {
        self.blocking(Disk::list).await
    }

    async fn sweep(&self, keep: HashSet<Digest>, min_age: Duration) -> Result<(u64, u64)> {
        self.blocking(move |disk| disk.sweep(&keep, min_age)).await
    }
}

/// A stream as a reader, for a thread that may block.
struct BlockingStream {
    handle: Handle,
    /// Readers are asked again after their end, which streams need not stand.
    frames: Fuse<Frames>,
    chunk: Bytes,
}

impl Read for BlockingStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.handle.block_on(self.frames.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let n = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
