//! Errors of the coordinator, and what a client is told about each.

use std::path::PathBuf;

use aotfarm_protocol::{ApiError, ErrorCode};
use aotfarm_registry::CatalogError;
use aotfarm_store::{BlobError, StoreError};

/// Why the coordinator cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder cannot be made or written.
    #[error("cannot use the data folder {path}: {reason}; choose a writable folder")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Listening failed.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// Serving ended with an error.
    #[error("serving failed")]
    Serve(#[source] std::io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A refusal with its code: what a client is told, word by word.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Error {
    pub(crate) fn api(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Api(ApiError::new(code, message))
    }
}

/// The whole chain of an error on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(api) => api,
            Error::Blob(blob) => blob.into(),
            Error::Catalog(catalog) => catalog.into(),
            Error::Store(StoreError::Storage { .. } | StoreError::NotWritable { .. }) => {
                Self::new(ErrorCode::Storage, chain(&error))
                    .hint("free some space in the coordinator's data folder, or make it writable")
            }
            Error::Store(StoreError::Damaged { .. }) => Self::new(ErrorCode::Damaged, chain(&error)),
            Error::Store(_) | Error::DataDir { .. } | Error::Listen { .. } | Error::Serve(_) => {
                Self::new(ErrorCode::Internal, chain(&error))
            }
        }
    }
}
