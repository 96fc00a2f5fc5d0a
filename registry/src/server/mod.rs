//! The registry's routes. The coordinator merges them into its own.

mod blobs;
mod error;
mod models;
mod oci;

use aotfarm_store::BlobStore;
use axum::Router;
use axum::routing::{get, post, put};

pub use self::error::{Failure, Json, no_route, status_of};
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

/// The routes of the registry, as listed in [`aotfarm_protocol`]'s API, and a read-only OCI distribution endpoint under `/v2/`.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v1/blobs/{digest}", get(blobs::get).head(blobs::head).put(blobs::put))
        .route("/v1/blobs/{digest}/verify", post(blobs::verify))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{name}", get(models::history))
        .route("/v1/models/{name}/tags/{tag}", put(models::tag).delete(models::untag))
        .route("/v1/resolve", get(models::resolve))
        .route("/v2/", get(oci::base))
        .route("/v2/{name}/manifests/{reference}", get(oci::manifest))
        .route("/v2/{name}/blobs/{digest}", get(oci::blob).head(oci::blob_head))
        .route("/v2/{name}/tags/list", get(oci::tags))
        .with_state(registry)
}
