//! What workers ask.

use serde::{Deserialize, Serialize};

use super::endpoint::{Audience, Endpoint, Operation, endpoints};
use super::request::{Body, Path};
use crate::{Capabilities, Lease, Report, WorkItemId, WorkKind, WorkerId};

endpoints! { Audience::Worker;
    /// A worker introduces itself.
    pub const REGISTER: Endpoint<Body<Capabilities>, Registered> = POST "/v1/workers";

    /// Asks for work, waiting for some.
    pub const CLAIM: Endpoint<(Path<WorkerId>, Body<ClaimRequest>), ClaimResponse> = POST "/v1/workers/{id}/claim";

    /// Is alive, and renews its leases.
    pub const HEARTBEAT: Endpoint<(Path<WorkerId>, Body<Heartbeat>), HeartbeatResponse> = POST "/v1/workers/{id}/heartbeat";

    /// Ends a lease with a result or a failure.
    ///
    /// The error is `lease_lost` when the item was given to another worker meanwhile.
    pub const REPORT: Endpoint<(Path<WorkItemId>, Body<Report>), ()> = POST "/v1/items/{key}/report";

    /// Leaves: its leases go back at once.
    pub const LEAVE: Endpoint<Path<WorkerId>, ()> = DELETE "/v1/workers/{id}";
}

/// Answer to a worker that registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Registered {
    /// Its id from now on.
    pub worker: WorkerId,
    /// How often it must send heartbeats.
    pub heartbeat_ms: u64,
}

/// A worker asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ClaimRequest {
    /// The kinds that it has room for now.
    pub kinds: Vec<WorkKind>,
    /// How many items at most.
    pub max: u32,
    /// How long the coordinator may wait before it answers with none.
    pub wait_ms: u64,
}

/// The leases that were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ClaimResponse {
    /// Possibly none.
    pub leases: Vec<Lease>,
}

/// A worker is alive and still runs these leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Heartbeat {
    /// `(item, generation)` of each.
    pub leases: Vec<(WorkItemId, i64)>,
}

/// What became of the leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct HeartbeatResponse {
    /// Those that the worker no longer has (expired, cancelled): stop and do not report.
    pub lost: Vec<WorkItemId>,
    /// The worker failed repeatedly or is being removed: finish and leave.
    pub drain: bool,
}
