//! The database as one SQLite file; one file per table here.

mod job_events;
mod job_items;
mod jobs;
mod model_profiles;
mod model_tags;
mod model_variants;
mod model_versions;
mod tasks;
mod tuning_records;
mod value;
mod work_items;
mod workers;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Sqlite;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::error::{Result, StoreError, Trouble};
use crate::unit::{Snapshot, Store, Transaction};

/// The file in a data folder.
const FILE: &str = "aotfarm.db";
/// Pages (of 4 KiB) in the log before they are moved into the database file. That step waits for
/// the disk, for seconds when others keep it busy, and no lease is given meanwhile; so it is made
/// rarer than by default (1000).
const CHECKPOINT_PAGES: &str = "8000";
/// How long a connection waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers never wait for the writer (WAL), so a few are enough.
const READERS: u32 = 4;

/// Primary result codes of SQLite, <https://www.sqlite.org/rescode.html>.
mod rescode {
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let trouble = match primary_code(&error) {
            Some(rescode::READONLY | rescode::CANTOPEN) => Trouble::ReadOnly,
            Some(rescode::IOERR) => Trouble::Broken,
            Some(rescode::FULL) => Trouble::Full,
            _ => {
                return match error {
                    // The index of a column is its name in quotes.
                    sqlx::Error::ColumnDecode { index, source } => {
                        Self::Value { what: index.trim_matches('"').to_owned(), source }
                    }
                    error => Self::Query(error.into()),
                };
            }
        };
        Self::Storage { trouble, reason: error.to_string() }
    }
}

/// An error while opening the file, which may be that of a folder or of a file that is no database.
fn explain(path: &Path, error: sqlx::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    match primary_code(&error) {
        Some(rescode::NOTADB | rescode::CORRUPT) => StoreError::Damaged { path, reason },
        Some(rescode::READONLY | rescode::CANTOPEN | rescode::FULL | rescode::IOERR) => StoreError::NotWritable { path, reason },
        _ => StoreError::Query(error.into()),
    }
}

/// A [`Store`] in a SQLite file. All writers of this process queue up at one connection, which is
/// cheaper and fairer than SQLite's own busy loop; other processes meet at the file's lock. Clones
/// share the connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    read: SqlitePool,
    write: SqlitePool,
}

impl SqliteStore {
    /// Opens or creates the database of a data folder, which must exist, and brings its schema up
    /// to date. `thorough` reads the file through for damage first, which takes a while when there
    /// is much history.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`], [`StoreError::Damaged`], [`StoreError::Migrate`], or another
    /// [`StoreError`].
    pub async fn open(folder: &Path, thorough: bool) -> Result<Self> {
        let path = &folder.join(FILE);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .busy_timeout(BUSY_TIMEOUT);
        let fail = |error: sqlx::Error| explain(path, error);
        let write = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(fail)?;
        if thorough {
            let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&write).await.map_err(fail)?;
            if verdict != "ok" {
                return Err(StoreError::Damaged { path: path.clone(), reason: verdict });
            }
        }
        // The catalog's tables have their own count of migrations.
        let coordinator = (sqlx::migrate!("../migrations/coordinator"), "_coordinator_migrations");
        let catalog = (sqlx::migrate!("../migrations/registry"), "_registry_migrations");
        for (migrator, table) in [coordinator, catalog] {
            migrate(&write, migrator, table).await.map_err(|source| match source {
                MigrateError::Execute(error) => explain(path, error),
                source => StoreError::Migrate { path: path.clone(), source: source.into() },
            })?;
        }
        let read = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(fail)?;
        Ok(Self { read, write })
    }
}

async fn migrate(pool: &SqlitePool, mut migrator: Migrator, table: &'static str) -> Result<(), MigrateError> {
    migrator.dangerous_set_table_name(table);
    // SQLite has no advisory locks: another process may make a table between our look and our
    // attempt, once for each migration.
    for _ in 0..migrator.iter().count() {
        if migrator.run(pool).await.is_ok() {
            return Ok(());
        }
    }
    migrator.run(pool).await
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(Unit(self.read.begin().await?)))
    }

    async fn write(&self) -> Result<Box<dyn Transaction>> {
        // IMMEDIATE takes the write lock from the start.
        Ok(Box::new(Unit(self.write.begin_with("BEGIN IMMEDIATE").await?)))
    }

    async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// A transaction of SQLite: only the trait by which it is known tells whether it may write.
struct Unit(sqlx::Transaction<'static, Sqlite>);

impl Unit {
    fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }
}

impl Snapshot for Unit {}

#[async_trait]
impl Transaction for Unit {
    async fn commit(self: Box<Self>) -> Result<()> {
        Ok(self.0.commit().await?)
    }
}
