//! Candidates: TuningTask → rendered source. A family is one file in `families/`, one template in `kernels/`, and one line
//! in [`FAMILIES`].

use std::collections::{HashMap, HashSet};

use aotfarm_protocol::{CandidateId, Digest, KeyHasher, Launch, Params, Target, TaskKey, TuneMode, VendorCall, params_text};

use aotfarm_ir::PoolOp;
use aotfarm_plan::spec::{AttentionSpec, KernelKind, LoopNest, PoolSpec, RowSpec, Size, TensorSpec};

#[cfg(test)]
mod conformance;
mod families;
pub mod measure;
mod printer;
mod render;
mod scalar;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use families::{FAMILIES, baseline};
pub use render::epilogue;
pub use task::{PlannedTask, TuningTask, tasks};

/// `name@version`; raise the version when a family's code changes its results or speed.
pub type FamilyId = &'static str;

/// Why a family does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// A rendered translation unit. Candidates that differ only in run-time integers share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSource {
    /// Self-contained C, or CUDA C++ for a GPU.
    pub text: String,
    /// The kernel's symbol, unique for the text.
    pub symbol: String,
    /// Whether `<symbol>_pack` exists.
    pub packs: bool,
}

/// Workspace and packed-weight sizes of a candidate, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Packed weights; 0 when the kernel reads raw weights.
    pub packed: u64,
    /// Workspace of the team, at the given dims; all workspace of a CUDA kernel.
    pub shared: u64,
    /// Workspace of each thread, at the given dims.
    pub thread: u64,
}

impl Needs {
    /// Raw weights and no workspace.
    pub const NONE: Self = Self { packed: 0, shared: 0, thread: 0 };
}

/// A way to implement a task.
pub trait CandidateFamily: Sync {
    /// `name@version`.
    fn id(&self) -> FamilyId;

    /// Whether the family can implement the task for its target.
    fn supports(&self, task: &TuningTask) -> Result<(), Unsupported>;

    /// The legal points in a fixed order, the one believed best first.
    fn enumerate(&self, task: &TuningTask) -> Vec<Params>;

    /// The parameters that show in the source; `None`: all. Points that differ only in others are one unit, rendered once.
    fn compile_time(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// The source of a point. Only compile-time parameters may show in it.
    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource;

    /// The run-time integers (`aotk_call.tune`) of a point; none for CUDA kernels.
    fn tune(&self, _task: &TuningTask, _params: &Params) -> Vec<i64> {
        Vec::new()
    }

    /// The parameters that shape the packed weights, all of them unless the family knows better: candidates of one family for one
    /// computation that agree in these pack to the same bytes, so an artifact stores them once.
    fn packing(&self, params: &Params) -> Params {
        params.clone()
    }

    /// How a CUDA kernel is launched; `None` for CPU kernels, whose caller's threads are the team.
    fn launch(&self, _task: &TuningTask, _params: &Params) -> Option<Launch> {
        None
    }

    /// Sizes at run-time dims `dims` (not only the task's own point); never smaller for larger dims. `packed` may not depend on `dims`.
    /// The artifact reserves workspace for the largest dims of the range; pages that are not touched cost nothing.
    fn needs(&self, _task: &TuningTask, _params: &Params, _dims: &[i64]) -> Needs {
        Needs::NONE
    }
}

/// One point of a family's space for one task.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Digest of task, family, params and source.
    pub id: CandidateId,
    /// `name@version`.
    pub family: FamilyId,
    /// Parameters.
    pub params: Params,
    /// Source; shared text is deduplicated by `unit`.
    pub source: KernelSource,
    /// Digest of the source text.
    pub unit: Digest,
    /// Run-time integers.
    pub tune: Vec<i64>,
    /// Sizes at the task's point.
    pub needs: Needs,
    /// [`CandidateFamily::launch`].
    pub launch: Option<Launch>,
    /// [`CandidateFamily::packing`].
    pub packing: Params,
    /// What a vendor's library is to do in its stead: such a candidate is measured for comparison, and wins only where the job allows it, as one
    /// [with an algorithm](Self::with_algorithm).
    pub vendor: Option<VendorCall>,
}

/// The parameter that names an algorithm of a vendor's library.
const ALGORITHM: &str = "algorithm";

/// The most candidates of one task besides the naive one, by mode, when the user sets no number.
const QUICK_TRIALS: usize = 64;
const FULL_TRIALS: usize = 400;

