//! What people and their tools ask.

use serde::{Deserialize, Serialize};

use super::endpoint::{Audience, Endpoint, Operation, endpoints};
use super::request::{Body, Path, Query};
use crate::{Capabilities, JobId, JobLogEntry, JobRequest, JobStatus, WorkItemId, WorkKind, WorkerId};

endpoints! { Audience::Client;
    /// Takes a job.
    ///
    /// One whose very request was answered before is published at once, without any work.
    pub const SUBMIT: Endpoint<Body<JobRequest>, JobStatus> = POST "/v1/jobs";

    /// The newest jobs, newest first.
    pub const JOBS: Endpoint<Query<JobsQuery>, Vec<JobStatus>> = GET "/v1/jobs";

    /// One job.
    pub const JOB: Endpoint<Path<JobId>, JobStatus> = GET "/v1/jobs/{id}";

    /// Gives a job up.
    pub const CANCEL: Endpoint<Path<JobId>, JobStatus> = POST "/v1/jobs/{id}/cancel";

    /// The log of a job after a number.
    ///
    /// Waits for more if there is none and the job is not at its end.
    pub const EVENTS: Endpoint<(Path<JobId>, Query<EventsQuery>), Vec<JobLogEntry>> = GET "/v1/jobs/{id}/events";

    /// The work items of a job.
    pub const ITEMS: Endpoint<Path<JobId>, Vec<ItemInfo>> = GET "/v1/jobs/{id}/items";

    /// The workers that are here, and those that left lately.
    pub const WORKERS: Endpoint<(), Vec<WorkerInfo>> = GET "/v1/workers";
}

/// Which jobs are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct JobsQuery {
    /// At most so many; 50 if not given, and never more than 1000.
    pub limit: Option<u32>,
}

/// Which part of a job's log is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct EventsQuery {
    /// Only entries with a greater number.
    #[serde(default)]
    pub after: i64,
    /// How long the coordinator may wait for one, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// How a worker is judged. `Unknown` is not mine to judge: the coordinator has just started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
