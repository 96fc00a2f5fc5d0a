//! Profile: an artifact checked against the reference interpreter and timed end to end, in a child process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aotfarm_protocol::{Profile, ProfileSpec, Quantiles, WorkResult};
use tokio_util::sync::CancellationToken;

use super::error::ExecError;
use super::executor::Executor;
use crate::child::profile::{ProfileEvent, ProfileJob};
use crate::sandbox::{ChildError, GRACE, Limits};

/// A check case and its runs may take this long before any point is timed.
const CHECK_TIME: Duration = Duration::from_secs(120);
/// Bytes of the child's answer, which holds every sample.
const MAX_ANSWER: usize = 256 << 20;

pub(super) async fn profile(
    cx: &Executor,
    spec: &ProfileSpec,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<WorkResult, ExecError> {
    let device = cx.device.as_ref().ok_or(ExecError::Lacks("device to measure on"))?;
    let (artifact, check) = (dir.join("artifact.so"), dir.join("check.safetensors"));
    cx.cache.fetch(spec.artifact, &artifact, cancel).await?;
    cx.cache.fetch(spec.check, &check, cancel).await?;
    let job = ProfileJob { spec: spec.clone(), artifact, check };
    let points = spec.points.len().min(10_000) as u32;
    let time =
        CHECK_TIME + (Duration::from_millis(spec.budget_ms).saturating_mul(3).min(Duration::from_secs(3600)) + GRACE) * points;
    // No limit on address space: an artifact reserves working memory for its largest batch, most of which is never touched.
    let limits = Limits { time, memory: None, file: 1 << 20, output: MAX_ANSWER };
    let (error, rows, compiler) = match cx.child.run("profile", dir, &job, limits, cancel).await? {
        Ok(ProfileEvent::Profiled { error, rows, compiler }) => (error, rows, compiler),
        Ok(ProfileEvent::Rejected { reason }) => return Ok(WorkResult::Rejected { reason }),
        Err(death) => return Ok(WorkResult::Rejected { reason: format!("the artifact failed: {death}") }),
    };
    let at = unix_now();
    let mut tools =
        BTreeMap::from([("worker".to_owned(), env!("CARGO_PKG_VERSION").to_owned()), ("compiler".to_owned(), compiler)]);
    if let Some(cc) = cx.toolchains.native() {
        tools.insert("cc".to_owned(), cc.id.clone());
    }
    let mut profiles = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(latency) = Quantiles::of(&row.samples) else {
            let reason = "it gave no samples".to_owned();
            return Err(ChildError::Failed { kind: "profile", reason }.into());
        };
        profiles.push(Profile {
            target: spec.target,
            device: device.clone(),
            point: row.point,
            threads: spec.threads,
            latency,
            samples: row.samples,
            steps: row.steps,
            tools: tools.clone(),
            at,
        });
    }
    Ok(WorkResult::Profiled { profiles, error })
}

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "the date of a Profile is information for people; nothing is decided by it")]
fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}
