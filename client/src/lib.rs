//! The client's side of the HTTP API: typed calls, blobs, retries, and the pull of the best variant that a host can run.
//!
//! | part | what |
//! |---|---|
//! | [`Client`] | sends what [`aotfarm_protocol::endpoints`] make, tries again what may go better, moves blobs with resume |
//! | [`Retry`] | how often, and how long between |
//! | [`pull`] | resolves a reference, chooses a variant, verifies the chain of digests, puts it into a folder |
//!
//! Invariant: bytes leave the client only after their digest was checked. Workers and the command line use it for everything.
#![forbid(unsafe_code)]

mod blobs;
mod error;
mod http;
pub mod pull;
mod retry;

pub use blobs::Progress;
pub use error::ClientError;
pub use http::Client;
pub use retry::Retry;
