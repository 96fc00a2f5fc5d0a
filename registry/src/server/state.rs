//! What the routes work on.

use aotfarm_store::BlobStore;

use crate::catalog::Catalog;

/// What the routes work on.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Versions, tags, history.
    pub catalog: Catalog,
    /// Most bytes, compressed, that one upload may have.
    pub upload_limit: u64,
}

impl Registry {
    /// Routes over `catalog` and its blobs, with uploads limited only by what the blob store takes.
    pub fn new(catalog: Catalog) -> Self {
        let upload_limit = catalog.blobs().limit();
        Self { catalog, upload_limit }
    }

    pub(super) fn blobs(&self) -> &dyn BlobStore {
        &**self.catalog.blobs()
    }
}
