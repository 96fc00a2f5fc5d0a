//! Files that appear whole or not at all, and what goes wrong with files, told apart by what a user
//! can do about it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aotfarm_abi::link::HUGE_PAGE;
use aotfarm_protocol::{ApiError, Digest, ErrorCode};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::frame;

type Result<T> = std::result::Result<T, FileError>;

/// The action of [`FileError::io`] that needs no permission to write.
pub const READ: &str = "read";

/// Why the file system failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
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
    /// Any other failure.
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

impl FileError {
    /// Wraps what the system said when `action` was done to `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
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

    /// The system's words.
    pub fn into_source(self) -> io::Error {
        match self {
            Self::Full { source, .. } | Self::ReadOnly { source, .. } | Self::Io { source, .. } => source,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Full { path, .. } => {
                Some(format!("free space on the disk that holds {}, or move the data folder to a larger one", folder(path)))
            }
            Self::ReadOnly { path, .. } => {
                Some(format!("make {} writable for this user, or choose another folder", folder(path)))
            }
            Self::Io { .. } => None,
        }
    }
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        Self { code: ErrorCode::Storage, message: error.to_string(), hint: error.hint() }
    }
}

/// Digest of what `source` gives, and its length in bytes.
///
/// # Errors
/// Those of `source`.
pub fn hash(mut source: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; frame::CHUNK];
    let mut total = 0;
    loop {
        let n = frame::retry_interrupted(|| source.read(&mut chunk))?;
        if n == 0 {
            return Ok((Digest::from_sha256(hasher.finalize().into()), total));
        }
        hasher.update(&chunk[..n]);
        total += n as u64;
    }
}

/// Replaces the file at `path`, whose folder exists, by what `fill` writes, in one step and synced;
/// leaves it as it was if `fill` fails.
///
/// # Errors
/// Those of `fill`, and [`FileError`].
pub fn write_atomically<T, E: From<FileError>>(
    path: &Path,
    fill: impl FnOnce(&mut Pieces) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let mut temp = temp_in(folder_of(path))?;
    let mut pieces = Pieces { file: temp.as_file_mut(), piece: Vec::new() };
    let value = fill(&mut pieces)?;
    pieces.flush().map_err(FileError::io("write", path))?;
    persist(temp, path)?;
    Ok(value)
}

/// Writes a file in whole pieces of a huge page: file systems with large folios (ext4, XFS) then
/// keep it in memory so that it can be mapped by huge pages, which is what makes the first
/// inference of an artifact fast.
#[derive(Debug)]
pub struct Pieces<'f> {
    file: &'f mut File,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(HUGE_PAGE as usize - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == HUGE_PAGE as usize {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

/// A temporary file in a folder; it goes away unless it is kept by [`persist`].
///
/// # Errors
/// [`FileError`].
pub fn temp_in(dir: &Path) -> Result<NamedTempFile> {
    // The permissions of any new file, not the private ones of a temporary: pulled models are for
    // other users too.
    tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(|e| FileError::io("write", &dir.join("a temporary file"))(e))
}

/// Syncs a temporary file and gives it its name, which no reader ever sees with half of the
/// content.
///
/// # Errors
/// [`FileError`].
pub fn persist(temp: NamedTempFile, path: &Path) -> Result<()> {
    temp.as_file().sync_all().map_err(FileError::io("write", path))?;
    temp.persist(path).map_err(|e| FileError::io("write", path)(e.error))?;
    sync_dir(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs a folder, so that the names in it survive a crash of the machine.
///
/// # Errors
/// [`FileError`].
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(FileError::io("write", dir))
}

/// Runs file work off the async threads.
///
/// # Errors
/// Those of `work`, and [`FileError::Io`] when the program is shutting down.
pub async fn blocking<T, E>(work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static) -> std::result::Result<T, E>
where
    T: Send + 'static,
    E: From<FileError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(FileError::Io {
            action: "access",
            path: Path::new("the blob store").to_owned(),
            source: io::Error::other("the program is shutting down"),
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(action: &'static str, kind: io::ErrorKind, expected: &str, hint: Option<&str>) {
        let error = FileError::io(action, Path::new("/data/blobs/x"))(kind.into());
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
        let written = crate::frame::encode(&content[..], 1000, full).map_err(FileError::io("write", Path::new("/dev/full")));
        assert!(matches!(written, Err(FileError::Full { .. })), "{written:?}");
    }
}
