//! The compiler as the coordinator sees it. The driver knows work items, digests and outcomes; what
//! a graph or a kernel is, it leaves to a [`Blueprint`]. The real one is
//! [`CompilerPlanner`](crate::CompilerPlanner); tests script their own, which is the coordinator's
//! only fake on this side.
//!
//! Everything here is a pure function of the graph's bytes and the request, so that a restarted
//! coordinator gets the same blueprint and goes on with the same work items.

use std::collections::BTreeMap;
use std::sync::Arc;

use aotfarm_protocol::{ArtifactMetadata, CopyStep, Digest, JobRequest, PackStep, Target, TaskKey};
use aotfarm_search::{Configuration, SearchSpace, TaskRef};
use bytes::Bytes;

/// Why a model cannot be compiled: a fault of the request, told to the user as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong; a lower-case fragment.
    pub message: String,
    /// What the user can do, when there is something.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }
}

/// Makes blueprints. All functions may compute for seconds and are called off the async threads.
pub trait Planner: Send + Sync + 'static {
    /// Version of the compiler: part of the key by which equal requests are recognised.
    fn version(&self) -> String;

    /// Imports the graph, runs the passes and lowers it for each target of the request.
    ///
    /// # Errors
    /// When the graph is not valid, the request does not fit it, or a target is not supported.
    fn plan(&self, graph: Bytes, request: &JobRequest) -> Result<Arc<dyn Blueprint>, Refusal>;
}

/// What a Link item is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOutline {
    /// Glue and runtime, one translation unit.
    pub glue: String,
    /// Raw weights.
    pub weights: Vec<u8>,
    /// Translation units whose objects are linked, in order.
    pub units: Vec<Digest>,
    /// Bytes of the weight section.
    pub section_bytes: u64,
    /// Weights that kernels read packed.
    pub packs: Vec<PackStep>,
    /// Weights that kernels read raw.
    pub copies: Vec<CopyStep>,
    /// Digest of the recipe by which it is linked.
    pub recipe: Digest,
    /// What the artifact says about itself.
    pub metadata: ArtifactMetadata,
    /// The spec of each of its steps, as an index into
    /// [`VariantOutline::specs`](aotfarm_search::VariantOutline::specs).
    pub steps: Vec<usize>,
    /// Of each step: whether it can be in a [`Segment`](aotfarm_protocol::Segment).
    pub image_wise: Vec<bool>,
}

/// A planned model: what can be searched, and what becomes of what was found.
pub trait Blueprint: SearchSpace {
    /// The key of a task for another target, under which its records there are filed.
    fn key_for(&self, task: TaskRef, target: Target) -> TaskKey;

    /// The text of a translation unit of a candidate that was returned before.
    fn source(&self, unit: Digest) -> String;

    /// The parts of the artifact of a variant. `untested` says why its kernels were not measured on
    /// a device of the target, if they were not.
    ///
    /// # Errors
    /// When the weights or the workspace exceed what an artifact can hold.
    fn link(&self, variant: usize, configuration: &Configuration, untested: Option<String>) -> Result<LinkOutline, Refusal>;

    /// The parts of an artifact for the model race: like [`Self::link`], but all its weights are
    /// zeros and it does not say which graph it is of, so that it is the same for all weights of a
    /// model.
    ///
    /// # Errors
    /// As of [`Self::link`].
    fn link_for_race(&self, variant: usize, configuration: &Configuration) -> Result<LinkOutline, Refusal>;

    /// What an artifact must make of which inputs, as [`aotfarm_protocol::ProfileSpec::check`]
    /// describes it: the calls of `samples`, the submitter's file of that form, and what it lacks of
    /// them from the reference interpreter; without `samples`, seeded random inputs at the smallest
    /// sizes.
    ///
    /// # Errors
    /// When the samples do not fit the graph, or the interpreter cannot run it.
    fn check_case(&self, samples: Option<Bytes>) -> Result<Vec<u8>, Refusal>;

    /// The sizes at which the artifact is profiled.
    fn profile_points(&self) -> Vec<BTreeMap<String, i64>>;
}
