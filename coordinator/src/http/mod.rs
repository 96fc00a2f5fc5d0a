//! The HTTP API, one file per audience. The endpoints are in `aotfarm_protocol::endpoints`.

mod admin;
mod client;
mod worker;

use std::sync::Arc;

use aotfarm_registry::server::{self, Registry, Routes};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use tower_http::trace::TraceLayer;

use crate::core::Core;

/// Most bytes of a JSON body: the samples of a Measure item of the largest space fit many times over.
const BODY_LIMIT: usize = 32 << 20;

/// The routes of the coordinator; those of the registry are its own.
fn routes() -> Routes<Arc<Core>> {
    admin::routes(worker::routes(client::routes(Routes::default())))
}

/// All routes.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let registry = server::router(Registry::new(core.catalog.clone()));
    routes()
        .with_state(core)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .merge(registry)
        .fallback(server::no_route)
        .layer(TraceLayer::new_for_http())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aotfarm_protocol::endpoints::{Operation, table};

    use super::*;

    #[test]
    fn every_endpoint_has_a_route_and_every_route_is_in_the_table() {
        let names = |operations: &[Operation]| operations.iter().map(|o| o.name.clone()).collect::<BTreeSet<_>>();
        let (own, registry) = (routes(), server::routes());
        let routed = names(&[own.operations(), registry.operations()].concat());
        assert_eq!(routed, names(&table()));
    }
}
