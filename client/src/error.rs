use aotfarm_blob::FileError;
use aotfarm_protocol::{ApiError, ErrorCode};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is unusable.
    #[error("`{url}` is not the address of a coordinator: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answered, or only with passing failures, as often as it was tried.
    #[error("cannot reach {url} after {tries} {}: {cause}", if *tries == 1 { "try" } else { "tries" })]
    Unreachable {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// What the last try came to.
        cause: String,
    },
    /// The answer is not one of this API.
    #[error("{url} does not answer like a coordinator: {reason}")]
    Foreign {
        /// What was asked.
        url: String,
        /// What is odd about the answer.
        reason: String,
    },
    /// The server refused, or a blob or file on this side failed.
    #[error("{0}")]
    Api(#[source] ApiError),
}

impl ClientError {
    /// The error to branch on, if somebody gave one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// The code to branch on, if somebody gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.api().map(|e| e.code)
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Address { .. } => Some("give it as http://HOST:PORT".to_owned()),
            Self::Unreachable { .. } => {
                Some("is the coordinator running there (aotfarm coordinator), and may this machine connect to it?".to_owned())
            }
            Self::Foreign { .. } => Some(
                "check that the address is that of a coordinator of this version, not of a proxy or another service".to_owned(),
            ),
            Self::Api(error) => error.hint.clone(),
        }
    }
}

impl From<FileError> for ClientError {
    fn from(error: FileError) -> Self {
        Self::Api(error.into())
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => error,
            other => Self { code: ErrorCode::Internal, message: other.to_string(), hint: other.hint() },
        }
    }
}
