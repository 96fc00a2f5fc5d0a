use aotfarm_protocol::{ApiError, ErrorCode};

use crate::blob::BlobError;

/// Why the catalog refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The named thing does not exist.
    #[error("{message}")]
    NotFound {
        /// What does not exist, and what does instead.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// A blob that the catalog needs or makes.
    #[error("{0}")]
    Blob(#[from] BlobError),
    /// A row that this program cannot have written.
    #[error("the catalog is damaged: {0}")]
    Corrupt(String),
    /// The database failed.
    #[error("failed to {action}: {source}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The database's words.
        source: sqlx::Error,
    },
    /// The tables could not be made.
    #[error("failed to prepare the catalog's tables: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

impl CatalogError {
    pub(super) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}

/// The primary result codes of SQLite that a user can do something about.
/// <https://www.sqlite.org/rescode.html>
fn storage_hint(error: &sqlx::Error) -> Option<&'static str> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    match code & 0xff {
        8 | 14 => Some("make the database file and its folder writable for this user"),
        10 => Some("check the disk that holds the database"),
        13 => Some("free space on the disk that holds the database"),
        _ => None,
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        let message = error.to_string();
        match error {
            CatalogError::NotFound { hint, .. } => Self { code: ErrorCode::NotFound, message, hint },
            CatalogError::Invalid(_) => Self::new(ErrorCode::BadRequest, message),
            CatalogError::Blob(e) => e.into(),
            CatalogError::Corrupt(_) => Self::new(ErrorCode::Damaged, message),
            CatalogError::Database { source, .. } | CatalogError::Migrate(sqlx::migrate::MigrateError::Execute(source)) => {
                match storage_hint(&source) {
                    Some(hint) => Self::new(ErrorCode::Storage, message).hint(hint),
                    None => Self::new(ErrorCode::Internal, message),
                }
            }
            CatalogError::Migrate(_) => Self::new(ErrorCode::Internal, message),
        }
    }
}
