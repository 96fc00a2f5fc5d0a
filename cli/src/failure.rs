//! Errors for people, and the documented exit codes.

use std::path::Path;
use std::process::ExitCode;

use aotfarm_client::ClientError;
use aotfarm_protocol::{ApiError, ErrorCode};
use aotfarm_runtime::{LoadError, RunError, RunErrorKind};

use crate::output::Output;

/// A failure that the user can mend, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The job or a check failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hint: None }
    }

    /// Bad usage or input.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), hint: None }
    }

    /// Storage is full, read-only or in use.
    pub(crate) fn storage(message: impl Into<String>) -> Self {
        Self { code: 6, message: message.into(), hint: None }
    }

    /// With the file that it is about before the message.
    pub(crate) fn of(mut self, file: &Path) -> Self {
        self.message = format!("{}: {}", file.display(), self.message);
        self
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.hint_if(Some(hint.into()))
    }

    /// [`Self::hint`], when there is something.
    pub(crate) fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// What to do when the data folder cannot be used.
pub(crate) const DATA_DIR_HINT: &str = "choose a writable folder with --data-dir or AOTFARM_DATA_DIR";

/// Why the coordinator could not open its data folder, in terms of what the user can do.
pub(crate) fn opening(dir: &Path, error: aotfarm_coordinator::Error) -> anyhow::Error {
    let error = match error {
        aotfarm_coordinator::Error::DataDir { reason, .. } => ApiError::new(ErrorCode::Storage, reason),
        other => ApiError::from(other),
    };
    match error.code {
        ErrorCode::Storage => Failure::storage(format!("failed to open the data folder {}: {}", dir.display(), error.message))
            .hint(DATA_DIR_HINT)
            .into(),
        _ => error.into(),
    }
}

/// The exit code of an artifact that does not load.
fn load_code(error: &LoadError) -> u8 {
    match error {
        LoadError::Read { .. } => 3,
        LoadError::NotArtifact { .. } => 2,
        LoadError::Host { .. } | LoadError::Abi { .. } => 5,
        LoadError::Open { .. } => 1,
    }
}

fn code_of(error: ErrorCode) -> u8 {
    match error {
        ErrorCode::BadRequest => 2,
        ErrorCode::NotFound => 3,
        ErrorCode::Conflict | ErrorCode::LeaseLost | ErrorCode::NoCapableWorker => 1,
        ErrorCode::Unsupported => 5,
        ErrorCode::Damaged | ErrorCode::Storage => 6,
        ErrorCode::Internal => 70,
    }
}

/// The exit code and hint of an error: the first cause that knows them decides.
fn classify(error: &anyhow::Error) -> (u8, Option<String>) {
    for cause in error.chain() {
        if let Some(f) = cause.downcast_ref::<Failure>() {
            return (f.code, f.hint.clone());
        }
        if let Some(e) = cause.downcast_ref::<ApiError>() {
            return (code_of(e.code), e.hint.clone());
        }
        if let Some(e) = cause.downcast_ref::<ClientError>() {
            return match e.api() {
                Some(api) => (code_of(api.code), api.hint.clone()),
                None if matches!(e, ClientError::Address { .. }) => (2, e.hint()),
                None => (4, e.hint()),
            };
        }
        if let Some(e) = cause.downcast_ref::<RunError>() {
            let code = match e.kind {
                RunErrorKind::Argument => 2,
                RunErrorKind::Unsupported => 5,
                _ => 1,
            };
            return (code, None);
        }
        if let Some(e) = cause.downcast_ref::<LoadError>() {
            return (load_code(e), None);
        }
        if let Some(e) = cause.downcast_ref::<std::io::Error>() {
            return match e.kind() {
                std::io::ErrorKind::NotFound => (3, None),
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::ReadOnlyFilesystem
                | std::io::ErrorKind::PermissionDenied => (6, None),
                _ => (1, None),
            };
        }
    }
    (1, None)
}

/// Prints the error and its hint; returns the exit code.
pub(crate) fn report(error: &anyhow::Error, out: &Output) -> ExitCode {
    let (code, hint) = classify(error);
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // A cause that its parent already quotes would be read twice.
        if !message.contains(&cause) {
            message += if message.is_empty() { "" } else { ": " };
            message += &cause;
        }
    }
    let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    let cyan = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Cyan.into()));
    out.say(format!("{} {message}", out.paint(red, "error:")));
    if let Some(hint) = hint {
        out.say(format!("{} {hint}", out.paint(cyan, "hint:")));
    }
    ExitCode::from(code)
}
