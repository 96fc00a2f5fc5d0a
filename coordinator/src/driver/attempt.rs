//! One attempt at one job: what its phases share, and how they stop.

use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{ApiError, Device, DeviceKind, ErrorCode, JobId, JobState, Published, Target, WorkResult};
use aotfarm_registry::CatalogError;

use crate::core::Core;
use crate::error::Error;
use crate::pipeline::JobStep;
use crate::planner::{Blueprint, Refusal};
use aotfarm_store::{BlobError, Ending, JobRow, Pins, StoreError};

/// The longest that an attempt sleeps without looking at the database.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Why an attempt stops before the end.
pub(super) enum Stop {
    /// The job is no longer in the state that this attempt brought it to: it was cancelled.
    Gone,
    /// The job cannot succeed.
    Fail(ApiError),
    /// The database or the disk failed; the job may succeed later.
    Broken(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let passing = match &error {
            Error::Api(_) | Error::DataDir { .. } | Error::Listen { .. } | Error::Serve(_) => false,
            Error::Store(_) => true,
            Error::Blob(blob) => matches!(blob, BlobError::File(_)),
            Error::Catalog(catalog) => matches!(catalog, CatalogError::Database { .. }),
        };
        if passing { Self::Broken(error) } else { Self::Fail(error.into()) }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Fail(ApiError { code: ErrorCode::BadRequest, message: refusal.message, hint: refusal.hint })
    }
}

pub(super) type Drive<T> = Result<T, Stop>;

/// Runs `work` off the async threads.
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Drive<T> {
    let stopped = |e| Stop::Fail(ApiError::new(ErrorCode::Internal, format!("the compiler failed: {e}")));
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

/// One attempt at one job.
pub(super) struct Attempt {
    pub(super) core: Arc<Core>,
    pub(super) id: JobId,
    /// As it was when the attempt began.
    pub(super) job: JobRow,
}

/// What the phases after planning work on.
pub(super) struct Planned {
    pub(super) blueprint: Arc<dyn Blueprint>,
    /// Compiler, linker and device for each target.
    pub(super) pins: Pins,
}

impl Attempt {
    /// Brings the job to the next state.
    pub(super) async fn step(&self, step: JobStep) -> Drive<()> {
        self.advance(step, &Ending::default()).await
    }

    /// Brings the job to its end.
    pub(super) async fn end(&self, step: JobStep, published: Published) -> Drive<()> {
        self.advance(step, &Ending { error: None, published: Some(published) }).await
    }

    async fn advance(&self, step: JobStep, ending: &Ending) -> Drive<()> {
        if self.core.advance(self.id, step, ending).await? { Ok(()) } else { Err(Stop::Gone) }
    }

    /// Stops the attempt when the job is no longer in `state`.
    pub(super) async fn expect(&self, state: JobState) -> Drive<()> {
        let mut snapshot = self.core.store.read().await?;
        let row = self.core.job(&mut *snapshot, self.id).await?;
        if row.state == state { Ok(()) } else { Err(Stop::Gone) }
    }

    /// Tells the job's watchers something.
    pub(super) async fn note(&self, message: impl Into<String>) -> Drive<()> {
        Ok(self.core.note(self.id, message.into()).await?)
    }

    /// Threads of kernels' teams and of sessions on a device.
    pub(super) fn threads(&self, device: &Device) -> u32 {
        match device.kind {
            DeviceKind::Cpu => self.job.request.threads.unwrap_or(device.cores).max(1),
            DeviceKind::Cuda => 1,
        }
    }
}

/// The error of a job one of whose last items did not come out.
pub(super) fn unusable(what: &str, target: Target, result: Option<&WorkResult>, log: &[String]) -> Stop {
    let reason = match result {
        Some(WorkResult::Rejected { reason }) => reason.clone(),
        Some(WorkResult::BuildFailed { log }) => format!("it does not compile: {log}"),
        Some(other) => format!("the worker answered something else: {other:?}"),
        None => format!("it failed on every attempt: {}", log.last().map_or("no worker said why", String::as_str)),
    };
    let error = ApiError::new(ErrorCode::Internal, format!("{what} for {target} is not usable: {reason}"));
    Stop::Fail(error.hint("`aotfarm logs JOB` shows what the workers said"))
}
