//! Uploads of zstd frames.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use aotfarm_protocol::Digest;
use aotfarm_store::{BlobStore as _, FileBlobStore};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Most bytes of a blob.
const LIMIT: u64 = 1 << 20;

/// A store, and what it needs.
struct Bed {
    runtime: Runtime,
    store: FileBlobStore,
    _folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        // In memory where there is such a folder: a store waits for the disk.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let store = FileBlobStore::open_limited(folder.path(), LIMIT).expect("a store");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, store, _folder: folder }
    }
}

thread_local! {
    static BED: RefCell<Bed> = RefCell::new(Bed::new());
}

/// A body of an upload, in pieces, under the digest of what zstd's own decoder makes of it.
pub(crate) fn run(input: &[u8]) -> bool {
    let mut content = Vec::new();
    let decoded = zstd::Decoder::new(input).and_then(|decoder| decoder.take(LIMIT + 1).read_to_end(&mut content));
    let digest = Digest::of(if decoded.is_ok() { &content[..] } else { input });
    BED.with_borrow(|bed| bed.runtime.block_on(upload(&bed.store, digest, input, &content)))
}

async fn upload(store: &FileBlobStore, digest: Digest, input: &[u8], content: &[u8]) -> bool {
    let pieces: Vec<_> = input.chunks(1 + input.len() % 61).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let accepted = store.put_compressed(digest, stream::iter(pieces).boxed()).await.is_ok();
    if accepted {
        let kept = store.get(digest).await.expect("what was accepted is kept");
        assert!(kept == content, "{} bytes are kept of {}", kept.len(), content.len());
    }
    let (files, _) = store.sweep(HashSet::new(), Duration::ZERO).await.expect("a folder");
    assert_eq!(files, u64::from(accepted), "files are left behind");
    accepted
}
