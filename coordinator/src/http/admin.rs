//! What operators ask.

use std::sync::Arc;
use std::sync::LazyLock;

use aotfarm_protocol::Health;
use aotfarm_protocol::endpoints::admin;
use aotfarm_registry::server::{Failure, Routes};
use serde_json::Value;

use crate::core::Core;

/// Made from the endpoints; a test of the protocol compares it with what they say now.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

pub(super) fn routes(routes: Routes<Arc<Core>>) -> Routes<Arc<Core>> {
    routes.on(&admin::HEALTH, health).on(&admin::OPENAPI, openapi)
}

async fn health(core: Arc<Core>, (): ()) -> Result<Health, Failure> {
    let uptime_s = ((core.now() - core.started_at) / 1000).unsigned_abs();
    Ok(Health { version: env!("CARGO_PKG_VERSION").to_owned(), uptime_s })
}

async fn openapi(_: Arc<Core>, (): ()) -> Result<Value, Failure> {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(OPENAPI).expect("the document was written by serde_json"));
    Ok(DOCUMENT.clone())
}