/// The candidates of a task: the naive one, then the families' points in turn, so that any prefix holds each family's best
/// guesses. At most `trials` (else the mode's default) besides the naive one and a vendor's library. `TuneMode::None` gives those of the quick
/// search, because known records of any of them may be used. Empty when no family supports the task.
pub fn candidates(task: &TuningTask, mode: TuneMode, trials: Option<u32>) -> Vec<Candidate> {
    let limit = trials.map_or(if mode == TuneMode::Full { FULL_TRIALS } else { QUICK_TRIALS }, |n| n as usize);
    let mut families = FAMILIES.iter().filter(|f| f.supports(task).is_ok());
    let Some(naive) = families.next() else { return Vec::new() };
    let mut result = vec![naive_point(*naive, task)];
    let baseline = families::baseline(task).filter(|_| mode != TuneMode::None);
    let limit = limit + usize::from(baseline.is_some());
    result.extend(baseline);
    let mut queues: Vec<_> = families.map(|f| (*f, f.enumerate(task).into_iter(), HashMap::new())).collect();
    let mut seen = HashSet::new();
    let key = task.key();
    while result.len() <= limit && !queues.is_empty() {
        queues.retain_mut(|(family, points, units)| {
            let Some(params) = points.next() else { return false };
            let unit: &RenderedUnit =
                units.entry(compiled(*family, &params)).or_insert_with(|| RenderedUnit::new(*family, task, &params));
            let new = Candidate::of_unit(*family, task, key, params, unit.clone());
            // Two points can come out as the same program for small sizes; the first stands for both.
            if result.len() <= limit && seen.insert((new.unit, new.tune.clone())) {
                result.push(new);
            }
            true
        });
    }
    result
}

/// The naive candidate: the baseline, the fallback, and what the others are checked against.
///
/// # Panics
/// When no family supports the task: every kind has a naive family for every CPU target.
pub fn reference(task: &TuningTask) -> Candidate {
    let naive = FAMILIES.iter().find(|f| f.supports(task).is_ok());
    let naive = naive.unwrap_or_else(|| panic!("no family supports {}", title(task)));
    naive_point(*naive, task)
}

/// The kernels that fill and compare operands on a GPU, one unit for all tasks; `None` for a CPU, where the worker does that itself.
pub fn tools(target: Target) -> Option<String> {
    match target {
        Target::Cpu(_) => None,
        Target::Cuda { sm } => Some(render::tools(sm)),
    }
}

fn naive_point(naive: &dyn CandidateFamily, task: &TuningTask) -> Candidate {
    let params = naive.enumerate(task).into_iter().next();
    Candidate::new(
        naive,
        task,
        params.unwrap_or_else(|| panic!("{} supports {} but has no point for it", naive.id(), title(task))),
    )
}

/// A source with its digest.
#[derive(Debug, Clone)]
struct RenderedUnit {
    source: KernelSource,
    digest: Digest,
}

impl RenderedUnit {
    fn new(family: &dyn CandidateFamily, task: &TuningTask, params: &Params) -> Self {
        let source = family.render(task, params);
        let digest = Digest::of(&source.text);
        Self { source, digest }
    }
}

/// The parameters that show in the source.
pub(crate) fn compiled(family: &dyn CandidateFamily, params: &Params) -> Params {
    family.compile_time().map_or_else(|| params.clone(), |names| only(params, names))
}

/// What stands for a point of a family in a task that is like the one in which it was fast: the same point if it is legal, else the best guess that is
/// compiled alike. `None` when the family has none, or does not implement the task.
pub fn alike(task: &TuningTask, family: &str, params: &Params) -> Option<Candidate> {
    let family = FAMILIES.iter().find(|f| f.id() == family && f.supports(task).is_ok())?;
    let mut points = family.enumerate(task);
    let own = compiled(*family, params);
    let at = points.iter().position(|p| p == params).or_else(|| points.iter().position(|p| compiled(*family, p) == own))?;
    Some(Candidate::new(*family, task, points.swap_remove(at)))
}

/// The named parameters alone, for [`CandidateFamily::packing`].
pub(crate) fn only(params: &Params, names: &[&str]) -> Params {
    params.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(name, value)| (name.clone(), *value)).collect()
}

impl Candidate {
    /// Renders one point of a family.
    pub fn new(family: &dyn CandidateFamily, task: &TuningTask, params: Params) -> Self {
        let unit = RenderedUnit::new(family, task, &params);
        Self::of_unit(family, task, task.key(), params, unit)
    }

    fn of_unit(family: &dyn CandidateFamily, task: &TuningTask, key: TaskKey, params: Params, unit: RenderedUnit) -> Self {
        let RenderedUnit { source, digest: unit } = unit;
        Self {
            id: Self::name(key, family.id(), unit, &params),
            family: family.id(),
            tune: family.tune(task, &params),
            needs: family.needs(task, &params, &task.point),
            launch: family.launch(task, &params),
            packing: family.packing(&params),
            vendor: None,
            params,
            source,
            unit,
        }
    }

    /// The candidates of its unit for `task`: all legal points of the family that differ from this one in nothing that is compiled, itself among them,
    /// those believed best first. None of what is of no family.
    pub fn siblings(&self, task: &TuningTask) -> Vec<Self> {
        let Some(family) = FAMILIES.iter().find(|f| f.id() == self.family) else { return Vec::new() };
        let (key, own) = (task.key(), compiled(*family, &self.params));
        let mut seen = HashSet::new();
        let points = family.enumerate(task).into_iter().filter(|params| compiled(*family, params) == own);
        let unit = RenderedUnit { source: self.source.clone(), digest: self.unit };
        let all = points.map(|params| Self::of_unit(*family, task, key, params, unit.clone()));
        all.filter(|c| seen.insert(c.tune.clone())).collect()
    }

