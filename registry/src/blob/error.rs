use std::io;
use std::path::{Path, PathBuf};

use aotfarm_protocol::{ApiError, Digest, ErrorCode};

/// Why the blob store, or a file that a blob was to become, failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("blob {digest} is not in the store {}", root.display())]
    Missing {
        /// Which.
        digest: Digest,
        /// The store's folder.
        root: PathBuf,
    },
    /// The stored bytes are not the content; the file was moved out of the way, so that the blob can be stored anew.
    #[error("the stored blob {} is damaged: {reason}; {}", path.display(), aside(moved.as_deref()))]
    Damaged {
        /// The blob's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Where the file is now, if it could be moved.
        moved: Option<PathBuf>,
    },
    /// The bytes that were handed in are not the content that they were said to be.
    #[error("the bytes sent for blob {digest} are not its content: {reason}")]
    Refused {
        /// What they were said to be.
        digest: Digest,
        /// What is wrong with them.
        reason: String,
    },
    /// The sender broke off.
    #[error("receiving blob {digest} broke off: {source}")]
    BrokeOff {
        /// Which.
        digest: Digest,
        /// How.
        source: io::Error,
    },
    /// More bytes than are allowed.
    #[error("blob {digest} is too large: {reason}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// How much it is and how much it may be.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left to write {}: {source}", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    ReadOnly {
        /// What was being written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

fn aside(moved: Option<&Path>) -> String {
    moved.map_or_else(|| "it could not be moved aside".to_owned(), |to| format!("it was moved to {}", to.display()))
}

impl BlobError {
    /// Wraps an error of the file system, told apart by what the user can do about it.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
                io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
                io::ErrorKind::PermissionDenied if action != READ => Self::ReadOnly { path, source },
                _ => Self::Io { action, path, source },
            }
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } => Some("submit the model again to store it anew; check the disk if this repeats".to_owned()),
            Self::Full { path, .. } => {
                Some(format!("free space on the disk that holds {}, or move the data folder to a larger one", folder(path)))
            }
            Self::ReadOnly { path, .. } => {
                Some(format!("make {} writable for this user, or choose another folder", folder(path)))
            }
            _ => None,
        }
    }
}

/// The action of [`BlobError::io`] that needs no permission to write.
pub(crate) const READ: &str = "read";

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        let code = match &error {
            BlobError::Missing { .. } => ErrorCode::NotFound,
            BlobError::Damaged { .. } => ErrorCode::Damaged,
            BlobError::Refused { .. } | BlobError::BrokeOff { .. } | BlobError::TooLarge { .. } => ErrorCode::BadRequest,
            BlobError::Full { .. } | BlobError::ReadOnly { .. } | BlobError::Io { .. } => ErrorCode::Storage,
        };
        Self { code, message: error.to_string(), hint: error.hint() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(action: &'static str, kind: io::ErrorKind, expected: &str, hint: Option<&str>) {
        let error = BlobError::io(action, Path::new("/data/blobs/x"))(kind.into());
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.hint().as_deref(), hint);
        assert_eq!(ApiError::from(error).code, ErrorCode::Storage);
    }

    #[test]
    fn storage_errors_are_told_apart_with_a_remedy() {
        use io::ErrorKind::{Interrupted, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let full = Some("free space on the disk that holds /data/blobs, or move the data folder to a larger one");
        let locked = Some("make /data/blobs writable for this user, or choose another folder");
        check("write", StorageFull, "no space left to write /data/blobs/x: ", full);
        check("write", QuotaExceeded, "no space left to write /data/blobs/x: ", full);
        check("create", ReadOnlyFilesystem, "cannot write /data/blobs/x: ", locked);
        check("write", PermissionDenied, "cannot write /data/blobs/x: ", locked);
        check(READ, PermissionDenied, "failed to read /data/blobs/x: ", None);
        check("write", Interrupted, "failed to write /data/blobs/x: ", None);
    }

    #[test]
    fn a_full_device_is_recognised_through_the_encoder() {
        let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
            println!("skipped: there is no /dev/full here");
            return;
        };
        let content = vec![1; 1000];
        let written =
            super::super::codec::encode(&content[..], 1000, full).map_err(BlobError::io("write", Path::new("/dev/full")));
        assert!(matches!(written, Err(BlobError::Full { .. })), "{written:?}");
    }
}
