use std::path::PathBuf;

/// What the database underneath said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created or opened for writing.
    #[error("cannot write the database {path}: {reason}; check that the folder exists, is writable and has free space")]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The file is no database, or a damaged one.
    #[error("the database {path} is damaged: {reason}; move it away to start afresh (published blobs are kept)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot bring the schema of {path} up to date; it may have been written by a newer program")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the migrator said.
        #[source]
        source: Cause,
    },
    /// A stored value does not parse.
    #[error("a stored {what} does not parse")]
    Value {
        /// The column or the thing.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The storage is full or has become read-only.
    #[error("the database cannot be written: {reason}")]
    Storage {
        /// What is wrong with it.
        trouble: Trouble,
        /// What the database said.
        reason: String,
    },
    /// Anything else.
    #[error("a database query failed")]
    Query(#[source] Cause),
}

/// What is wrong with the disk under a database, told apart by what a user can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The file or its folder may not be written.
    ReadOnly,
    /// Reading or writing fails.
    Broken,
    /// There is no space left.
    Full,
}

impl StoreError {
    /// What the database said, without what this program makes of it.
    pub fn reason(&self) -> String {
        match self {
            Self::NotWritable { reason, .. } | Self::Damaged { reason, .. } | Self::Storage { reason, .. } => reason.clone(),
            Self::Migrate { source, .. } | Self::Value { source, .. } | Self::Query(source) => source.to_string(),
        }
    }
}

/// The result of everything that asks the database.
pub(crate) type Result<T, E = StoreError> = std::result::Result<T, E>;