    /// A candidate of no family.
    fn foreign(family: FamilyId, task: &TuningTask, params: Params, source: KernelSource, needs: Needs) -> Self {
        let unit = Digest::of(&source.text);
        let id = Self::name(task.key(), family, unit, &params);
        let packing = params.clone();
        Self { id, family, params, source, unit, tune: Vec::new(), needs, launch: None, packing, vendor: None }
    }

    /// A vendor's library by one of its algorithms: what an artifact can call, while the candidate that is measured finds out which is the fastest.
    #[must_use]
    pub fn with_algorithm(&self, task: &TuningTask, algorithm: i64) -> Self {
        let params = Params::from([(ALGORITHM.to_owned(), algorithm)]);
        let chosen = Self::foreign(self.family, task, params, self.source.clone(), self.needs.clone());
        Self { vendor: self.vendor.clone(), ..chosen }
    }

    /// Which algorithm, of a candidate [with one](Self::with_algorithm).
    pub fn algorithm(&self) -> Option<i64> {
        self.vendor.as_ref().and_then(|_| self.params.get(ALGORITHM).copied())
    }

    fn name(key: TaskKey, family: FamilyId, unit: Digest, params: &Params) -> CandidateId {
        let mut id = KeyHasher::new("candidate").field(key.0.as_bytes()).field(family).field(unit.as_bytes());
        for (name, value) in params {
            id = id.field(name).field(value.to_le_bytes());
        }
        CandidateId(id.finish())
    }

    /// Whether both read the same packed weights (or both the raw ones), when they are for the same computation.
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        match (self.needs.packed, other.needs.packed) {
            (0, 0) => true,
            (a, b) => a == b && self.family == other.family && self.packing == other.packing,
        }
    }

    /// Sizes at other run-time dims than the task's own point.
    pub fn needs_at(&self, task: &TuningTask, dims: &[i64]) -> Needs {
        let family = FAMILIES.iter().find(|f| f.id() == self.family);
        family.map_or_else(|| self.needs.clone(), |f| f.needs(task, &self.params, dims))
    }

    /// `family@version` and the parameters, for tables and logs.
    pub fn label(&self) -> String {
        format!("{} {}", self.family, params_text(&self.params))
    }
}

/// The task in words: `convolution(1x64x56x56, 64x64x3x3) f32 cpu-x86_64-v3`.
pub fn title(task: &TuningTask) -> String {
    let spec = &task.spec;
    let name = match &spec.kind {
        KernelKind::Conv(_) => "convolution",
        KernelKind::MatMul(_) => "matmul",
        KernelKind::Attention(_) => "attention",
        KernelKind::Pool(PoolSpec { op: PoolOp::Max, .. }) => "max_pool",
        KernelKind::Pool(PoolSpec { op: PoolOp::Avg { .. }, .. }) => "avg_pool",
        KernelKind::Rows(RowSpec::Softmax) => "softmax",
        KernelKind::Rows(RowSpec::LayerNorm { .. }) => "layer_norm",
        KernelKind::Loops(LoopNest { reduction: Some(_), .. }) => "reduction",
        KernelKind::Loops(_) => "elementwise",
    };
    let shape = |t: &TensorSpec| {
        let sizes: Vec<_> = t.shape.iter().map(|s| s.at(&task.point).to_string()).collect();
        if sizes.is_empty() { "scalar".to_owned() } else { sizes.join("x") }
    };
    // Of the operands, those that say what work it is: not biases and residuals.
    let main = match &spec.kind {
        KernelKind::Conv(_) => spec.inputs.iter().take(1).chain(spec.weights.iter().take(1)).map(shape).collect::<Vec<_>>(),
        KernelKind::MatMul(m) if m.b_is_weight => {
            spec.inputs.iter().take(1).chain(spec.weights.iter().take(1)).map(shape).collect()
        }
        KernelKind::MatMul(_) => spec.inputs.iter().take(2).map(shape).collect(),
        KernelKind::Attention(AttentionSpec { lead: [batch, heads], rows, widths, .. }) => {
            let matrix = |(rows, width): (&Size, &i64)| {
                format!("{}x{}x{}x{width}", batch.at(&task.point), heads.at(&task.point), rows.at(&task.point))
            };
            rows.iter().zip(widths).map(matrix).collect()
        }
        KernelKind::Pool(_) | KernelKind::Rows(_) => spec.inputs.iter().take(1).map(shape).collect(),
        KernelKind::Loops(_) => spec.outputs.iter().take(1).map(shape).collect(),
    };
    let dtype = spec.outputs.first().map_or("", |o| o.dtype.name());
    format!("{name}({}) {dtype} {}", main.join(", "), task.target)
}
