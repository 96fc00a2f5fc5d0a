use std::fmt;

use serde::{Deserialize, Serialize};

/// What a client can branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request does not parse or breaks a rule that the message names.
    BadRequest,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists in a state that refuses the request.
    Conflict,
    /// The lease is no longer the caller's: it expired, or the item was given to another worker.
    LeaseLost,
    /// Stored bytes do not match their digest.
    Damaged,
    /// No worker that is connected can do this.
    NoCapableWorker,
    /// The storage is full or read-only.
    Storage,
    /// The host cannot run any variant.
    Unsupported,
    /// A defect or an unforeseen failure of the server.
    Internal,
}

/// The one error body of the HTTP API: a code to branch on, a message to show, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ApiError {
    /// What to branch on.
    pub code: ErrorCode,
    /// What happened, naming the thing and the place; a lower-case fragment without a final stop.
    pub message: String,
    /// What the user can do, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
