//! The local copy of blobs, so that sources, objects and weights are fetched once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aotfarm_protocol::Digest;
use backon::BackoffBuilder as _;
use tokio_util::sync::CancellationToken;

use crate::farm::{Farm, FarmError, PAUSES};

/// A transfer that does not get through for this long is given up: the item goes to another worker.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a blob is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The coordinator does not give or take it.
    #[error("could not transfer blob {}", digest.short())]
    Transfer {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: FarmError,
    },
    /// The worker's disk failed: full, read-only …
    #[error("could not use the worker's folder, at {}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lease was lost meanwhile.
    #[error("cancelled")]
    Cancelled,
}

/// A bounded folder of blobs by digest, in front of the coordinator's store.
pub(crate) struct BlobCache {
    dir: PathBuf,
    limit: u64,
    farm: Arc<dyn Farm>,
    transfers: AtomicU64,
}

impl BlobCache {
    /// A cache of at most about `limit` bytes in `dir`, which is made if need be.
    pub(crate) fn new(dir: PathBuf, limit: u64, farm: Arc<dyn Farm>) -> Result<Self, BlobError> {
        fs::create_dir_all(&dir).map_err(|source| BlobError::Disk { path: dir.clone(), source })?;
        // What a killed process left half-done.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "part") {
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(Self { dir, limit, farm, transfers: AtomicU64::new(0) })
    }

    /// Puts the blob at `to`, a new file. It stays there whatever happens to the cache.
    pub(crate) async fn fetch(&self, digest: Digest, to: &Path, cancel: &CancellationToken) -> Result<(), BlobError> {
        let cached = self.dir.join(digest.hex());
        if link(&cached, to).is_ok() {
            // What was used last is evicted last.
            touch(&cached);
            return Ok(());
        }
        let part = self.dir.join(format!("{}.{}.part", digest.hex(), self.transfers.fetch_add(1, Ordering::Relaxed)));
        let got = retrying(cancel, digest, || self.farm.download(digest, &part)).await;
        if let Err(error) = got {
            drop(fs::remove_file(&part));
            return Err(error);
        }
        let disk = |source| BlobError::Disk { path: to.to_owned(), source };
        // In this order: another transfer may evict the file as soon as it is in the cache.
        link(&part, to).map_err(disk)?;
        fs::rename(&part, &cached).map_err(disk)?;
        self.evict();
        Ok(())
    }

    /// Stores the file `from` and keeps it at hand; returns its digest and size.
    pub(crate) async fn put(&self, from: &Path, cancel: &CancellationToken) -> Result<(Digest, u64), BlobError> {
        let disk = |source| BlobError::Disk { path: from.to_owned(), source };
        let (digest, bytes) = digest_of_file(from).map_err(disk)?;
        retrying(cancel, digest, || self.farm.upload(digest, from)).await?;
        drop(link(from, &self.dir.join(digest.hex())));
        self.evict();
        Ok((digest, bytes))
    }

    /// Removes what was used longest ago until the limit holds.
    fn evict(&self) {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten().filter(|e| e.path().extension().is_none());
        let stat = |e: fs::DirEntry| e.metadata().ok().and_then(|m| Some((m.modified().ok()?, m.len(), e.path())));
        let mut files: Vec<_> = files.filter_map(stat).collect();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        files.sort();
        for (_, len, path) in files {
            if total <= self.limit {
                break;
            }
            total -= len;
            drop(fs::remove_file(path));
        }
    }
}

/// Gives a file the present as its time of modification; that this fails on some file system matters to nobody.
#[expect(clippy::disallowed_methods, reason = "only the order of eviction depends on it")]
fn touch(path: &Path) {
    drop(File::open(path).and_then(|f| f.set_modified(SystemTime::now())));
}

/// A second name for a file, or a copy where the file system has no hard links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => fs::copy(from, to).map(drop),
        done => done,
    }
}

/// The digest and size of a file, read through a mapping.
pub(crate) fn digest_of_file(path: &Path) -> io::Result<(Digest, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok((Digest::of([]), 0));
    }
    // SAFETY: the file lies in the worker's own folder, where nobody shortens it while it is read.
    let bytes = unsafe { memmap2::Mmap::map(&file)? };
    Ok((Digest::of(&bytes[..]), len))
}

/// Repeats a transfer while the coordinator is away, until it is done, refused or cancelled.
async fn retrying<F>(cancel: &CancellationToken, digest: Digest, transfer: impl Fn() -> F) -> Result<(), BlobError>
where
    F: Future<Output = Result<(), FarmError>>,
{
    let start = tokio::time::Instant::now();
    let mut pauses = PAUSES.build();
    loop {
        let tried = cancel.run_until_cancelled(transfer()).await.ok_or(BlobError::Cancelled)?;
        match (tried, pauses.next()) {
            (Err(FarmError::Away(_)), Some(pause)) if start.elapsed() < PATIENCE => {
                cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(BlobError::Cancelled)?;
            }
            (done, _) => return done.map_err(|source| BlobError::Transfer { digest, source }),
        }
    }
}
