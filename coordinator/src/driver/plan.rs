//! The first phase: the blueprint of the job's graph.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::attempt::{Attempt, Drive, compute};
use crate::error::Error;
use crate::planner::Blueprint;

/// Plans the job's graph for its targets, as one of few that plan at once.
pub(super) async fn plan(attempt: &Attempt, planners: &Semaphore) -> Drive<Arc<dyn Blueprint>> {
    let _permit = planners.acquire().await;
    let graph = attempt.core.blobs.get(attempt.job.request.graph).await.map_err(Error::from)?;
    let (planner, request) = (Arc::clone(&attempt.core.planner), attempt.job.request.clone());
    Ok(compute(move || planner.plan(graph, &request)).await??)
}
