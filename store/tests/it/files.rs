//! A folder of blobs: the suite, and where its files are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use aotfarm_store::{BlobError, BlobStore, FileBlobStore};

use crate::suite::Blobs;

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// The file of a blob. Folders of earlier versions have it there.
    fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.0.path().join("blobs/sha256").join(&hex[..2]).join(format!("{hex}.zst"))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

impl Blobs for Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open_limited(&self, limit: u64) -> Arc<dyn BlobStore> {
        Arc::new(FileBlobStore::open_limited(self.0.path(), limit).unwrap())
    }

    fn open(&self) -> Arc<dyn BlobStore> {
        Arc::new(FileBlobStore::open(self.0.path()).unwrap())
    }

    fn things(&self) -> usize {
        files(self.0.path()).len()
    }

    fn stored(&self, digest: Digest) -> Vec<u8> {
        fs::read(self.path(digest)).unwrap()
    }

    fn store(&self, digest: Digest, bytes: &[u8]) {
        fs::write(self.path(digest), bytes).unwrap();
    }

    fn lose(&self, digest: Digest) {
        fs::remove_file(self.path(digest)).unwrap();
    }

    fn age(&self, digest: Digest, by: Duration) {
        let path = self.path(digest);
        let used = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(used.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)).unwrap();
    }

    fn leave_over(&self) {
        fs::write(self.0.path().join("blobs/tmp/left-over"), "half").unwrap();
    }
}

blob_suite!(Folder);

#[tokio::test]
async fn a_damaged_file_is_named_and_moved_aside() {
    let folder = Folder::new();
    let store = folder.open();
    let digest = store.put("content".into()).await.unwrap();
    folder.store(digest, b"rubbish");
    let message = store.get(digest).await.unwrap_err().to_string();
    let path = folder.path(digest).display().to_string();
    assert!(message.starts_with(&format!("the stored blob {path} is damaged: ")), "{message}");
    assert!(message.ends_with(&format!("; it was moved to {path}.damaged")), "{message}");
    assert_eq!(files(folder.0.path()), [PathBuf::from(format!("{path}.damaged"))]);
}

#[tokio::test]
async fn a_read_only_folder_is_said_to_be_one() {
    let folder = Folder::new();
    let store = folder.open();
    let tmp = folder.0.path().join("blobs/tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(tmp.join("probe"), "").is_ok() {
        println!("skipped: this user (root?) may write to read-only folders");
        return;
    }
    let error = store.put("x".into()).await.unwrap_err();
    assert!(matches!(error, BlobError::File(aotfarm_blob::FileError::ReadOnly { .. })), "{error}");
    let api = ApiError::from(error);
    assert_eq!(api.code, ErrorCode::Storage);
    assert!(api.hint.unwrap().contains("writable for this user"));
}
