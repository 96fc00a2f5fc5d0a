//! The profiling phase: artifacts are checked and timed.

use std::sync::Arc;

use aotfarm_protocol::{Device, Digest, JobState, Profile, ProfileSpec, WorkResult, WorkSpec};

use super::attempt::{Attempt, Drive, Planned, compute, unusable};
use super::link::Linked;
use super::watch::wait_for;
use crate::error::Error;
use crate::items::Want;
use crate::planner::Blueprint;

/// Milliseconds of timed runs per point of a Profile.
const BUDGET_MS: u64 = 600;

/// Makes the case that every artifact must reproduce.
pub(super) async fn check_case(attempt: &Attempt, blueprint: &Arc<dyn Blueprint>) -> Drive<Digest> {
    let (blobs, blueprint) = (&attempt.core.blobs, Arc::clone(blueprint));
    let samples = match attempt.job.request.samples {
        Some(samples) => Some(blobs.get(samples).await.map_err(Error::from)?),
        None => None,
    };
    let case = compute(move || blueprint.check_case(samples)).await??;
    Ok(blobs.put(case.into()).await.map_err(Error::from)?)
}

/// Profiles each artifact whose target has a device; `check` is the case that it must reproduce.
pub(super) async fn profile(attempt: &Attempt, planned: &Planned, linked: &[Linked], check: Digest) -> Drive<Vec<Profile>> {
    let request = &attempt.job.request;
    let points = planned.blueprint.profile_points();
    let device = |variant: &Linked| planned.pins[&variant.target].device.as_ref();
    let measurable: Vec<(&Linked, &Device)> = linked.iter().filter_map(|v| Some((v, device(v)?))).collect();
    let want = |(variant, device): &(&Linked, &Device)| {
        let spec = ProfileSpec {
            artifact: variant.artifact,
            target: variant.target,
            check,
            tolerance_e9: (request.precision.tolerance() * 1e9).round() as u64,
            points: points.clone(),
            threads: attempt.threads(device),
            budget_ms: BUDGET_MS,
        };
        let label = format!("check and profile {} for {}", request.name, variant.target);
        Want { spec: WorkSpec::Profile { spec, device: device.fingerprint() }, label, context: None }
    };
    let wants: Vec<Want> = measurable.iter().map(want).collect();
    let keys = attempt.core.want(attempt.id, &wants).await?;
    let to_come_ms = BUDGET_MS * points.len() as u64;
    let ended = wait_for(attempt, JobState::Profiling, &keys, &planned.pins, to_come_ms).await?;
    let mut profiles = Vec::new();
    for (key, (variant, _)) in keys.iter().zip(&measurable) {
        match &ended[key].result {
            Some(WorkResult::Profiled { profiles: found, .. }) => profiles.extend(found.iter().cloned()),
            other => return Err(unusable("the artifact", variant.target, other.as_ref(), &ended[key].log)),
        }
    }
    Ok(profiles)
}
