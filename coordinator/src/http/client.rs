//! What people and their tools ask.

use std::sync::Arc;
use std::time::Duration;

use aotfarm_protocol::endpoints::client;
use aotfarm_protocol::{EventsQuery, ItemInfo, JobId, JobLogEntry, JobRequest, JobStatus, JobsQuery, WorkerInfo};
use aotfarm_registry::server::{Failure, Routes};
use aotfarm_store::WorkerRow;

use crate::core::Core;
use crate::error::Error;
use crate::leases::MAX_WAIT;

/// Jobs in a listing, unless asked for more.
const JOBS: u32 = 50;
/// Most jobs in one listing.
const MAX_JOBS: u32 = 1_000;
/// Most events in one answer; the next question gets the rest.
const MAX_EVENTS: u32 = 500;
/// How long a worker that has left is still listed.
const GONE_LISTED_MS: i64 = 60 * 60 * 1000;

pub(super) fn routes(routes: Routes<Arc<Core>>) -> Routes<Arc<Core>> {
    routes
        .on(&client::SUBMIT, submit)
        .on(&client::JOBS, jobs)
        .on(&client::JOB, job)
        .on(&client::CANCEL, cancel)
        .on(&client::EVENTS, events)
        .on(&client::ITEMS, items)
        .on(&client::WORKERS, workers)
}

async fn submit(core: Arc<Core>, request: JobRequest) -> Result<JobStatus, Failure> {
    Ok(core.submit(request).await?)
}

async fn jobs(core: Arc<Core>, query: JobsQuery) -> Result<Vec<JobStatus>, Failure> {
    Ok(core.statuses(query.limit.unwrap_or(JOBS).min(MAX_JOBS)).await?)
}

async fn job(core: Arc<Core>, id: JobId) -> Result<JobStatus, Failure> {
    Ok(core.status(id).await?)
}

async fn cancel(core: Arc<Core>, id: JobId) -> Result<JobStatus, Failure> {
    Ok(core.cancel(id).await?)
}

async fn events(core: Arc<Core>, (id, query): (JobId, EventsQuery)) -> Result<Vec<JobLogEntry>, Failure> {
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
            return Ok(entries);
        }
        listener.wait(left.min(Duration::from_secs(2))).await;
    }
}

async fn items(core: Arc<Core>, id: JobId) -> Result<Vec<ItemInfo>, Failure> {
    let mut snapshot = core.store.read().await.map_err(Error::from)?;
    core.job(&mut *snapshot, id).await?;
    Ok(snapshot.item_infos(id).await.map_err(Error::from)?)
}

async fn workers(core: Arc<Core>, (): ()) -> Result<Vec<WorkerInfo>, Failure> {
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
    Ok(rows.into_iter().map(info).collect())
}
