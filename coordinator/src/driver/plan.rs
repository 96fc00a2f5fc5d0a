//! The first phase: the blueprint of the job's graph.

use std::sync::Arc;

use aotfarm_store::JobRow;
use tokio::sync::Semaphore;

use super::attempt::{Attempt, Drive, compute};
use crate::core::Core;
use crate::error::Error;
use crate::jobs;
use crate::planner::Blueprint;

/// The job as this coordinator's compiler plans it. One that another version of the compiler began is planned anew: work items
/// whose text is the same are done already.
pub(super) async fn adopt(core: &Core, job: JobRow) -> Drive<JobRow> {
    let compiler = core.planner.version();
    if job.compiler.as_ref() == Some(&compiler) {
        return Ok(job);
    }
    let key = jobs::key(&job.request, &compiler);
    let mut tx = core.store.write().await?;
    tx.set_compiler(job.id, &compiler, key).await?;
    tx.commit().await?;
    let began = job.compiler.as_deref().unwrap_or("an earlier release");
    core.note(job.id, format!("planned anew by compiler {compiler}: {began} began it")).await?;
    Ok(JobRow { compiler: Some(compiler), key, ..job })
}

/// Plans the job's graph for its targets, as one of few that plan at once.
pub(super) async fn plan(attempt: &Attempt, planners: &Semaphore) -> Drive<Arc<dyn Blueprint>> {
    let _permit = planners.acquire().await;
    let graph = attempt.core.blobs.get(attempt.job.request.graph).await.map_err(Error::from)?;
    let (planner, request) = (Arc::clone(&attempt.core.planner), attempt.job.request.clone());
    Ok(compute(move || planner.plan(graph, &request)).await??)
}
