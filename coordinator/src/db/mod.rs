//! The database: the only place where the state of jobs, items and workers lives. One file per table in [`tables`]; the
//! functions there take a connection, so that callers decide what is one transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

pub(crate) mod tables;

/// Pages (of 4 KiB) in the log before they are moved into the database file. That step waits for the disk, for seconds when others keep it busy,
/// and no lease is given meanwhile; so it is made rarer than by default (1000).
const CHECKPOINT_PAGES: &str = "8000";
/// How long a connection waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers never wait for the writer (WAL), so a few are enough.
const READERS: u32 = 4;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file cannot be created or opened for writing.
    #[error("cannot write the database {path}: {reason}; check that the folder exists, is writable and has free space")]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// The file is no database, or a damaged one.
    #[error("the database {path} is damaged: {reason}; move it away to start afresh (published blobs are kept)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the schema of {path} up to date; it may have been written by a newer program")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the migrator said.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A stored value does not parse.
    #[error("a stored {what} does not parse")]
    Value {
        /// The type.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The storage is full or has become read-only.
    #[error("the database cannot be written: {0}")]
    Storage(String),
    /// Anything else.
    #[error("a database query failed")]
    Query(#[source] sqlx::Error),
}

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

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match primary_code(&error) {
            Some(rescode::READONLY | rescode::FULL | rescode::IOERR) => Self::Storage(error.to_string()),
            _ => Self::Query(error),
        }
    }
}

/// The result of everything here.
pub(crate) type Result<T, E = DbError> = std::result::Result<T, E>;

/// The connections. All writers of this process queue up at one connection, which is cheaper and fairer than SQLite's own
/// busy loop; other processes meet at the file's lock.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    read: SqlitePool,
    write: SqlitePool,
}

impl Db {
    /// Opens or creates the file and brings its schema up to date; `thorough` reads it through for damage first.
    pub(crate) async fn open(path: &Path, thorough: bool) -> Result<Self> {
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
                return Err(DbError::Damaged { path: path.to_owned(), reason: verdict });
            }
        }
        let mut migrator: Migrator = sqlx::migrate!("../migrations/coordinator");
        // The registry keeps its own tables, and its own count of migrations, in the same file.
        migrator.dangerous_set_table_name("_coordinator_migrations");
        migrator.run(&write).await.map_err(|source| match source {
            sqlx::migrate::MigrateError::Execute(error) => explain(path, error),
            source => DbError::Migrate { path: path.to_owned(), source },
        })?;
        let read = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(fail)?;
        Ok(Self { read, write })
    }

    /// A connection for queries.
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>> {
        Ok(self.read.acquire().await?)
    }

    /// A transaction that holds the write lock from the start, so that what it reads stays true until it commits.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

fn explain(path: &Path, error: sqlx::Error) -> DbError {
    let path = path.to_owned();
    let reason = error.to_string();
    match primary_code(&error) {
        Some(rescode::NOTADB | rescode::CORRUPT) => DbError::Damaged { path, reason },
        Some(rescode::READONLY | rescode::CANTOPEN | rescode::FULL | rescode::IOERR) => DbError::NotWritable { path, reason },
        _ => DbError::Query(error),
    }
}

/// The JSON text of a value.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("protocol types have only string keys")
}

/// The value of a stored JSON text; `what` names the type in errors.
pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| DbError::Value { what, source })
}

/// The one word by which serde writes a unit variant.
pub(crate) fn to_word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a unit variant is a word, not {other:?}"),
    }
}

/// The unit variant of a stored word.
pub(crate) fn from_word<T: DeserializeOwned>(what: &'static str, word: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|source| DbError::Value { what, source })
}

/// The connection of a transaction, as the table functions take it.
pub(crate) type Conn = SqliteConnection;
