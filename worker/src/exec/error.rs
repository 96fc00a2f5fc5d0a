//! Why a worker could not do an item.

use std::io;

use aotfarm_protocol::Target;

use crate::cache::BlobError;
use crate::sandbox::{ChildError, ProcessError};

/// Why the worker could not do an item; another worker may.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// The lease was lost or the worker is leaving.
    #[error("cancelled")]
    Cancelled,
    /// It is not for this worker.
    #[error("this worker has no toolchain `{toolchain}` for {target}")]
    NoToolchain { toolchain: String, target: Target },
    /// It is not for this worker.
    #[error("this worker has no {0}")]
    Lacks(&'static str),
    /// A blob could not be had or stored.
    #[error(transparent)]
    Blob(BlobError),
    /// The disk.
    #[error("could not {doing}")]
    Disk {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// A compiler could not be started or talked to.
    #[error(transparent)]
    Process(ProcessError),
    /// A child failed in a way that says nothing about the item.
    #[error(transparent)]
    Child(ChildError),
}

impl From<BlobError> for ExecError {
    fn from(error: BlobError) -> Self {
        if matches!(error, BlobError::Cancelled) { Self::Cancelled } else { Self::Blob(error) }
    }
}

impl From<ProcessError> for ExecError {
    fn from(error: ProcessError) -> Self {
        if matches!(error, ProcessError::Cancelled) { Self::Cancelled } else { Self::Process(error) }
    }
}

impl From<ChildError> for ExecError {
    fn from(error: ChildError) -> Self {
        match error {
            ChildError::Process(error) => error.into(),
            error => Self::Child(error),
        }
    }
}

impl ExecError {
    /// The disk failed while `doing` something; completes "could not …".
    pub(super) fn disk(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Disk { doing, source }
    }
}
