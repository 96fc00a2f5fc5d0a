//! What a family of candidates is, and the words of its signatures.

use aotfarm_protocol::{Launch, Params};

use crate::task::TuningTask;

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

    /// The parameters that show in the source; `None`: all. Points that differ only in others are
    /// one unit, rendered once.
    fn compile_time(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// The source of a point. Only compile-time parameters may show in it.
    fn render(&self, task: &TuningTask, params: &Params) -> KernelSource;

    /// The run-time integers (`aotk_call.tune`) of a point; none for CUDA kernels.
    fn tune(&self, _task: &TuningTask, _params: &Params) -> Vec<i64> {
        Vec::new()
    }

    /// The parameters that shape the packed weights, all of them unless the family knows better:
    /// candidates of one family for one computation that agree in these pack to the same bytes, so
    /// an artifact stores them once.
    fn packing(&self, params: &Params) -> Params {
        params.clone()
    }

    /// How a CUDA kernel is launched; `None` for CPU kernels, whose caller's threads are the team.
    fn launch(&self, _task: &TuningTask, _params: &Params) -> Option<Launch> {
        None
    }

    /// Sizes at run-time dims `dims` (not only the task's own point); never smaller for larger
    /// dims. `packed` may not depend on `dims`. The artifact reserves workspace for the largest
    /// dims of the range; pages that are not touched cost nothing.
    fn needs(&self, _task: &TuningTask, _params: &Params, _dims: &[i64]) -> Needs {
        Needs::NONE
    }
}

/// The most candidates of one task besides the naive one, by mode, when the user sets no number. A
/// family need not offer more.
pub(crate) const QUICK_TRIALS: usize = 64;
pub(crate) const FULL_TRIALS: usize = 400;

/// The parameters that show in the source.
pub(crate) fn compiled(family: &dyn CandidateFamily, params: &Params) -> Params {
    family.compile_time().map_or_else(|| params.clone(), |names| only(params, names))
}

/// The named parameters alone, for [`CandidateFamily::packing`].
pub(crate) fn only(params: &Params, names: &[&str]) -> Params {
    params.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(name, value)| (name.clone(), *value)).collect()
}
