//! Files as importers get them.

use std::sync::Arc;

/// Bytes of a file, usually mapped, that weights can keep alive.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Gives the bytes of a file beside the imported one, by its relative path (ONNX external data); the error says why it cannot.
pub type External<'a> = &'a dyn Fn(&str) -> Result<SharedBytes, String>;
