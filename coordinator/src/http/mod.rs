//! The HTTP API, one file per audience. The table of routes is in `aotfarm_protocol`'s `api` module.

mod admin;
mod client;
mod worker;

use std::sync::Arc;

use aotfarm_registry::server::{self, Registry};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use tower_http::trace::TraceLayer;

use crate::core::Core;

/// Most bytes of a JSON body: the samples of a Measure item of the largest space fit many times over.
const BODY_LIMIT: usize = 32 << 20;

/// All routes.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let registry = server::router(Registry::new(core.catalog.clone()));
    Router::new()
        .route("/v1/jobs", post(client::submit).get(client::jobs))
        .route("/v1/jobs/{id}", get(client::job))
        .route("/v1/jobs/{id}/cancel", post(client::cancel))
        .route("/v1/jobs/{id}/events", get(client::events))
        .route("/v1/jobs/{id}/items", get(client::items))
        .route("/v1/workers", get(client::workers).post(worker::register))
        .route("/v1/workers/{id}", delete(worker::leave))
        .route("/v1/workers/{id}/claim", post(worker::claim))
        .route("/v1/workers/{id}/heartbeat", post(worker::heartbeat))
        .route("/v1/items/{key}/report", post(worker::report))
        .route("/v1/health", get(admin::health))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(core)
        .merge(registry)
        .fallback(server::no_route)
        .layer(TraceLayer::new_for_http())
}
