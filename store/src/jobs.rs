//! Jobs: what was asked, where it stands, what came of it.

use std::collections::BTreeMap;

use aotfarm_protocol::{ApiError, Device, Digest, JobId, JobRequest, JobState, Published, Target};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a job has settled on for a target, so that a restarted coordinator goes on with the same
/// work items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Identity of the compiler.
    pub toolchain: String,
    /// Identity of the C compiler that links artifacts: for a CPU the same one.
    pub linker: String,
    /// The device to measure and profile on; `None` for one that no worker has: kernels are chosen
    /// by records of its nearest relative.
    pub device: Option<Device>,
}

/// The choices of a job, by target.
pub type Pins = BTreeMap<Target, Pin>;

/// A job. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Which.
    pub id: JobId,
    /// Digest of the request and the compiler's version: equal keys are the same work.
    pub key: Digest,
    /// Version of the compiler that plans it; `None` in rows of releases that did not say.
    pub compiler: Option<String>,
    /// What was asked.
    pub request: JobRequest,
    /// Where it stands.
    pub state: JobState,
    /// What it has settled on.
    pub pins: Pins,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// What it published.
    pub published: Option<Published>,
    /// When it was submitted.
    pub submitted_at: i64,
    /// When it reached a final state.
    pub finished_at: Option<i64>,
}

/// What came of a job.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Why it failed.
    pub error: Option<ApiError>,
    /// What it published.
    pub published: Option<Published>,
}

/// Queries for jobs.
#[async_trait]
pub trait ReadJobs {
    /// One job.
    async fn job(&mut self, id: JobId) -> Result<Option<JobRow>>;

    /// The newest jobs, newest first.
    async fn newest_jobs(&mut self, limit: u32) -> Result<Vec<JobRow>>;

    /// Jobs that are not finished, oldest first.
    async fn unfinished_jobs(&mut self) -> Result<Vec<JobRow>>;

    /// The job of this key that was published last.
    async fn published_job(&mut self, key: Digest) -> Result<Option<JobRow>>;

    /// The unfinished job of this key that was submitted first, other than `than` and before it.
    async fn earlier_job(&mut self, key: Digest, than: JobId) -> Result<Option<JobId>>;
}

/// Changes of jobs.
#[async_trait]
pub trait WriteJobs {
    /// Adds a job.
    async fn insert_job(&mut self, job: &JobRow) -> Result<()>;

    /// Moves a job from one state to another; `false` when it was not in `from` (it was cancelled,
    /// say).
    async fn set_job_state(&mut self, id: JobId, from: JobState, to: JobState) -> Result<bool>;

    /// Adds to a job that has just reached a final state what came of it. `at` is Unix
    /// milliseconds.
    async fn finish_job(&mut self, id: JobId, ending: &Ending, at: i64) -> Result<()>;

    /// Gives a job to another version of the compiler; its key follows from it.
    async fn set_compiler(&mut self, id: JobId, compiler: &str, key: Digest) -> Result<()>;

    /// Stores the choices of a job.
    async fn set_pins(&mut self, id: JobId, pins: &Pins) -> Result<()>;
}
