//! A leaf that the store and the client share: the form in which blobs are stored and sent, and
//! files that appear whole.
//!
//! | part | what |
//! |---|---|
//! | [`frame`] | content to zstd frames and back, its digest checked on the way |
//! | [`file`] | files that are replaced in one step or not at all, and what goes wrong with files |
//!
//! Invariant: nothing is said to be a blob before its digest was checked.
#![forbid(unsafe_code)]

pub mod file;
pub mod frame;

pub use file::FileError;
pub use frame::DecodeError;

/// Most bytes that a blob may have uncompressed, unless told otherwise: models of 8 billion
/// half-precision parameters fit.
pub const DEFAULT_LIMIT: u64 = 16 << 30;
