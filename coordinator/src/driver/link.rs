//! The linking phase: an artifact for each variant.

use std::sync::Arc;

use aotfarm_protocol::{ArtifactMetadata, Digest, JobState, LinkSpec, Target, WorkResult, WorkSpec};
use aotfarm_search::Configuration;

use super::attempt::{Attempt, Drive, Planned, compute, unusable};
use super::build::build_item;
use super::watch::wait_for;
use crate::error::Error;
use crate::items::Want;
use crate::planner::LinkOutline;
use aotfarm_store::Pins;

/// What the later phases need of a linked variant.
pub(super) struct Linked {
    pub(super) target: Target,
    pub(super) artifact: Digest,
    pub(super) metadata: ArtifactMetadata,
}

/// Links the artifact of each variant from its configuration.
pub(super) async fn link(attempt: &Attempt, planned: &Planned, configurations: Vec<Configuration>) -> Drive<Vec<Linked>> {
    let mut wants = Vec::new();
    let mut parts = Vec::new();
    for (index, configuration) in configurations.into_iter().enumerate() {
        let target = planned.blueprint.variants()[index].target;
        let no_device = planned.pins[&target].device.is_none();
        let untested = no_device.then(|| format!("no device that runs {target} was there to measure on"));
        let (plan, chosen) = (Arc::clone(&planned.blueprint), configuration.clone());
        let outline = compute(move || plan.link(index, &chosen, untested)).await??;
        parts.push((target, outline.metadata.clone()));
        let label = format!("link {} for {target}", attempt.job.request.name);
        wants.push(link_item(attempt, planned, outline, &configuration, target, label).await?);
    }
    let keys = attempt.core.want(attempt.id, &wants).await?;
    let ended = wait_for(attempt, JobState::Linking, &keys, &planned.pins, 0).await?;
    let mut linked = Vec::new();
    for (key, (target, metadata)) in keys.iter().zip(parts) {
        match &ended[key].result {
            Some(WorkResult::Linked { artifact, .. }) => linked.push(Linked { target, artifact: *artifact, metadata }),
            other => return Err(unusable("the artifact", target, other.as_ref(), &ended[key].log)),
        }
    }
    Ok(linked)
}

/// A Link item, its objects built and its other parts put into the store.
pub(super) async fn link_item(
    attempt: &Attempt,
    planned: &Planned,
    outline: LinkOutline,
    configuration: &Configuration,
    target: Target,
    label: String,
) -> Drive<Want> {
    let objects = objects(attempt, planned, &outline, configuration, target).await?;
    let blobs = &attempt.core.blobs;
    let glue = blobs.put(outline.glue.into()).await.map_err(Error::from)?;
    let weights = blobs.put(outline.weights.into()).await.map_err(Error::from)?;
    let spec = LinkSpec {
        target,
        toolchain: planned.pins[&target].linker.clone(),
        glue,
        objects,
        weights,
        section_bytes: outline.section_bytes,
        packs: outline.packs,
        copies: outline.copies,
        recipe: Some(outline.recipe),
    };
    Ok(Want { spec: WorkSpec::Link(spec), label, context: None })
}

/// The objects of an artifact, in the order of its units. Nearly all were built while tuning.
async fn objects(
    attempt: &Attempt,
    planned: &Planned,
    outline: &LinkOutline,
    configuration: &Configuration,
    target: Target,
) -> Drive<Vec<Digest>> {
    let pin = &planned.pins[&target];
    let mut wants = Vec::new();
    for unit in &outline.units {
        let candidate = configuration.candidates.iter().map(|(_, c)| c).find(|c| c.unit == *unit);
        let label = format!("{} for the artifact", candidate.map_or("kernel", |c| c.family.as_str()));
        wants.push(build_item(attempt, &planned.blueprint, *unit, target, pin, label).await?);
    }
    let keys = attempt.core.want(attempt.id, &wants).await?;
    let pins = Pins::from([(target, pin.clone())]);
    let ended = wait_for(attempt, JobState::Linking, &keys, &pins, 0).await?;
    let object = |key| match &ended[key].result {
        Some(WorkResult::Built { object }) => Ok(*object),
        other => Err(unusable("a kernel of the artifact", target, other.as_ref(), &ended[key].log)),
    };
    keys.iter().map(object).collect()
}
