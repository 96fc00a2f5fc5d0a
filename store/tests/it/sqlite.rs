//! SQLite: the suite, and files that are no database.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aotfarm_protocol::{Digest, JobEvent, JobState};
use aotfarm_store::{Pin, SqliteStore, Store, StoreError};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::suite::jobs::job;
use crate::suite::{Database, V3, build, job_id};

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

/// The texts in the columns are a format: folders outlive programs.
#[tokio::test]
async fn columns_hold_what_older_programs_read_and_wrote() {
    let folder = Folder::new();
    let store = folder.open().await;
    let mut row = job(job_id(1), "net", JobState::Queued, 5);
    row.pins = [(V3, Pin { toolchain: "gcc-1".to_owned(), linker: "gcc-2".to_owned(), device: None })].into();
    let mut tx = store.write().await.unwrap();
    tx.insert_job(&row).await.unwrap();
    tx.insert_item(&build(1), "an item", None, 6).await.unwrap();
    tx.link_item(row.id, build(1).id(), true).await.unwrap();
    tx.append_event(row.id, 7, &JobEvent::State { state: JobState::Queued }).await.unwrap();
    tx.commit().await.unwrap();
    store.close().await;

    let options = SqliteConnectOptions::new().filename(folder.0.path().join("aotfarm.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let (job, key) = ("00000000-0000-0000-0000-000000000001", Digest::of("net"));
    let stored: (String, String, String, String) =
        sqlx::query_as("SELECT id, key, state, pins FROM jobs").fetch_one(&mut conn).await.unwrap();
    let pins = r#"[["cpu-x86_64-v3",{"toolchain":"gcc-1","linker":"gcc-2","device":null}]]"#;
    assert_eq!(stored, (job.to_owned(), key.to_string(), "queued".to_owned(), pins.to_owned()));
    let stored: (String, String, String, String, String, String) =
        sqlx::query_as("SELECT key, kind, toolchain, target, state, log FROM work_items").fetch_one(&mut conn).await.unwrap();
    let item = build(1).id().to_string();
    let words = [item.as_str(), "build", "gcc-1", "cpu-x86_64-v3", "queued", "[]"].map(str::to_owned);
    assert_eq!(stored, words.into());
    let stored: (String, String, bool) =
        sqlx::query_as("SELECT job, item, cached FROM job_items").fetch_one(&mut conn).await.unwrap();
    assert_eq!(stored, (job.to_owned(), item, true));
    let event: String = sqlx::query_scalar("SELECT event FROM job_events").fetch_one(&mut conn).await.unwrap();
    assert_eq!(event, r#"{"event":"state","state":"queued"}"#);
    let applied: (i64, i64) =
        sqlx::query_as("SELECT (SELECT COUNT(*) FROM _coordinator_migrations), (SELECT COUNT(*) FROM _registry_migrations)")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(applied, (3, 1));

    // What does not parse is named by its column.
    sqlx::query("UPDATE jobs SET state = 'flying'").execute(&mut conn).await.unwrap();
    let error = folder.open().await.read().await.unwrap().job(row.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Value { .. }), "{error:?}");
    assert_eq!(error.to_string(), "a stored state does not parse");
}
