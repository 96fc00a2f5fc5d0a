//! What operators ask.

use std::sync::Arc;

use aotfarm_protocol::Health;
use aotfarm_registry::server::Json;
use axum::extract::State;

use crate::core::Core;

/// The coordinator is up.
pub(super) async fn health(State(core): State<Arc<Core>>) -> Json<Health> {
    let uptime_s = ((core.now() - core.started_at) / 1000).unsigned_abs();
    Json(Health { version: env!("CARGO_PKG_VERSION").to_owned(), uptime_s })
}
