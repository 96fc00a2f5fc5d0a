//! The clients' side: submit, look, cancel; and the one place where a Job changes its state.

use std::collections::BTreeSet;

use aotfarm_protocol::endpoints::registry;
use aotfarm_protocol::{
    ApiError, Digest, ErrorCode, JobEvent, JobId, JobRequest, JobState, JobStatus, KeyHasher, MAX_THREADS, Published, Reference,
};
use aotfarm_store::{Ending, JobRow, Pins, Snapshot};
use uuid::Uuid;

use crate::core::Core;
use crate::error::Error;
use crate::pipeline::{JobStep, next};

/// Bounds of a request: far above what makes sense, so that no request makes the coordinator do unbounded work.
const MAX_TARGETS: usize = 16;
const MAX_DIMS: usize = 64;
const MAX_BUDGET_S: u32 = 24 * 3600;

/// Checks what can be checked without the graph.
fn check_request(request: &JobRequest) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::BadRequest, message));
    if !Reference::is_name(&request.name) {
        return refuse(format!("`{}` is not a model name (a-z, 0-9, `.`, `_`, `-`; at most 128)", request.name.escape_default()));
    }
    if request.targets.is_empty() || request.targets.len() > MAX_TARGETS {
        return refuse(format!("a job needs 1 to {MAX_TARGETS} targets, not {}", request.targets.len()));
    }
    if request.targets.iter().collect::<BTreeSet<_>>().len() != request.targets.len() {
        return refuse("a target is listed twice".to_owned());
    }
    if request.dims.len() > MAX_DIMS || request.tune_at.len() > MAX_DIMS {
        return refuse(format!("more than {MAX_DIMS} dimension ranges or sizes to tune at"));
    }
    if let Some(dim) = request.dims.iter().find(|d| d.min < 0 || d.max < d.min || d.max < 1) {
        let (name, min, max) = (&dim.name, dim.min, dim.max);
        return refuse(format!("the range {min}..{max} of dimension `{name}` is none: it needs 0 ≤ MIN ≤ MAX and 1 ≤ MAX"));
    }
    if request.threads.is_some_and(|n| n == 0 || n > MAX_THREADS) {
        return refuse(format!("the number of threads must be 1 to {MAX_THREADS}"));
    }
    if request.trials == Some(0) || request.budget_s.is_some_and(|s| s == 0 || s > MAX_BUDGET_S) {
        return refuse(format!(
            "trials must be at least 1, and the budget 1 to {MAX_BUDGET_S} seconds; tune `none` measures nothing"
        ));
    }
    Ok(())
}

/// The key of a job: equal ones are the same work.
pub(crate) fn key(request: &JobRequest, compiler: &str) -> Digest {
    let request = serde_json::to_string(request).expect("a request has only string keys");
    KeyHasher::new("job").field(request).field(compiler).finish()
}

impl Core {
    /// Takes a job. One whose very request was answered before is published at once, without any work.
    pub(crate) async fn submit(&self, request: JobRequest) -> Result<JobStatus, Error> {
        check_request(&request)?;
        if !self.config.drive {
            return Err(Error::api(ErrorCode::Conflict, "this server shows what is stored and takes no jobs"));
        }
        let uploaded = [("graph", Some(request.graph)), ("samples", request.samples)];
        for (what, digest) in uploaded.into_iter().filter_map(|(what, digest)| Some((what, digest?))) {
            if !self.blobs.contains(digest).await? {
                return Err(ApiError::new(ErrorCode::NotFound, format!("{what} {digest} was not uploaded"))
                    .hint(format!("PUT it to {} first", registry::BLOB_PUT.path().replace("{digest}", "DIGEST")))
                    .into());
            }
        }
        let compiler = self.planner.version();
        let key = key(&request, &compiler);
        let now = self.now();
        let mut job = JobRow {
            id: JobId(Uuid::now_v7()),
            key,
            compiler: Some(compiler),
            request,
            state: JobState::Queued,
            pins: Pins::new(),
            error: None,
            published: None,
            submitted_at: now,
            finished_at: None,
        };
        let known = self.published_before(&job).await?;
        let mut tx = self.store.write().await?;
        if let Some(published) = known {
            job.state = JobState::Published;
            job.published = Some(published);
            job.finished_at = Some(now);
        }
        tx.insert_job(&job).await?;
        self.log(&mut *tx, job.id, &JobEvent::State { state: job.state }).await?;
        if let Some(published) = &job.published {
            self.log(&mut *tx, job.id, &JobEvent::Published { published: Box::new(published.clone()) }).await?;
        }
        tx.commit().await?;
        tracing::info!(job.id = %job.id, job.name = job.request.name, "a job was submitted");
        // As it was taken: a driver may be on its way a moment later.
        let status = self.status(job.id).await?;
        self.signals.jobs.raise();
        self.signals.events.raise();
        Ok(status)
    }

