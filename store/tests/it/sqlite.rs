//! SQLite: the suite, and files that are no database.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aotfarm_store::{SqliteStore, Store, StoreError};

use crate::suite::Database;

pub(crate) struct Folder(tempfile::TempDir);

impl Database for Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.0.path(), true).await.unwrap())
    }
}

database_suite!(Folder);

async fn open_error(folder: &Path) -> StoreError {
    SqliteStore::open(folder, true).await.expect_err("the folder cannot be used")
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aotfarm.db");
    fs::write(&file, vec![b'x'; 8192]).unwrap();
    let error = open_error(dir.path()).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("aotfarm.db")).unwrap();
    for folder in [dir.path(), &dir.path().join("absent")] {
        let error = open_error(folder).await;
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains("aotfarm.db"), "{error}");
    }
}
