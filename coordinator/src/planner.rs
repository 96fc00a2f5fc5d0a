//! The compiler as the coordinator sees it. The driver knows work items, digests and outcomes; what a graph or a kernel is,
//! it leaves to a [`Blueprint`]. The real one is [`CompilerPlanner`](crate::CompilerPlanner); tests script their own, which is
//! the coordinator's only fake on this side.
//!
//! Everything here is a pure function of the graph's bytes and the request, so that a restarted coordinator gets the same
//! blueprint and goes on with the same work items.

use std::collections::BTreeMap;
use std::sync::Arc;

use aotfarm_protocol::{
    ArtifactMetadata, AutotuneRow, CandidateId, CopyStep, Digest, JobRequest, Likeness, MeasureProtocol, MeasureSpec, Outcome,
    PackStep, Params, Segment, Target, TaskKey, TuneMode, params_text,
};
use bytes::Bytes;

/// Why a model cannot be compiled: a fault of the request, told to the user as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// What is wrong; a lower-case fragment.
    pub message: String,
    /// What the user can do, when there is something.
    pub hint: Option<String>,
}

impl PlanError {
    /// An error without a hint.
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
    fn plan(&self, graph: Bytes, request: &JobRequest) -> Result<Arc<dyn Blueprint>, PlanError>;
}

/// One task: a spec at one tuned point.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutline {
    /// The key that TuningRecords are filed under.
    pub key: TaskKey,
    /// Equal for tasks of which the same kernels are fast: one of them is searched first, the others choose among its best.
    pub kin: Option<Digest>,
    /// What it is like, for those of which nothing is known.
    pub likeness: Option<Likeness>,
    /// In words, as the AUTOTUNE table prints it.
    pub title: String,
    /// Values of the symbolic dimensions.
    pub point: BTreeMap<String, i64>,
    /// How often the model runs it.
    pub calls: u32,
    /// Estimated floating-point operations of one run.
    pub flops: f64,
    /// Largest relative error of a kernel that may win.
    pub allowed: f64,
    /// Bytes that one run of the whole model touches at this point.
    pub footprint: u64,
}

/// A distinct computation of a variant, at its tuned points from the smallest to the largest. A spec whose sizes do not
/// depend on symbolic dimensions has one task.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecOutline {
    /// Its tasks.
    pub tasks: Vec<TaskOutline>,
}

/// The plan for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantOutline {
    /// What code is made for.
    pub target: Target,
    /// Its specs, in the plan's order.
    pub specs: Vec<SpecOutline>,
}

/// Names a task of a blueprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef {
    /// Index into [`Blueprint::variants`].
    pub variant: usize,
    /// Index into [`VariantOutline::specs`].
    pub spec: usize,
    /// Index into [`SpecOutline::tasks`].
    pub point: usize,
}

/// A candidate as the farm sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateOutline {
    /// Which.
    pub id: CandidateId,
    /// `family@version`.
    pub family: String,
    /// Parameters.
    pub params: Params,
    /// Digest of its translation unit, which candidates may share.
    pub unit: Digest,
}

impl CandidateOutline {
    /// Family and parameters, for logs.
    pub fn label(&self) -> String {
        format!("{} {}", self.family, params_text(&self.params))
    }
}

/// What was chosen for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The winner: one of the considered, the naive one, or a vendor's library by the algorithm that it was measured with.
    pub winner: CandidateOutline,
    /// Candidates that are right and were timed to the end.
    pub measured: u32,
    /// Candidates that are right and were dropped while screening.
    pub dropped: u32,
    /// Every considered candidate, best first, with the reason why it won or lost.
    pub rows: Vec<AutotuneRow>,
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
    /// What the artifact says about itself.
    pub metadata: ArtifactMetadata,
    /// The spec of each of its steps, as an index into [`VariantOutline::specs`].
    pub steps: Vec<usize>,
    /// Of each step: whether it can be in a [`Segment`].
    pub image_wise: Vec<bool>,
}

/// What an artifact is made of: a winner for every task, and which steps are done for a few images at a time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cast {
    /// The winners.
    pub winners: Vec<(TaskRef, CandidateOutline)>,
    /// In order.
    pub segments: Vec<Segment>,
}

/// A planned model.
pub trait Blueprint: Send + Sync + 'static {
    /// One plan per target, in the order of the request.
    fn variants(&self) -> &[VariantOutline];

    /// The candidates of a task, those believed best first, at most `trials` of them; never empty.
    fn candidates(&self, task: TaskRef, mode: TuneMode, trials: Option<u32>) -> Vec<CandidateOutline>;

    /// One point of a family for a task; `None` when the family does not implement the task, or the point is not legal for it.
    fn candidate(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline>;

    /// What stands for a point of a family in this task, after it was fast in one that is like it: the point itself if it is legal, else the best guess that
    /// is compiled alike.
    fn alike(&self, task: TaskRef, family: &str, params: &Params) -> Option<CandidateOutline>;

    /// The candidates of the same unit: all legal points that differ from this one in nothing that is compiled, itself among them, those believed best first.
    fn siblings(&self, task: TaskRef, candidate: &CandidateOutline) -> Vec<CandidateOutline>;

    /// The naive candidate of a task: the fallback and the reference.
    fn reference(&self, task: TaskRef) -> CandidateOutline;

    /// The unit of the kernels that fill and compare operands on the variant's GPU; `None` for a CPU.
    fn tools(&self, variant: usize) -> Option<Digest>;

    /// The key of a task for another target, under which its records there are filed.
    fn key_for(&self, task: TaskRef, target: Target) -> TaskKey;

    /// The text of a translation unit of a candidate that was returned before.
    fn source(&self, unit: Digest) -> String;

    /// A Measure item over candidates with their objects; the first pair is the reference. `tools` is the object of [`Self::tools`].
    fn measure(
        &self,
        task: TaskRef,
        reference: (CandidateId, Digest),
        candidates: &[(CandidateId, Digest)],
        tools: Option<Digest>,
        protocol: MeasureProtocol,
        seed: u64,
    ) -> MeasureSpec;

    /// Chooses among candidates. Without any outcome it is the compiler's own guess. `beside` are the winners at other points of the
    /// same computation, with which sharing packed weights is preferred.
    fn select(
        &self,
        task: TaskRef,
        considered: &[CandidateId],
        outcomes: &[(CandidateId, Outcome)],
        beside: &[CandidateId],
    ) -> Decision;

    /// The parts of the artifact of a variant. `untested` says why its kernels were not measured on a device of the target, if they were not.
    ///
    /// # Errors
    /// When the weights or the workspace exceed what an artifact can hold.
    fn link(&self, variant: usize, cast: &Cast, untested: Option<String>) -> Result<LinkOutline, PlanError>;

    /// The parts of an artifact to be rehearsed: like [`Self::link`], but all its weights are zeros and it does not say which graph it is of, so that it
    /// is the same for all weights of a model.
    ///
    /// # Errors
    /// As of [`Self::link`].
    fn link_for_rehearsal(&self, variant: usize, cast: &Cast) -> Result<LinkOutline, PlanError>;

    /// A safetensors file with seeded random inputs `in.<i>` at the smallest sizes and the reference interpreter's `out.<i>`.
    ///
    /// # Errors
    /// When the interpreter cannot run the graph.
    fn check_case(&self) -> Result<Vec<u8>, PlanError>;

    /// The sizes at which the artifact is profiled.
    fn profile_points(&self) -> Vec<BTreeMap<String, i64>>;
}
