use aotfarm_protocol::{ApiError, ErrorCode};
use aotfarm_store::{BlobError, StoreError, Trouble};

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
    #[error("failed to {action}: {}", source.reason())]
    Database {
        /// What was being done.
        action: &'static str,
        /// How.
        source: StoreError,
    },
}

/// Says what was being done when the database failed.
pub(super) trait During<T> {
    fn during(self, action: &'static str) -> Result<T, CatalogError>;
}

impl<T> During<T> for Result<T, StoreError> {
    fn during(self, action: &'static str) -> Result<T, CatalogError> {
        self.map_err(|source| match source {
            StoreError::Value { .. } => CatalogError::Corrupt(format!("{source}: {}", source.reason())),
            source => CatalogError::Database { action, source },
        })
    }
}

fn storage_hint(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::ReadOnly => "make the database file and its folder writable for this user",
        Trouble::Broken => "check the disk that holds the database",
        Trouble::Full => "free space on the disk that holds the database",
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
            CatalogError::Database { source: StoreError::Storage { trouble, .. }, .. } => {
                Self::new(ErrorCode::Storage, message).hint(storage_hint(trouble))
            }
            CatalogError::Database { .. } => Self::new(ErrorCode::Internal, message),
        }
    }
}
