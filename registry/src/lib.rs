//! The registry: versions of models with their performance history, and the server routes that offer them and the blobs.
//!
//! | part | what | state |
//! |---|---|---|
//! | [`catalog`] | [`Catalog`]: the rules of models, versions, variants, tags, profiles | in `aotfarm_store` |
//! | [`server`] | routes over it and the blobs, and as an OCI distribution endpoint to read from | none |
//! | [`compare`] | whether one set of Profiles is faster than another | none, pure |
//!
//! Invariants: nothing here knows a database's dialect, or reads a clock: callers say when something happened.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod compare;
pub mod server;

pub use catalog::{Catalog, CatalogError};
