//! Bodies of the HTTP API that are no words of their own. Paths, grouped by audience:
//!
//! | audience | method and path | request → response |
//! |---|---|---|
//! | client | `POST /v1/jobs` | [`JobRequest`](crate::JobRequest) → [`JobStatus`](crate::JobStatus) |
//! | client | `GET /v1/jobs?limit=N` | → `[JobStatus]` |
//! | client | `GET /v1/jobs/{id}` | → `JobStatus` |
//! | client | `POST /v1/jobs/{id}/cancel` | → `JobStatus` |
//! | client | `GET /v1/jobs/{id}/events?after=SEQ&wait_ms=MS` | long poll → `[JobLogEntry]` |
//! | client | `GET /v1/jobs/{id}/items` | → `[ItemInfo]` |
//! | client | `GET /v1/workers` | → `[WorkerInfo]` |
//! | worker | `POST /v1/workers` | [`Capabilities`](crate::Capabilities) → [`Registered`] |
//! | worker | `POST /v1/workers/{id}/claim` | [`ClaimRequest`] → [`ClaimResponse`] (long poll) |
//! | worker | `POST /v1/workers/{id}/heartbeat` | [`Heartbeat`] → [`HeartbeatResponse`] |
//! | worker | `POST /v1/items/{key}/report` | [`Report`](crate::Report) → `()`; `LeaseLost` if fenced off |
//! | worker | `DELETE /v1/workers/{id}` | leave: leases go back at once |
//! | registry | `HEAD, GET, PUT /v1/blobs/{digest}` | zstd frames; GET honours `Range` |
//! | registry | `POST /v1/blobs/{digest}/verify` | reads it through; `Damaged` if it is, and it is gone then |
//! | registry | `GET /v1/models`, `/v1/models/{name}` | → `[ModelInfo]`, `[HistoryEntry]` |
//! | registry | `GET /v1/resolve?ref=REFERENCE` | → [`VersionInfo`](crate::VersionInfo) |
//! | registry | `PUT, DELETE /v1/models/{name}/tags/{tag}` | [`TagRequest`] → `VersionInfo` |
//! | registry | `GET /v2/…` | the pull half of the OCI distribution specification |
//! | admin | `GET /v1/health` | → [`Health`] |

use serde::{Deserialize, Serialize};

use crate::{Capabilities, Lease, WorkItemId, WorkKind, WorkerId};

/// Answer to a worker that registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its id from now on.
    pub worker: WorkerId,
    /// How often it must send heartbeats.
    pub heartbeat_ms: u64,
}

/// A worker asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct ClaimResponse {
    /// Possibly none.
    pub leases: Vec<Lease>,
}

/// A worker is alive and still runs these leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// `(item, generation)` of each.
    pub leases: Vec<(WorkItemId, i64)>,
}

/// What became of the leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatResponse {
    /// Those that the worker no longer has (expired, cancelled): stop and do not report.
    pub lost: Vec<WorkItemId>,
    /// The worker failed repeatedly or is being removed: finish and leave.
    pub drain: bool,
}

/// How a worker is judged. `Unknown` is not mine to judge: the coordinator has just started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum WorkerState {
    Alive,
    Stale,
    Unknown,
    Draining,
    Gone,
}

/// A worker in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Which.
    pub id: WorkerId,
    /// What it can do.
    pub capabilities: Capabilities,
    /// How it is judged.
    pub state: WorkerState,
    /// Milliseconds since it was heard of.
    pub silent_ms: i64,
    /// Items that it runs now.
    pub running: u32,
    /// Items that it has finished.
    pub done: u32,
    /// Items that it could not do.
    pub failed: u32,
}

/// The state of a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum ItemState {
    Queued,
    Leased,
    Done,
    Quarantined,
    Cancelled,
}

/// A work item in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemInfo {
    /// Which.
    pub id: WorkItemId,
    /// Its kind.
    pub kind: WorkKind,
    /// What it does, in words.
    pub label: String,
    /// Where it stands.
    pub state: ItemState,
    /// How often it has been given out.
    pub attempts: u32,
    /// Host of the worker that has or had it.
    pub worker: Option<String>,
    /// Milliseconds of work.
    pub run_ms: Option<u64>,
    /// How often it has been completed: 1 for a finished item, never more.
    pub completions: u32,
    /// What went wrong in each failed attempt.
    pub log: Vec<String>,
}

/// Points a tag at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    /// The version.
    pub version: u32,
}

/// The coordinator is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Version of the program.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
}
