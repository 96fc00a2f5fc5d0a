//! What the search knows of a model: its tasks and their candidates, without what they compute.

use std::collections::BTreeMap;

use aotfarm_protocol::{AutotuneRow, CandidateId, Digest, Likeness, Params, Target, TaskKey, params_text};

/// One TuningTask: a spec at one tuned point.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutline {
    /// The key that TuningRecords are filed under.
    pub key: TaskKey,
    /// The core computation. Tasks of one core differ only in the steps that are fused to it, so
    /// the same kernels are fast in all of them: the heaviest is searched first, the others choose
    /// among its best.
    pub core: Option<Digest>,
    /// What it is like, for a search of which nothing is known.
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

/// A distinct computation of a variant, at its tuned points from the smallest to the largest. A
/// spec whose sizes do not depend on symbolic dimensions has one task.
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

/// Names a task of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef {
    /// Index into the model's variants.
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

/// What was selected for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionOutline {
    /// The winner: one of the considered, the naive one, or a vendor's library by the algorithm
    /// that it was measured with.
    pub winner: CandidateOutline,
    /// Candidates that are right and were timed to the end.
    pub measured: u32,
    /// Candidates that are right and were dropped while screening.
    pub dropped: u32,
    /// Every considered candidate, best first, with the reason why it won or lost.
    pub rows: Vec<AutotuneRow>,
}
