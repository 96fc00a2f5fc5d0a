//! What people and their tools ask.

use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::{ApiError, ErrorCode, ItemInfo, JobId, JobLogEntry, JobRequest, JobStatus, WorkerInfo};
use aotfarm_registry::server::{Failure, Json};
use aotfarm_store::WorkerRow;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use crate::core::Core;
use crate::error::Error;
use crate::leases::MAX_WAIT;

type Answer<T> = Result<Json<T>, Failure>;

/// Most jobs in one listing.
const MAX_JOBS: u32 = 1_000;
/// Most events in one answer; the next question gets the rest.
const MAX_EVENTS: u32 = 500;
/// How long a worker that has left is still listed.
const GONE_LISTED_MS: i64 = 60 * 60 * 1000;

/// An id from a path; a text that is none names nothing.
pub(super) fn job_id(text: &str) -> Result<JobId, Failure> {
    text.parse().map_err(|_| {
        ApiError::new(ErrorCode::NotFound, format!("`{}` is not the id of a job", text.escape_default()))
            .hint("`aotfarm jobs` lists them")
            .into()
    })
}

/// Takes a job.
pub(super) async fn submit(State(core): State<Arc<Core>>, Json(request): Json<JobRequest>) -> Answer<JobStatus> {
    Ok(Json(core.submit(request).await?))
}

#[derive(Deserialize)]
pub(super) struct JobsQuery {
    limit: Option<u32>,
}

/// The newest jobs, newest first.
pub(super) async fn jobs(State(core): State<Arc<Core>>, Query(query): Query<JobsQuery>) -> Answer<Vec<JobStatus>> {
    Ok(Json(core.statuses(query.limit.unwrap_or(50).min(MAX_JOBS)).await?))
}

/// One job.
pub(super) async fn job(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<JobStatus> {
    Ok(Json(core.status(job_id(&id)?).await?))
}

/// Gives a job up.
pub(super) async fn cancel(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<JobStatus> {
    Ok(Json(core.cancel(job_id(&id)?).await?))
}

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    wait_ms: u64,
}

/// The log of a job after a number; waits for more if there is none and the job is not at its end.
pub(super) async fn events(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer<Vec<JobLogEntry>> {
    let id = job_id(&id)?;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(MAX_WAIT);
    let mut listener = core.signals.events.listen();
    loop {
        let (entries, ended) = {
            let mut snapshot = core.store.read().await.map_err(Error::from)?;
            // Both of one moment: a job that has ended has its whole log among the entries.
            let ended = core.job(&mut *snapshot, id).await?.state.is_final();
            (snapshot.events_after(id, query.after, MAX_EVENTS).await.map_err(Error::from)?, ended)
        };
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if !entries.is_empty() || ended || left.is_zero() {
            return Ok(Json(entries));
        }
        listener.wait(left.min(Duration::from_secs(2))).await;
    }
}

/// The work items of a job.
pub(super) async fn items(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<Vec<ItemInfo>> {
    let id = job_id(&id)?;
    let mut snapshot = core.store.read().await.map_err(Error::from)?;
    core.job(&mut *snapshot, id).await?;
    Ok(Json(snapshot.item_infos(id).await.map_err(Error::from)?))
}

/// The workers that are here, and those that left lately.
pub(super) async fn workers(State(core): State<Arc<Core>>) -> Answer<Vec<WorkerInfo>> {
    let mut snapshot = core.store.read().await.map_err(Error::from)?;
    let leased = snapshot.leased_items().await.map_err(Error::from)?;
    let rows = snapshot.workers(core.now() - GONE_LISTED_MS).await.map_err(Error::from)?;
    let info = |row: WorkerRow| WorkerInfo {
        state: core.judge(&row),
        silent_ms: core.now() - row.seen_at,
        running: leased.iter().filter(|l| l.item.worker == Some(row.id)).count() as u32,
        id: row.id,
        done: row.done,
        failed: row.failed,
        capabilities: row.capabilities,
    };
    Ok(Json(rows.into_iter().map(info).collect()))
}
