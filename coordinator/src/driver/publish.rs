//! The last phase: the version is published.

use aotfarm_protocol::{Digest, JobState, Profile, PublishRequest, Samples};

use super::attempt::{Attempt, Drive};
use super::link::Linked;
use crate::error::Error;
use crate::pipeline::JobStep;

/// Publishes the artifacts with their profiles, and the case that they were checked with, as a version.
pub(super) async fn publish(attempt: &Attempt, linked: Vec<Linked>, profiles: Vec<Profile>, check: Digest) -> Drive<()> {
    let request = PublishRequest {
        name: attempt.job.request.name.clone(),
        graph: attempt.job.request.graph,
        variants: linked.into_iter().map(|v| (v.target, v.artifact, v.metadata)).collect(),
        profiles,
        samples: Some(Samples { case: check, submitted: attempt.job.request.samples.is_some() }),
    };
    attempt.expect(JobState::Profiling).await?;
    let published = attempt.core.catalog.publish(&request, attempt.core.now() / 1000).await.map_err(Error::from)?;
    attempt.end(JobStep::Publish, published).await
}
