//! What workers ask.

use std::sync::Arc;

use aotfarm_protocol::endpoints::worker;
use aotfarm_protocol::{
    Capabilities, ClaimRequest, ClaimResponse, Heartbeat, HeartbeatResponse, Registered, Report, WorkItemId, WorkerId,
};
use aotfarm_registry::server::{Failure, Routes};

use crate::core::Core;

pub(super) fn routes(routes: Routes<Arc<Core>>) -> Routes<Arc<Core>> {
    routes
        .on(&worker::REGISTER, register)
        .on(&worker::CLAIM, claim)
        .on(&worker::HEARTBEAT, heartbeat)
        .on(&worker::REPORT, report)
        .on(&worker::LEAVE, leave)
}

async fn register(core: Arc<Core>, capabilities: Capabilities) -> Result<Registered, Failure> {
    Ok(core.register(&capabilities).await?)
}

async fn claim(core: Arc<Core>, (id, request): (WorkerId, ClaimRequest)) -> Result<ClaimResponse, Failure> {
    Ok(ClaimResponse { leases: core.claim(id, &request).await? })
}

async fn heartbeat(core: Arc<Core>, (id, heartbeat): (WorkerId, Heartbeat)) -> Result<HeartbeatResponse, Failure> {
    Ok(core.heartbeat(id, &heartbeat).await?)
}

async fn report(core: Arc<Core>, (item, report): (WorkItemId, Report)) -> Result<(), Failure> {
    Ok(core.report(item, &report).await?)
}

async fn leave(core: Arc<Core>, id: WorkerId) -> Result<(), Failure> {
    Ok(core.leave(id).await?)
}
