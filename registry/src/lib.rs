//! The registry: versions of models with their performance history, the server routes that offer them and the blobs, and
//! the client that pulls.
//!
//! | part | what | state |
//! |---|---|---|
//! | [`catalog`] | [`Catalog`]: the rules of models, versions, variants, tags, profiles | in `aotfarm_store` |
//! | [`server`] | routes over it and the blobs, and as an OCI distribution endpoint to read from | none |
//! | [`client`] | [`Client`](client::Client): HTTP with retries, typed JSON, blobs with resume | none |
//! | [`pull`] | the best variant that a host can run, into a folder | none |
//! | [`compare`] | whether one set of Profiles is faster than another | none, pure |
//!
//! Invariants: bytes leave the client only after their digest was checked; nothing here knows a database's dialect; this crate
//! reads no clock (callers say when something happened) except to wait between retries.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod client;
pub mod compare;
pub mod pull;
pub mod server;

pub use catalog::{Catalog, CatalogError};
