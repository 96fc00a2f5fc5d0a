//! The registry's routes. The coordinator merges them into its own.

mod blobs;
mod error;
mod models;
mod oci;
mod routes;

use aotfarm_store::BlobStore;
use axum::Router;

pub use self::error::{Failure, Json, no_route, status_of};
pub use self::routes::{At, Extract, Routes};
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

    fn blobs(&self) -> &dyn BlobStore {
        &**self.catalog.blobs()
    }
}

/// The routes of the registry: its own, and those of a read-only OCI distribution endpoint.
pub fn routes() -> Routes<Registry> {
    oci::routes(models::routes(blobs::routes(Routes::default())))
}

/// [`routes`] over a registry.
pub fn router(registry: Registry) -> Router {
    routes().with_state(registry)
}
