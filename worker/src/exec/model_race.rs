//! Model race: artifacts of one model, with different kernels, timed step by step in a child
//! process.

use std::path::Path;
use std::time::Duration;

use aotfarm_protocol::{ModelRaceSpec, WorkResult};
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use super::executor::Executor;
use crate::child::model_race::{ModelRaceEvent, ModelRaceJob};
use crate::sandbox::{GRACE, Limits};

/// Loading and the least number of runs may take this long, besides what is asked for.
const LOAD_TIME: Duration = Duration::from_secs(60);
/// Bytes of the child's answer.
const MAX_ANSWER: usize = 64 << 20;

pub(super) async fn model_race(
    cx: &Executor,
    spec: &ModelRaceSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    let mut artifacts = Vec::with_capacity(spec.artifacts.len());
    for (k, artifact) in spec.artifacts.iter().enumerate() {
        let file = dir.join(format!("artifact-{k}.so"));
        cx.cache.fetch(*artifact, &file, cancel).await?;
        artifacts.push(file);
    }
    let job = ModelRaceJob { spec: spec.clone(), artifacts };
    let points = spec.points.len().min(10_000) as u32;
    let budget = Duration::from_millis(spec.budget_ms).saturating_mul(3).min(Duration::from_secs(3600));
    let limits = Limits { time: LOAD_TIME + (budget + GRACE) * points, memory: None, file: 1 << 20, output: MAX_ANSWER };
    Ok(match cx.child.run("model-race", dir, &job, limits, cancel).await? {
        Ok(ModelRaceEvent::Timed { seconds }) => WorkResult::ModelRaced { seconds },
        Ok(ModelRaceEvent::Rejected { reason }) => WorkResult::Rejected { reason },
        Err(death) => WorkResult::Rejected { reason: format!("an artifact failed: {death}") },
    })
}
