//! The registry's routes. The coordinator merges them into its own.

mod blobs;
mod error;
mod models;
mod oci;
mod routes;
mod state;

use axum::Router;

pub use self::error::{Failure, Json, no_route, status_of};
pub use self::routes::{At, Extract, Routes};
pub use self::state::Registry;

/// The routes of the registry: its own, and those of a read-only OCI distribution endpoint.
pub fn routes() -> Routes<Registry> {
    oci::routes(models::routes(blobs::routes(Routes::default())))
}

/// [`routes`] over a registry.
pub fn router(registry: Registry) -> Router {
    routes().with_state(registry)
}
