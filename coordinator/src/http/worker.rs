//! What workers ask.

use std::sync::Arc;

use aotfarm_protocol::{
    ApiError, Capabilities, ClaimRequest, ClaimResponse, ErrorCode, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId,
    WorkerId,
};
use aotfarm_registry::server::{Failure, Json};
use axum::extract::{Path, State};

use crate::core::Core;

type Answer<T> = Result<Json<T>, Failure>;

fn worker_id(text: &str) -> Result<WorkerId, Failure> {
    text.parse()
        .map_err(|_| ApiError::new(ErrorCode::NotFound, format!("`{}` is not the id of a worker", text.escape_default())).into())
}

/// A worker introduces itself.
pub(super) async fn register(State(core): State<Arc<Core>>, Json(capabilities): Json<Capabilities>) -> Answer<Registered> {
    Ok(Json(core.register(&capabilities).await?))
}

/// Asks for work, waiting for some.
pub(super) async fn claim(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Json(request): Json<ClaimRequest>,
) -> Answer<ClaimResponse> {
    Ok(Json(ClaimResponse { leases: core.claim(worker_id(&id)?, &request).await? }))
}

/// Is alive, and renews its leases.
pub(super) async fn heartbeat(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Json(heartbeat): Json<Heartbeat>,
) -> Answer<HeartbeatResponse> {
    Ok(Json(core.heartbeat(worker_id(&id)?, &heartbeat).await?))
}

/// Ends a lease with a result or a failure.
pub(super) async fn report(State(core): State<Arc<Core>>, Path(key): Path<String>, Json(report): Json<Report>) -> Answer<()> {
    let key: WorkItemId = key
        .parse()
        .map_err(|_| ApiError::new(ErrorCode::NotFound, format!("`{}` is not the key of a work item", key.escape_default())))?;
    core.report(key, &report).await?;
    Ok(Json(()))
}

/// Leaves.
pub(super) async fn leave(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<()> {
    core.leave(worker_id(&id)?).await?;
    Ok(Json(()))
}