    /// What an equal request published before, if its artifacts are still there.
    async fn published_before(&self, job: &JobRow) -> Result<Option<Published>, Error> {
        let row = {
            let mut snapshot = self.store.read().await?;
            snapshot.published_job(job.key).await?
        };
        let Some(published) = row.and_then(|r| r.published) else { return Ok(None) };
        for (_, artifact, _) in &published.variants {
            if !self.blobs.contains(*artifact).await? {
                return Ok(None);
            }
        }
        Ok(Some(Published { existed: true, ..published }))
    }

    /// A job or the error that there is none.
    pub(crate) async fn job(&self, snapshot: &mut dyn Snapshot, id: JobId) -> Result<JobRow, Error> {
        snapshot.job(id).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no job {id}")).hint("`aotfarm jobs` lists them").into()
        })
    }

    /// A job as clients see it.
    pub(crate) async fn status(&self, id: JobId) -> Result<JobStatus, Error> {
        let mut snapshot = self.store.read().await?;
        let row = self.job(&mut *snapshot, id).await?;
        status_of(&mut *snapshot, row).await
    }

    /// The newest jobs, newest first.
    pub(crate) async fn statuses(&self, limit: u32) -> Result<Vec<JobStatus>, Error> {
        let mut snapshot = self.store.read().await?;
        let mut all = Vec::new();
        for row in snapshot.newest_jobs(limit).await? {
            all.push(status_of(&mut *snapshot, row).await?);
        }
        Ok(all)
    }

    /// Gives a job up; its open items go, unless another job needs them.
    pub(crate) async fn cancel(&self, id: JobId) -> Result<JobStatus, Error> {
        let state = {
            let mut snapshot = self.store.read().await?;
            self.job(&mut *snapshot, id).await?.state
        };
        if state != JobState::Cancelled && !self.advance(id, JobStep::Cancel, &Ending::default()).await? {
            let state = self.status(id).await?.state;
            return Err(Error::api(ErrorCode::Conflict, format!("job {id} is {state} and cannot be cancelled")));
        }
        self.status(id).await
    }

    /// Makes a step of a job: state, log and, at the end, what came of it and the release of its items, in one transaction.
    /// `false` when the job is in a state that has no such step; then nothing was changed.
    pub(crate) async fn advance(&self, id: JobId, step: JobStep, ending: &Ending) -> Result<bool, Error> {
        let mut tx = self.store.write().await?;
        let row = self.job(&mut *tx, id).await?;
        let Some(state) = next(row.state, step) else { return Ok(false) };
        if state != row.state {
            if !tx.set_job_state(id, row.state, state).await? {
                return Ok(false);
            }
            self.log(&mut *tx, id, &JobEvent::State { state }).await?;
        }
        if let Some(published) = &ending.published {
            self.log(&mut *tx, id, &JobEvent::Published { published: Box::new(published.clone()) }).await?;
        }
        if let Some(error) = &ending.error {
            self.log(&mut *tx, id, &JobEvent::Failed { error: error.clone() }).await?;
        }
        if state.is_final() {
            tx.finish_job(id, ending, self.now()).await?;
            self.drop_items(&mut *tx, id).await?;
        }
        tx.commit().await?;
        tracing::info!(job.id = %id, job.state = %state, "the job is {state}");
        self.signals.events.raise();
        self.signals.progress.raise();
        if state.is_final() {
            self.signals.work.raise();
        }
        Ok(true)
    }
}

async fn status_of(snapshot: &mut dyn Snapshot, row: JobRow) -> Result<JobStatus, Error> {
    let items = snapshot.item_counts(row.id).await?;
    Ok(JobStatus {
        id: row.id,
        request: row.request,
        state: row.state,
        items,
        error: row.error,
        published: row.published,
        submitted_at: row.submitted_at,
        finished_at: row.finished_at,
    })
}
