//! The registry: content-addressed blobs, versions of models with their performance history, the server routes that offer
//! them, and the client that pulls.
//!
//! | part | what | state |
//! |---|---|---|
//! | [`blob`] | [`BlobStore`]: bytes by SHA-256, zstd-compressed in a folder | files |
//! | [`catalog`] | [`Catalog`]: models, versions, variants, tags, profiles | SQLite |
//! | [`server`] | routes over both, and as an OCI distribution endpoint to read from | none |
//! | [`client`] | [`Client`](client::Client): HTTP with retries, typed JSON, blobs with resume | none |
//! | [`pull`] | the best variant that a host can run, into a folder | none |
//! | [`compare`] | whether one set of Profiles is faster than another | none, pure |
//!
//! Invariants: bytes leave the store or the client only after their digest was checked; a blob's path never holds half of
//! it; this crate reads no clock (callers say when something happened) except to age files and to wait between retries.
#![forbid(unsafe_code)]

pub mod blob;
pub mod catalog;
pub mod client;
pub mod compare;
pub mod pull;
pub mod server;

pub use blob::{BlobError, BlobStore};
pub use catalog::{Catalog, CatalogError};
